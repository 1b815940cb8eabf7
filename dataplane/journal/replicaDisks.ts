import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import type { DiskSpec } from '../../vault/documents/diskSpec.ts';
import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { WHOLE_LEAF } from './batchCheck.ts';
import { LEAF_SIZE } from './record.ts';
import { ReplicaDisk, type ReplicaDiskDeps } from './replicaDisk.ts';
import { ReplicaDamaged } from './replicaErrors.ts';
import type { ReplicaRound } from './replicaRound.ts';

/** The disks of a machine's replica, by index. They appear when the journal first names them. */
export class ReplicaDisks {
  readonly #deps: ReplicaDiskDeps;
  readonly #machineId: string;
  readonly #catalog: readonly DiskSpec[];
  readonly #disks = new Map<number, ReplicaDisk>();

  constructor(deps: ReplicaDiskDeps, options: { machineId: string; catalog: readonly DiskSpec[] }) {
    this.#deps = deps;
    this.#machineId = options.machineId;
    this.#catalog = options.catalog;
  }

  /** Fences the blobs of every disk that state.json lists. May be repeated. */
  async open(): Promise<void> {
    for (const disk of this.#deps.fence.state.disks)
      this.#disks.set(
        disk.index,
        await ReplicaDisk.open(this.#deps, { machineId: this.#machineId, ...disk }),
      );
  }

  get(index: number): ReplicaDisk | undefined {
    return this.#disks.get(index);
  }

  all(): ReplicaDisk[] {
    return [...this.#disks.values()];
  }

  /** As state.json lists them. */
  describe(): ReplicaState['disks'] {
    return this.all().map(({ index, name, sizeBytes }) => ({ index, name, sizeBytes }));
  }

  /** The writes of a round, after making the disks and the room that they need. */
  async prepare(round: ReplicaRound): Promise<(() => Promise<void>)[]> {
    const writes: (() => Promise<void>)[] = [];
    for (const [index, pending] of round.pending) {
      const disk = this.#disks.get(index) ?? (await this.#create(index, 0));
      this.#checkEnd(disk, pending.dataEnd, round);
      await disk.makeRoom(pending.dataEnd);
      writes.push(...disk.writes(pending));
    }
    return writes;
  }

  /** Gives disks the sizes that a barrier says. */
  async resize(sizes: readonly { index: number; sizeBytes: number }[]): Promise<void> {
    for (const { index, sizeBytes } of sizes) {
      const disk = this.#disks.get(index) ?? (await this.#create(index, sizeBytes));
      await disk.setSize(sizeBytes);
    }
  }

  /** The names of the disks whose leaf hashes do not give the root that the barrier carries. */
  async mismatches(told: readonly { index: number; root: string }[]): Promise<string[]> {
    const wrong: string[] = [];
    for (const { index, root } of told) {
      const disk = this.#disks.get(index);
      if (disk === undefined || (await disk.root()) !== root) wrong.push(disk?.name ?? `${index}`);
    }
    return wrong;
  }

  /** Of these leaves, those that the round's writes leave as they are, in whole or in part. */
  stillDamaged(damaged: readonly DamagedLeaf[], round: ReplicaRound): DamagedLeaf[] {
    return damaged.filter(({ disk: index, leaf }) => {
      const blocks = this.#disks.get(index)?.blocksOf(leaf) ?? WHOLE_LEAF;
      return blocks !== 0 && round.pending.get(index)?.holds(leaf, blocks) !== true;
    });
  }

  async #create(index: number, barrierSize: number): Promise<ReplicaDisk> {
    const disk = await ReplicaDisk.create(this.#deps, {
      machineId: this.#machineId,
      index,
      name: this.#blobName(index),
      sizeBytes: barrierSize || (this.#spec(index)?.sizeBytes ?? 0),
    });
    this.#disks.set(index, disk);
    return disk;
  }

  /**
   * The name that a new disk's blobs get: the catalog's, unless a disk that was taken off the list has it. A disk that the catalog does
   * not list (any more) is kept all the same: barriers decide what belongs to a point.
   */
  #blobName(index: number): string {
    const name = this.#spec(index)?.name;
    const taken = new Set(this.all().map((disk) => disk.name));
    const candidates = [name, `${(name ?? 'disk').slice(0, 48)}-index-${index}`];
    const free = candidates.find((candidate) => candidate !== undefined && !taken.has(candidate));
    if (free !== undefined) return free;
    throw new ReplicaDamaged(this.#machineId, `no name is left for disk ${index}.`);
  }

  /** A block past the disk's end is damage, unless the disk may have grown and the barrier that says so is still to come. */
  #checkEnd(disk: ReplicaDisk, end: number, round: ReplicaRound): void {
    if (disk.sizeBytes === 0 || round.sawResync) return;
    const size = Math.max(disk.sizeBytes, this.#spec(disk.index)?.sizeBytes ?? 0);
    if (end <= Math.ceil(size / LEAF_SIZE) * LEAF_SIZE) return;
    throw new ReplicaDamaged(
      this.#machineId,
      `the journal writes up to byte ${end} of disk ${disk.name}, which has ${size} bytes. Resync the machine; if it happens again, report it.`,
    );
  }

  #spec(index: number): DiskSpec | undefined {
    return this.#catalog.find((disk) => disk.index === index);
  }
}
