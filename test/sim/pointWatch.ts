/** Every recovery point at the moment it is offered, and as long as it is (invariant 5). */
import { RootBuilder } from '../../dataplane/journal/merkle.ts';
import type { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { compareImages } from './images.ts';
import type { Machine } from './machine.ts';
import type { Candidate } from './oracle.ts';
import { type Image, LEAF } from './sourceDisk.ts';

/** Of a fixed VHD, behind the disk's bytes. */
const FOOTER = 512;
const zeros = new Uint8Array(LEAF);

interface PointJson {
  machineId: string;
  lsn: string;
  timeMs: number;
  consistency: 'Crash' | 'App';
  disks: {
    index: number;
    name: string;
    sizeBytes: number;
    replica: { key: string; snapshot: string };
    leaves: { key: string; snapshot: string };
    root: string;
  }[];
}

export interface Offered {
  key: string;
  point: PointJson;
  lsn: bigint;
  /** When the disks were frozen, virtual. */
  frozenMs: number;
  images: readonly Image[];
}

export interface PointWatchDeps {
  breach: (invariant: string, detail: string) => void;
  pages: () => MemoryPageBlobStore;
  machine: (machineId: string) => Machine | undefined;
  candidates: (machineId: string, lsn: bigint) => readonly Candidate[];
  fail: (error: unknown) => void;
}

export class PointWatch {
  readonly #deps: PointWatchDeps;
  /** By key of the document. */
  readonly #offered = new Map<string, Offered>();
  /** Every point that ever was, by key. */
  readonly #made = new Map<string, Offered>();
  readonly #pins = new Set<string>();
  /** Keys of the documents that are there now. */
  readonly #documents = new Set<string>();
  readonly #retired = new Set<string>();
  /** Pinned when they were retired: whoever did it must see that and take it back. */
  readonly #inUse = new Set<string>();
  /** By failover: the point whose disks it is copying, as its ledger says. */
  readonly #copied = new Map<string, string>();
  /** Stored chunk → the leaf whose first bytes it holds. */
  readonly #equal = new WeakMap<Uint8Array, { leaf: Uint8Array | undefined; length: number }>();

  constructor(deps: PointWatchDeps) {
    this.#deps = deps;
  }

  newest(machineId: string): Offered | undefined {
    let newest: Offered | undefined;
    for (const offered of this.#offered.values())
      if (offered.point.machineId === machineId && offered.lsn > (newest?.lsn ?? -1n))
        newest = offered;
    return newest;
  }

  at(machineId: string, lsn: bigint): Offered | undefined {
    for (const made of this.#made.values())
      if (made.point.machineId === machineId && made.lsn === lsn) return made;
    return undefined;
  }

  lsns(machineId: string): bigint[] {
    return [...this.#made.values()]
      .filter(({ point }) => point.machineId === machineId)
      .map(({ lsn }) => lsn);
  }

  /** Undefined for a pin or a mark, and for a point that is put back. */
  put(key: string, body: Uint8Array): { machineId: string; lsn: bigint } | undefined {
    const document = documentOf(key);
    if (key.endsWith('.pin')) this.#pins.add(document);
    if (key.endsWith('.retired')) this.#retire(document);
    if (key !== document) return undefined;
    this.#documents.add(key);
    const before = this.#made.get(key);
    if (before !== undefined) {
      if (!this.#retired.has(key)) this.#offered.set(key, before);
      return undefined;
    }
    const point = JSON.parse(new TextDecoder().decode(body)) as PointJson;
    this.#check(key, point).catch(this.#deps.fail);
    return { machineId: point.machineId, lsn: BigInt(point.lsn) };
  }

  removed(key: string): void {
    const document = documentOf(key);
    const made = this.#made.get(document);
    if (key.endsWith('.pin')) {
      this.#pins.delete(document);
      this.#inUse.delete(document);
    } else if (key.endsWith('.retired')) {
      this.#retired.delete(document);
      this.#inUse.delete(document);
      if (made !== undefined && this.#documents.has(document)) this.#offered.set(document, made);
    } else {
      this.#documents.delete(key);
      if (this.#offered.delete(key))
        this.#deps.breach('5', `a point that is offered is removed: ${key}`);
      if (this.#isInUse(key)) this.#deps.breach('5', `a point in use is removed: ${key}`);
    }
  }

  /** What a failover copies now; undefined once it has no need of a point any more. */
  copies(failover: string, key: string | undefined): void {
    if (key === undefined) this.#copied.delete(failover);
    else this.#copied.set(failover, key);
  }

  #isInUse(key: string): boolean {
    return this.#inUse.has(key) || [...this.#copied.values()].includes(key);
  }

  #retire(key: string): void {
    this.#retired.add(key);
    if (this.#pins.has(key)) this.#inUse.add(key);
    const offered = this.#offered.get(key);
    if (offered === undefined) return;
    if (this.newest(offered.point.machineId) === offered)
      this.#deps.breach('5', `the newest point is retired: ${key}`);
    // It may be taken back: a recovery pinned it at the same moment.
    this.#offered.delete(key);
    const { machineId, consistency } = offered.point;
    const another = [...this.#offered.values()].some(
      ({ point }) => point.machineId === machineId && point.consistency === 'App',
    );
    if (consistency === 'App' && !another)
      this.#deps.breach('5', `the last application-consistent point is retired: ${key}`);
  }

  snapshotRemoved(blob: string, snapshot: string): void {
    for (const [key, { point }] of this.#made) {
      if (!this.#offered.has(key) && !this.#isInUse(key)) continue;
      const uses = point.disks.some(({ replica, leaves }) =>
        [replica, leaves].some((one) => one.key === blob && one.snapshot === snapshot),
      );
      if (uses) this.#deps.breach('5', `a snapshot of ${blob} is removed that ${key} needs`);
    }
  }

  /** What is offered at the end can still be had. */
  async checkKept(): Promise<void> {
    for (const { key, point, images } of this.#offered.values()) {
      const differs = await this.#difference(point, images);
      if (differs !== undefined) this.#deps.breach('5', `${key}: ${differs}, at the end`);
    }
  }

  async #check(key: string, point: PointJson): Promise<void> {
    const { breach, candidates, machine } = this.#deps;
    const lsn = BigInt(point.lsn);
    const disks = machine(point.machineId)?.disks ?? [];
    if (disks.length !== point.disks.length)
      breach('5', `${key} has ${point.disks.length} disks, the machine ${disks.length}`);
    const all = candidates(point.machineId, lsn);
    // An LSN may have been given to barriers of several sessions; the time tells which of them was journaled.
    const timely = all.filter(({ timeMs }) => timeMs === point.timeMs);
    let problem = 'no agent sent a barrier with its LSN';
    for (const { frozen } of timely.length > 0 ? timely : all)
      for (const images of frozen.images) {
        const differs = await this.#difference(point, images);
        if (differs === undefined) {
          const offered = { key, point, lsn, frozenMs: frozen.startedMs, images };
          this.#made.set(key, offered);
          if (this.#documents.has(key) && !this.#retired.has(key)) this.#offered.set(key, offered);
          this.#checkRoots(key, point, images);
          return;
        }
        problem = differs;
      }
    breach('5', `${key}: ${problem}`);
  }

  /** Chunks of snapshots and leaves of images never change: what was found equal once is. */
  #leafDifference(
    chunk: Uint8Array,
    leaf: Uint8Array | undefined,
    length: number,
  ): number | undefined {
    const known = this.#equal.get(chunk);
    if (known?.length === length && known.leaf === leaf) return undefined;
    const at = compareImages(chunk.subarray(0, length), [leaf]);
    if (at === undefined) this.#equal.set(chunk, { leaf, length });
    return at;
  }

  /** What a recovery compares with must be right, too. */
  #checkRoots(key: string, point: PointJson, images: readonly Image[]): void {
    for (const { index, name, sizeBytes, root } of point.disks) {
      const builder = new RootBuilder({ sizeBytes });
      for (const [leaf, bytes] of (images[index] ?? []).entries())
        if (bytes !== undefined)
          builder.add(leaf * LEAF, bytes.subarray(0, Math.min(LEAF, sizeBytes - leaf * LEAF)));
      if (builder.finish() !== root)
        this.#deps.breach('5', `${key}: the root of disk ${name} is not that of its bytes`);
    }
  }

  async #difference(point: PointJson, images: readonly Image[]): Promise<string | undefined> {
    const pages = this.#deps.pages();
    for (const { index, name, replica, leaves: table } of point.disks) {
      const { snapshot } = replica;
      const info = await pages.info(replica.key, { snapshot });
      const hashes = await pages.info(table.key, { snapshot: table.snapshot });
      if (info === undefined || hashes === undefined) return `a snapshot of disk ${name} is gone`;
      const image = images[index] ?? [];
      const leaves = Math.max(image.length, Math.ceil((info.size - FOOTER) / LEAF));
      for (let leaf = 0; leaf < leaves; leaf += 1) {
        const offset = leaf * LEAF;
        const length = Math.max(0, Math.min(LEAF, info.size - FOOTER - offset));
        const chunk = pages.snapshotChunk(replica.key, snapshot, leaf);
        const at = this.#leafDifference(chunk ?? zeros, image[leaf], length);
        if (at !== undefined) return `disk ${name} differs at byte ${offset + at}`;
      }
    }
    return undefined;
  }
}

/** The document that a pin or a mark is about. */
function documentOf(key: string): string {
  return key.replace(/\.(pin|retired)$/, '.json');
}
