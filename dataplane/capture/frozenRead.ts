/**
 * What a barrier reads while everything is frozen, into memory that was set aside before: nothing is allocated, hashed or sent then.
 */
import type { Clock } from '../../platform/ports.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { BarrierVoidError } from './barrierErrors.ts';
import { BatchSender, isZero } from './batch.ts';
import type { CapturedDisk } from './disk.ts';
import { dirtyRuns, RUN_LEAVES, type Run } from './pass.ts';
import type { RecordSink } from './sink.ts';

export const FROZEN_BYTES_MAX = 256 << 20;
const PARALLEL_READS = 4;

interface ReadLeaf {
  disk: CapturedDisk;
  leaf: number;
  mask: number;
  /** A part of the memory set aside; undefined: the leaf is zero, as most of what was discarded is. */
  bytes: Uint8Array | undefined;
}

export class FrozenRead {
  readonly #memory: Uint8Array;
  readonly #scratch: Uint8Array[];
  #filled = 0;
  /** By disk index and leaf: a leaf that is read again replaces what was read before. */
  readonly #leaves = new Map<string, ReadLeaf>();

  /** Set aside before the freeze. */
  constructor(disks: readonly CapturedDisk[], options: { bytes?: number } = {}) {
    const allocate = (size: number) => disks[0]?.device.alignedBuffer(size) ?? new Uint8Array(0);
    this.#memory = allocate(options.bytes ?? FROZEN_BYTES_MAX);
    this.#scratch = Array.from({ length: PARALLEL_READS }, () => allocate(RUN_LEAVES * LEAF_SIZE));
  }

  /** Reads all that is dirty and takes it off the dirty sets. Throws BarrierVoidError when it does not fit. */
  async take(disks: readonly CapturedDisk[]): Promise<{ bytes: number }> {
    const work: { disk: CapturedDisk; run: Run }[] = [];
    let leaves = 0;
    for (const disk of disks)
      for (const run of dirtyRuns(disk)) {
        leaves += run.masks.length;
        work.push({ disk, run });
        for (const [index, mask] of run.masks.entries())
          this.#expect(disk, run.firstLeaf + index, mask);
      }
    const readers = this.#scratch.map(async (scratch) => {
      for (let next = work.pop(); next !== undefined; next = work.pop())
        await this.#read(next.disk, next.run, scratch);
    });
    const results = await Promise.allSettled(readers);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return { bytes: leaves * LEAF_SIZE };
  }

  /** The barrier is void: everything it read is dirty again. */
  giveBack(): void {
    for (const { disk, leaf, mask } of this.#leaves.values()) disk.dirt.giveBack(leaf, mask);
    this.#leaves.clear();
  }

  /** Hashes and sends it, after the thaw. */
  async send(sink: RecordSink): Promise<void> {
    const sender = new BatchSender(sink);
    try {
      for (const [key, { disk, leaf, mask, bytes }] of this.#leaves) {
        this.#leaves.delete(key);
        await sender.add(disk, { leaf, mask, bytes: bytes ?? zeroLeaf });
      }
      await sender.flush();
    } catch (error) {
      await sender.abandon();
      this.giveBack();
      throw error;
    }
  }

  /** Not dirty any more before it is read, but ours to give back. */
  #expect(disk: CapturedDisk, leaf: number, mask: number): void {
    disk.dirt.take(leaf, mask);
    const key = `${disk.index}:${leaf}`;
    const before = this.#leaves.get(key);
    if (before === undefined) this.#leaves.set(key, { disk, leaf, mask, bytes: undefined });
    else before.mask |= mask;
  }

  async #read(disk: CapturedDisk, run: Run, scratch: Uint8Array): Promise<void> {
    const bytes = scratch.subarray(0, run.masks.length * LEAF_SIZE);
    await disk.readLeaves(bytes, run.firstLeaf);
    for (let index = 0; index < run.masks.length; index += 1) {
      const entry = this.#leaves.get(`${disk.index}:${run.firstLeaf + index}`);
      const content = bytes.subarray(index * LEAF_SIZE, (index + 1) * LEAF_SIZE);
      if (entry === undefined || (entry.bytes === undefined && isZero(content))) continue;
      entry.bytes ??= this.#reserve();
      entry.bytes.set(content);
    }
  }

  #reserve(): Uint8Array {
    if (this.#filled + LEAF_SIZE > this.#memory.length)
      throw new BarrierVoidError(
        'BehindTheLink',
        `More than ${this.#memory.length >> 20} MiB were written since the last pass: too much to read while frozen. The barrier is tried again once the link has caught up.`,
      );
    this.#filled += LEAF_SIZE;
    return this.#memory.subarray(this.#filled - LEAF_SIZE, this.#filled);
  }
}

const zeroLeaf = new Uint8Array(LEAF_SIZE);

/** How long reading this much while frozen would take, by how it went of late. */
export class ReadRate {
  readonly #clock: Clock;
  #bytesPerMs = 100 * 1024;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async measure(read: () => Promise<{ bytes: number }>): Promise<void> {
    const started = this.#clock.monotonic();
    const { bytes } = await read();
    const took = this.#clock.monotonic() - started;
    if (bytes >= 1 << 20 && took > 0)
      this.#bytesPerMs = this.#bytesPerMs * 0.5 + (bytes / took) * 0.5;
  }

  estimateMs(bytes: number): number {
    return bytes / this.#bytesPerMs;
  }
}
