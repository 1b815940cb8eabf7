/**
 * A pass: what is dirty when it begins is read (whole leaves, so that their hashes can go along) and its dirty blocks are sent.
 *
 * A leaf whose hash is the same as before is sent all the same: a hash sent with some of a leaf's blocks may have covered others
 * that were still to come (record.ts), so that an equal hash does not prove that the journal has every block.
 */
import type { Clock } from '../../platform/ports.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { BatchSender } from './batch.ts';
import type { CapturedDisk } from './disk.ts';
import type { RecordSink } from './sink.ts';
import { LARGE_BYTES, type ReadThrottle } from './throttle.ts';

/** Leaves in one read. */
export const RUN_LEAVES = LARGE_BYTES / LEAF_SIZE;
/** Runs read while one is hashed and sent: with one alone, the disk rests whenever that takes a little longer than reading. */
const AHEAD = 2;
const AHEAD_GENTLY = 1;

export interface Run {
  firstLeaf: number;
  /** Blocks to send, one mask a leaf. */
  masks: number[];
}

export interface PassDeps {
  sink: RecordSink;
  clock: Clock;
  /** Leaves out leaves of which all that is dirty was sent since the last barrier. */
  unsentOnly?: boolean;
  /** Sends about so much of each disk, from all over what is dirty. */
  sampleBytes?: number;
  /** Whether the machine's programs come first, asked as it goes on. */
  gently?: () => boolean;
}

/** Sends what is dirty on these disks now. Resolves with the bytes sent. Rejects when the session ends or a disk can't be read. */
export async function runPass(
  disks: readonly CapturedDisk[],
  deps: PassDeps,
): Promise<{ bytesSent: number }> {
  const sender = new BatchSender(deps.sink);
  try {
    for (const disk of disks) await passOverDisk(disk, sender, deps);
    await sender.flush();
  } catch (error) {
    await sender.abandon();
    throw error;
  }
  return { bytesSent: sender.bytesSent };
}

async function passOverDisk(
  disk: CapturedDisk,
  sender: BatchSender,
  { clock, unsentOnly = false, sampleBytes, gently = () => false }: PassDeps,
): Promise<void> {
  const throttle = disk.throttle(clock);
  const buffers = Array.from({ length: 1 + AHEAD }, () => bufferFor(disk));
  const leavesMax = () => (gently() ? throttle.gentleBytes / LEAF_SIZE : RUN_LEAVES);
  const all = () =>
    runsOf(unsentOnly ? disk.dirt.unsentLeaves() : disk.dirt.dirty.leaves(), leavesMax);
  const runs = sampleBytes === undefined ? all() : sampleOf(all, sampleBytes);
  let turn = 0;
  const begin = (): Reading | undefined => {
    const next = runs.next();
    if (next.done === true) return undefined;
    const buffer = buffers[turn++ % buffers.length] ?? bufferFor(disk);
    return new Reading(disk, next.value, buffer, throttle);
  };
  // In order; the first is hashed and sent.
  const readings: Reading[] = [];
  for (;;) {
    const count = 1 + (gently() ? AHEAD_GENTLY : AHEAD);
    while (readings.length < count) {
      const next = begin();
      if (next === undefined) break;
      readings.push(next);
    }
    const current = readings.shift();
    if (current === undefined) return;
    try {
      await current.sendTo(sender);
    } catch (error) {
      for (const reading of readings) await reading.giveUp();
      throw error;
    }
  }
}

class Reading {
  readonly #disk: CapturedDisk;
  readonly #run: Run;
  readonly #bytes: Uint8Array;
  readonly #read: Promise<unknown>;

  constructor(disk: CapturedDisk, run: Run, buffer: Uint8Array, throttle: ReadThrottle) {
    this.#disk = disk;
    this.#run = run;
    this.#bytes = buffer.subarray(0, run.masks.length * LEAF_SIZE);
    const { length } = this.#bytes;
    // Not dirty any more before it is read: a write that comes now makes it dirty again.
    for (const [index, mask] of run.masks.entries()) disk.dirt.take(run.firstLeaf + index, mask);
    this.#read = throttle.time(length, () => disk.readLeaves(this.#bytes, run.firstLeaf));
    this.#read.catch(() => undefined);
  }

  async sendTo(sender: BatchSender): Promise<void> {
    let done = 0;
    try {
      await this.#read;
      for (const mask of this.#run.masks) {
        const bytes = this.#bytes.subarray(done * LEAF_SIZE, (done + 1) * LEAF_SIZE);
        done += 1;
        await sender.add(this.#disk, { leaf: this.#run.firstLeaf + done - 1, mask, bytes });
      }
    } catch (error) {
      this.#restore(done);
      throw error;
    }
  }

  /** The buffer is in use until the read ended, so that is waited for. */
  async giveUp(): Promise<void> {
    await this.#read.catch(() => undefined);
    this.#restore(0);
  }

  #restore(from: number): void {
    for (const [index, mask] of this.#run.masks.entries())
      if (index >= from) this.#disk.dirt.giveBack(this.#run.firstLeaf + index, mask);
  }
}

/** All that is dirty. */
export function dirtyRuns(disk: CapturedDisk): Generator<Run> {
  return runsOf(disk.dirt.dirty.leaves(), () => RUN_LEAVES);
}

/** Neighbouring leaves, up to `leavesMax` together. */
function* runsOf(
  leaves: Iterable<[leaf: number, mask: number]>,
  leavesMax: () => number,
): Generator<Run> {
  let run: Run | undefined;
  for (const [leaf, mask] of leaves) {
    if (
      run !== undefined &&
      leaf === run.firstLeaf + run.masks.length &&
      run.masks.length < leavesMax()
    ) {
      run.masks.push(mask);
      continue;
    }
    if (run !== undefined) yield run;
    run = { firstLeaf: leaf, masks: [mask] };
  }
  if (run !== undefined) yield run;
}

/**
 * Some of them, from all over, of about so many bytes. They are gone over twice, for of a large disk they are too many to keep; what has
 * come meanwhile does not make it more.
 */
export function* sampleOf(runs: () => Iterable<Run>, bytes: number): Generator<Run> {
  let all = 0;
  for (const { masks } of runs()) all += masks.length * LEAF_SIZE;
  const step = Math.max(1, Math.ceil(all / bytes));
  let index = 0;
  let left = bytes;
  for (const run of runs()) {
    if (left <= 0) return;
    if (index++ % step !== 0) continue;
    left -= run.masks.length * LEAF_SIZE;
    yield run;
  }
}

function bufferFor(disk: CapturedDisk): Uint8Array {
  return disk.device.alignedBuffer(RUN_LEAVES * LEAF_SIZE);
}
