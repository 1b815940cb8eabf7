/**
 * What a barrier reads while everything is frozen, into memory that was set aside before: nothing is allocated, hashed or sent then.
 */
import type { Clock } from '../../platform/ports.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { BarrierVoidError } from './barrierErrors.ts';
import { BatchSender } from './batch.ts';
import type { CapturedDisk } from './disk.ts';
import { dirtyRuns, type Run } from './pass.ts';
import type { RecordSink } from './sink.ts';

export const FROZEN_BYTES_MAX = 256 << 20;
const PARALLEL_READS = 4;

interface ReadLeaf {
  disk: CapturedDisk;
  leaf: number;
  mask: number;
  bytes: Uint8Array;
}

export class FrozenRead {
  readonly #memory: Uint8Array;
  #filled = 0;
  /** By disk index and leaf: a leaf that is read again replaces what was read before. */
  readonly #leaves = new Map<string, ReadLeaf>();

  /** Set aside before the freeze. */
  constructor(disks: readonly CapturedDisk[], options: { bytes?: number } = {}) {
    const size = options.bytes ?? FROZEN_BYTES_MAX;
    this.#memory = disks[0]?.device.alignedBuffer(size) ?? new Uint8Array(0);
  }

  /** Reads all that is dirty and takes it off the dirty sets. Throws BarrierVoidError when it does not fit. */
  async take(disks: readonly CapturedDisk[]): Promise<void> {
    const work: { disk: CapturedDisk; run: Run; into: Uint8Array }[] = [];
    for (const disk of disks)
      for (const run of dirtyRuns(disk)) {
        const into = this.#reserve(run.masks.length * LEAF_SIZE);
        for (const [index, mask] of run.masks.entries()) {
          const leaf = run.firstLeaf + index;
          disk.dirt.dirty.remove(leaf, mask);
          const key = `${disk.index}:${leaf}`;
          const before = this.#leaves.get(key)?.mask ?? 0;
          const bytes = into.subarray(index * LEAF_SIZE, (index + 1) * LEAF_SIZE);
          this.#leaves.set(key, { disk, leaf, mask: mask | before, bytes });
        }
        work.push({ disk, run, into });
      }
    const readers = Array.from({ length: PARALLEL_READS }, async () => {
      for (let next = work.pop(); next !== undefined; next = work.pop())
        await next.disk.readLeaves(next.into, next.run.firstLeaf);
    });
    const results = await Promise.allSettled(readers);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** The barrier is void: everything it read is dirty again. */
  giveBack(): void {
    for (const { disk, leaf, mask } of this.#leaves.values()) disk.dirt.dirty.add(leaf, mask);
    this.#leaves.clear();
  }

  /** Hashes and sends it, after the thaw. */
  async send(sink: RecordSink): Promise<void> {
    const sender = new BatchSender(sink);
    try {
      for (const [key, { disk, leaf, mask, bytes }] of this.#leaves) {
        this.#leaves.delete(key);
        await sender.add(disk, { leaf, mask, bytes });
      }
      await sender.flush();
    } catch (error) {
      await sender.abandon();
      this.giveBack();
      throw error;
    }
  }

  #reserve(size: number): Uint8Array {
    if (this.#filled + size > this.#memory.length)
      throw new BarrierVoidError(
        'BehindTheLink',
        `More than ${this.#memory.length >> 20} MiB were written since the last pass: too much to read while frozen. The barrier is tried again once the link has caught up.`,
      );
    const part = this.#memory.subarray(this.#filled, this.#filled + size);
    this.#filled += size;
    return part;
  }
}

/** How long reading this much would take, by what a disk of this machine did of late. */
export class ReadRate {
  readonly #clock: Clock;
  #bytesPerMs = 100 * 1024;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async measure<T>(bytes: number, read: () => Promise<T>): Promise<T> {
    const started = this.#clock.monotonic();
    const result = await read();
    const took = this.#clock.monotonic() - started;
    if (bytes >= 1 << 20 && took > 0)
      this.#bytesPerMs = this.#bytesPerMs * 0.5 + (bytes / took) * 0.5;
    return result;
  }

  estimateMs(bytes: number): number {
    return bytes / this.#bytesPerMs;
  }
}
