/** A machine whose writes are made up: it keeps a model of its disks and writes a real journal of them into a vault. */

import { hashLeaf, isZero, RootBuilder } from '../../dataplane/journal/merkle.ts';
import {
  type Barrier,
  BLOCK_SIZE,
  BLOCKS_PER_LEAF,
  DATA_HEADER_SIZE,
  encodeControlRecord,
  encodeDataHeader,
  LEAF_SIZE,
  RecordKind,
} from '../../dataplane/journal/record.ts';
import {
  NO_DIGEST,
  SEGMENT_CHUNK_SIZE,
  type SegmentHeader,
} from '../../dataplane/journal/segment.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { encodeSegment } from '../../dataplane/journal/segmentWriter.ts';
import { vhdBodySize } from '../../dataplane/journal/vhd.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import type { DiskSpec } from '../../vault/documents/diskSpec.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary } from '../../vault/documents/machineStatus.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { SeededRandom } from '../fakes/seededRandom.ts';

/** What the disks were at a barrier. */
export interface SampleBarrier {
  lsn: Lsn;
  barrier: Barrier;
  /** Body of each disk by index, padded to whole MiB. */
  bodies: ReadonlyMap<number, Uint8Array>;
}

export class SampleMachine {
  readonly machineId: string;
  readonly dataKey: Uint8Array;
  readonly random: SeededRandom;
  readonly disks: DiskSpec[];
  readonly barriers: SampleBarrier[] = [];
  readonly #bodies = new Map<number, Uint8Array>();
  readonly #objects: ObjectStore;
  #pending: Uint8Array[] = [];
  #pendingBarriers: BarrierSummary[] = [];
  #count = 0;
  #lsn: Lsn = 0n;
  #seq = -1;
  #digest = NO_DIGEST;
  #timeMs: number;
  writerEpoch = 1;

  constructor(options: {
    objects: ObjectStore;
    seed: number;
    sizes: readonly number[];
    /** A minute before the first barrier. */
    startMs?: number;
  }) {
    this.#objects = options.objects;
    this.#timeMs = options.startMs ?? Date.UTC(2026, 0, 1);
    this.random = new SeededRandom(options.seed);
    this.machineId = Buffer.from(this.random.bytes(16)).toString('hex');
    this.dataKey = this.random.bytes(32);
    this.disks = options.sizes.map((sizeBytes, index) => ({
      index,
      name: `disk-${index}`,
      device: `/dev/sample${index}`,
      sizeBytes,
    }));
    for (const { index, sizeBytes } of this.disks)
      this.#bodies.set(index, new Uint8Array(vhdBodySize(sizeBytes)));
  }

  /** LSN of the last record. */
  get lsn(): Lsn {
    return this.#lsn;
  }

  /** Of its newest segment; −1 before the first. */
  get seq(): number {
    return this.#seq;
  }

  /** Writes some blocks of one leaf, a part of them zeros; like the agent, with the hash of the whole leaf. */
  writeRandom(options: { disk?: number; whole?: boolean } = {}): void {
    const index = options.disk ?? this.random.below(this.disks.length);
    const size = this.disks[index]?.sizeBytes ?? 0;
    const leaf = this.random.below(Math.ceil(size / LEAF_SIZE));
    let blockMask = options.whole === true ? 0xffff : this.random.below(0xffff) + 1;
    const blocksInside = Math.ceil((size - leaf * LEAF_SIZE) / BLOCK_SIZE);
    if (blocksInside < BLOCKS_PER_LEAF) blockMask &= (1 << blocksInside) - 1;
    if (blockMask === 0) blockMask = 1;
    const zeroMask = this.random.chance(0.3) ? blockMask & this.random.below(0x10000) : 0;
    this.write({ index, leaf, blockMask, zeroMask });
  }

  write(at: { index: number; leaf: number; blockMask: number; zeroMask: number }): void {
    const body = this.#bodies.get(at.index) as Uint8Array;
    const size = this.disks[at.index]?.sizeBytes ?? 0;
    const blocks: Uint8Array[] = [];
    for (let block = 0; block < BLOCKS_PER_LEAF; block += 1) {
      if ((at.blockMask & (1 << block)) === 0) continue;
      const offset = at.leaf * LEAF_SIZE + block * BLOCK_SIZE;
      const target = body.subarray(offset, offset + BLOCK_SIZE);
      if ((at.zeroMask & (1 << block)) !== 0) target.fill(0);
      else {
        target.fill(0);
        target.set(this.random.bytes(Math.min(BLOCK_SIZE, size - offset)));
        blocks.push(target.slice());
      }
    }
    const leafHash = hashLeaf(body.subarray(at.leaf * LEAF_SIZE, (at.leaf + 1) * LEAF_SIZE));
    this.data({ ...at, disk: at.index, leafHash, blocks });
  }

  /** A Data record exactly as given; the model does not follow. */
  data(record: {
    disk: number;
    leaf: number;
    blockMask: number;
    zeroMask: number;
    leafHash: Uint8Array;
    blocks: readonly Uint8Array[];
  }): void {
    const bytes = new Uint8Array(DATA_HEADER_SIZE + record.blocks.length * BLOCK_SIZE);
    encodeDataHeader(bytes, 0, record);
    for (const [place, block] of record.blocks.entries())
      bytes.set(block, DATA_HEADER_SIZE + place * BLOCK_SIZE);
    this.#push(bytes);
  }

  resyncBegin(reason = 'Initial'): void {
    this.#push(encodeControlRecord({ kind: RecordKind.ResyncBegin, reason }));
  }

  resyncEnd(): void {
    this.#push(encodeControlRecord({ kind: RecordKind.ResyncEnd }));
  }

  /** The disk has this size from now on; the catalog (`disks`) says so too. */
  resizeDisk(index: number, sizeBytes: number): void {
    const spec = this.disks[index];
    if (spec === undefined) throw new RangeError(`no disk ${index}`);
    spec.sizeBytes = sizeBytes;
    const body = new Uint8Array(vhdBodySize(sizeBytes));
    body.set((this.#bodies.get(index) as Uint8Array).subarray(0, sizeBytes));
    this.#bodies.set(index, body);
  }

  barrier(consistency: Barrier['consistency'] = 'Crash'): SampleBarrier {
    this.#timeMs += 60_000;
    const barrier: Barrier = {
      timeMs: this.#timeMs,
      consistency,
      disks: this.disks.map(({ index, sizeBytes }) => ({
        index,
        sizeBytes,
        root: rootOf(this.#bodies.get(index) as Uint8Array, sizeBytes),
      })),
      freezeMs: 1,
    };
    this.#push(encodeControlRecord({ kind: RecordKind.Barrier, barrier }));
    this.#pendingBarriers.push({ lsn: this.#lsn, timeMs: this.#timeMs, consistency });
    const bodies = new Map([...this.#bodies].map(([index, body]) => [index, body.slice()]));
    const made = { lsn: this.#lsn, barrier, bodies };
    this.barriers.push(made);
    return made;
  }

  /** Puts what was written since the last cut as one segment. */
  async cut(): Promise<void> {
    if (this.#count === 0) return;
    if (this.#seq < 0) await this.#put({ kind: 'Claim', firstLsn: 1n });
    await this.#put({ kind: 'Data', firstLsn: this.#lsn - BigInt(this.#count) + 1n });
    this.#pending = [];
    this.#pendingBarriers = [];
    this.#count = 0;
  }

  /** Each round is a segment that ends with a barrier. Every so many records one is a whole leaf. */
  async writeRounds(
    rounds: number,
    options: { records?: number; wholeEvery?: number } = {},
  ): Promise<void> {
    const { records = 40, wholeEvery } = options;
    for (let round = 0; round < rounds; round += 1) {
      for (let record = 0; record < records; record += 1)
        this.writeRandom({ whole: wholeEvery !== undefined && record % wholeEvery === 0 });
      this.barrier();
      await this.cut();
    }
  }

  async seal(failover: string): Promise<void> {
    await this.cut();
    await this.#put({ kind: 'Seal', firstLsn: this.#lsn + 1n, failover });
  }

  async claim(): Promise<void> {
    await this.cut();
    this.writerEpoch += 1;
    await this.#put({ kind: 'Claim', firstLsn: this.#lsn + 1n });
  }

  async #put(
    what: Pick<SegmentHeader, 'kind' | 'firstLsn'> & { failover?: string },
  ): Promise<void> {
    const isData = what.kind === 'Data';
    const records = Buffer.concat(isData ? this.#pending : []);
    const header: SegmentHeader = {
      kind: what.kind,
      side: 'Source',
      machineId: this.machineId,
      seq: this.#seq + 1,
      writerEpoch: this.writerEpoch,
      firstLsn: what.firstLsn,
      lastLsn: isData ? this.#lsn : what.firstLsn - 1n,
      previousDigest: this.#digest,
      salt: this.random.bytes(32),
      plainLength: records.length,
      chunkSize: SEGMENT_CHUNK_SIZE,
      sealedAtMs: this.#timeMs,
      barriers: isData ? this.#pendingBarriers : [],
      failover: what.failover,
    };
    const segment = await encodeSegment({
      header,
      dataKey: this.dataKey,
      codec: inlineCodec,
      records: new Uint8Array(records),
    });
    await this.#objects.putIfAbsent(vaultLayout.segment(this.machineId, header.seq), segment.bytes);
    this.#seq += 1;
    this.#digest = segment.digest;
  }

  #push(record: Uint8Array): void {
    this.#pending.push(record);
    this.#count += 1;
    this.#lsn += 1n;
  }
}

/** The root of a disk's bytes. */
export function rootOf(body: Uint8Array, sizeBytes: number): string {
  const builder = new RootBuilder({ sizeBytes });
  for (let offset = 0; offset < body.length; offset += LEAF_SIZE) {
    const leaf = body.subarray(offset, offset + LEAF_SIZE);
    if (!isZero(leaf)) builder.add(offset, leaf);
  }
  return builder.finish();
}
