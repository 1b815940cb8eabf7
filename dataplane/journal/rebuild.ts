/**
 * Leaf tables out of the vault, for a process server whose cache does not know a machine (a lost PVC, a takeover, damage): the newest
 * point's leaf hashes, then the journal after it; without a point, the journal from its beginning. What is trimmed or retired meanwhile
 * makes it begin again at the point that is newest then.
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { PAGE_WRITE_MAX } from '../../platform/storeErrors.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary } from '../../vault/documents/machineStatus.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { WHOLE_LEAF } from './batchCheck.ts';
import { CHAIN_START, Chain, type ChainPosition } from './chain.ts';
import type { LeafTable } from './leafTable.ts';
import type { JournalDisk } from './machineJournal.ts';
import type { ResyncState } from './machineState.ts';
import { DISK_SIZE_MAX } from './merkle.ts';
import { newestPoint } from './points.ts';
import { decodeRecord, HASH_SIZE, LEAF_SIZE, RecordKind } from './record.ts';
import type { SegmentCodec } from './segmentCodec.ts';

export interface RebuildDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  codec: SegmentCodec;
  logger: Logger;
}

export interface Rebuilt {
  /** Where the journal ends. */
  position: ChainPosition;
  resync: ResyncState;
  barrier: BarrierSummary | undefined;
  appBarrier: BarrierSummary | undefined;
  /** Sizes as the vault knows them where the assignment did not say. */
  disks: Map<number, JournalDisk>;
}

export interface RebuildRequest {
  machineId: string;
  dataKey: Uint8Array;
  disks: readonly JournalDisk[];
  signal: AbortSignal | undefined;
  /** Makes an empty table. Called again for a disk when a first attempt led nowhere. */
  openTable(disk: { index: number; sizeBytes: number }): Promise<LeafTable>;
}

/** What makes a journal useless as a source for hashes without making it another's: the tables are then filled by a resync. */
const BEYOND_REBUILDING = new Set([
  'ChainGap',
  'ChainTrimmed',
  'ChainBroken',
  'SegmentDamaged',
  'SegmentRemoved',
  'StoreObjectMissing',
  'VaultDocumentInvalid',
]);

/**
 * Fills `tables`. `end` is our own claim: what lies before it is all there is. Throws StoreError (try again), SegmentError when
 * the key or the format does not fit.
 */
export async function rebuildTables(
  deps: RebuildDeps,
  request: RebuildRequest,
  end: ChainPosition,
  tables: Map<number, LeafTable>,
): Promise<Rebuilt> {
  let problem: unknown;
  const attempt = async (from: string, point: PointDocument | undefined) => {
    try {
      return await new Rebuild(deps, request, tables).run(point);
    } catch (error) {
      if (!BEYOND_REBUILDING.has(errorCode(error))) throw error;
      problem = error;
      deps.logger.warn(
        { machineId: request.machineId, from, code: errorCode(error) },
        `leaf hashes can't be had from the vault: ${errorMessage(error)}`,
      );
      return undefined;
    }
  };
  let tried: Lsn | undefined;
  for (;;) {
    const point = await newestPoint(deps.objects, request.machineId);
    if (point === undefined || point.lsn === tried) break;
    const rebuilt = await attempt('newestPoint', point);
    if (rebuilt !== undefined) return rebuilt;
    // While we read, the applier may have made a newer one, and trimmed or retired what lies before that.
    tried = point.lsn;
  }
  const rebuilt = await attempt('beginning', undefined);
  if (rebuilt !== undefined) return rebuilt;
  deps.logger.error(
    { machineId: request.machineId, cause: errorMessage(problem) },
    'the journal in the vault does not give the leaf hashes back: a resync reads and sends what differs',
  );
  const rebuild = new Rebuild(deps, request, tables);
  await rebuild.distrust();
  return rebuild.result(end, { required: true, reason: 'VaultGap' });
}

class Rebuild {
  readonly #deps: RebuildDeps;
  readonly #request: RebuildRequest;
  readonly #tables: Map<number, LeafTable>;
  readonly #disks: Map<number, JournalDisk>;
  /** Disks that a point or a barrier of the journal had. */
  readonly #seen = new Set<number>();
  #resync: ResyncState = { required: true, reason: 'Initial' };
  #barrier: BarrierSummary | undefined;
  #appBarrier: BarrierSummary | undefined;

  constructor(deps: RebuildDeps, request: RebuildRequest, tables: Map<number, LeafTable>) {
    this.#deps = deps;
    this.#request = request;
    this.#tables = tables;
    this.#disks = new Map(request.disks.map((disk) => [disk.index, { ...disk }]));
  }

  async run(point: PointDocument | undefined): Promise<Rebuilt> {
    await this.#begin(point);
    let position: ChainPosition = CHAIN_START;
    if (point !== undefined) {
      const { seq, digest, writerEpoch } = point.segment;
      position = { seq, digest, lsn: point.lsn, writerEpoch };
      const { lsn, timeMs, consistency } = point;
      this.#remember({ lsn, timeMs, consistency });
      // A point is only ever made outside a resync.
      this.#resync = { required: false };
      for (const disk of point.disks) {
        this.#seen.add(disk.index);
        await this.#loadLeaves(disk);
      }
    }
    const chain = new Chain(this.#deps, this.#request);
    const { signal } = this.#request;
    for await (const segment of chain.segments(position, signal === undefined ? {} : { signal })) {
      for await (const batch of segment.batches()) await this.#replay(batch);
      for (const barrier of segment.header.barriers) this.#remember(barrier);
      position = await segment.position();
    }
    await this.#adoptStatedSizes();
    return this.result(position, this.#resync);
  }

  /** Tables about which nothing is known: every leaf must come again. */
  async distrust(): Promise<void> {
    await this.#begin(undefined);
    for (const table of this.#tables.values()) table.distrustAll();
  }

  result(position: ChainPosition, resync: ResyncState): Rebuilt {
    return {
      position,
      resync,
      barrier: this.#barrier,
      appBarrier: this.#appBarrier,
      disks: this.#disks,
    };
  }

  /** Empty tables of the sizes that are stated or that the point knows. */
  async #begin(point: PointDocument | undefined): Promise<void> {
    for (const table of this.#tables.values()) await table.close();
    this.#tables.clear();
    for (const { index, sizeBytes } of this.#disks.values()) {
      const known = point?.disks.find((disk) => disk.index === index)?.sizeBytes;
      const size = known ?? sizeBytes;
      if (size > 0)
        this.#tables.set(index, await this.#request.openTable({ index, sizeBytes: size }));
    }
  }

  async #loadLeaves(disk: PointDocument['disks'][number]): Promise<void> {
    const table = this.#tables.get(disk.index);
    if (table === undefined) return;
    const { key, snapshot } = disk.leaves;
    const end = table.leaves * HASH_SIZE;
    for await (const range of this.#deps.pages.ranges(key, { snapshot }))
      for (let offset = range.offset; offset < range.offset + range.length; ) {
        const length = Math.min(PAGE_WRITE_MAX, range.offset + range.length - offset);
        const bytes = await this.#deps.pages.read(key, { offset, length }, { snapshot });
        const useful = Math.min(length, end - offset);
        if (useful > 0) await table.load(offset / HASH_SIZE, bytes.subarray(0, useful));
        offset += length;
      }
  }

  async #replay(batch: { firstLsn: Lsn; records: Uint8Array }): Promise<void> {
    const { records: bytes } = batch;
    let nextLsn = batch.firstLsn;
    for (let offset = 0; offset < bytes.length; ) {
      const { record, next } = decodeRecord(bytes, offset);
      const lsn = nextLsn++;
      offset = next;
      if (record.kind === RecordKind.ResyncBegin)
        this.#resync = { required: true, reason: 'VaultGap', beginLsn: lsn };
      else if (record.kind === RecordKind.ResyncEnd) this.#resync = { required: false };
      else if (record.kind === RecordKind.Barrier) {
        for (const { index, sizeBytes } of record.barrier.disks) {
          this.#seen.add(index);
          await this.#resize(index, sizeBytes);
        }
        for (const table of this.#tables.values()) table.settleAll();
      } else {
        const table = await this.#tableFor(record.disk, record.leaf);
        table?.set(record.leaf, record.leafHash, record.blockMask === WHOLE_LEAF);
      }
    }
    for (const table of this.#tables.values()) await table.relieve();
  }

  /** Sizes come with barriers; between two of them a disk that grew shows by its leaves. */
  async #tableFor(index: number, leaf: number): Promise<LeafTable | undefined> {
    if (!this.#disks.has(index)) return undefined;
    const table = this.#tables.get(index);
    if (table !== undefined && leaf < table.leaves) return table;
    // Doubled, so that a disk which shows leaf by leaf is not resized at each; the next barrier says the true size.
    const needed = (leaf + 1) * LEAF_SIZE;
    await this.#resize(
      index,
      Math.min(Math.max(needed, 2 * (table?.sizeBytes ?? 0)), DISK_SIZE_MAX),
    );
    return this.#tables.get(index);
  }

  async #resize(index: number, sizeBytes: number): Promise<void> {
    if (!this.#disks.has(index)) return;
    const table = this.#tables.get(index);
    if (table === undefined)
      this.#tables.set(index, await this.#request.openTable({ index, sizeBytes }));
    else if (table.sizeBytes !== sizeBytes) await table.resize(sizeBytes);
  }

  /** What the assignment says counts; a disk that the journal has not, or with another size, must be read again. */
  async #adoptStatedSizes(): Promise<void> {
    for (const disk of this.#disks.values()) {
      const known = this.#tables.get(disk.index)?.sizeBytes ?? 0;
      const differs = disk.sizeBytes !== 0 && disk.sizeBytes !== known;
      if ((differs || !this.#seen.has(disk.index)) && !this.#resync.required)
        this.#resync = { required: true, reason: 'DiskResized' };
      if (differs) await this.#resize(disk.index, disk.sizeBytes);
      else disk.sizeBytes = known;
    }
  }

  #remember(barrier: BarrierSummary): void {
    this.#barrier = barrier;
    if (barrier.consistency === 'App') this.#appBarrier = barrier;
  }
}
