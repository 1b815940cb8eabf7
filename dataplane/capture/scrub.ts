/**
 * The scrub: proof that nothing was written that the tracer did not see, nor the account of sectors. Clean leaves (all that is known
 * of them is in the vault, behind a barrier) are read again, slowly, and the process server is asked whether it knows the same hash.
 *
 * One group of leaves at a time, and nothing is sent meanwhile, so the process server's hash of a clean leaf stands still and is
 * settled. A clean leaf that differs is still no proof: a read sees a write before the tracer does. So it counts only when
 *
 *   · the leaf was clean before it was read, and is so once the trace was drained afterwards, and
 *   · between read and drain no write was in flight for a moment: whatever the read can have seen was completed, hence traced, and
 *   · all of this was so twice, with RECHECK_MS between.
 *
 * A disk that never comes to rest is not judged: the scrub waits there, and says so.
 *
 * What the scrub can't find: a lost write to a leaf that is written again, seen, before the scrub comes by. The hash that travels
 * then covers the lost write; recovery's comparison with the roots finds it.
 */
import { BlockDeviceError } from '../../platform/deviceErrors.ts';
import type { Clock, Logger } from '../../platform/ports.ts';
import { HASH_SIZE, LEAF_SIZE } from '../journal/record.ts';
import { AnswerCode } from '../wire/messages.ts';
import { TrackingLostError } from './accounting.ts';
import { leafHash } from './batch.ts';
import type { CapturedDisk } from './disk.ts';
import { RUN_LEAVES } from './pass.ts';
import type { RecordSink } from './sink.ts';
import type { Tracking } from './tracking.ts';

/** Read at once, and all that is held in memory. */
export const SCRUB_GROUP_BYTES = RUN_LEAVES * LEAF_SIZE;
/** After so long what differs is looked at again. */
export const RECHECK_MS = 1_000;
const REST_LOOK_MS = 10;
/** From a request's being completed to its being traced, with time to spare. */
const TRACED_WITHIN_MS = 25;
/** Nobody is told of a leaf that differs before a write that was in flight must have completed. */
const TELL_AFTER_MS = 600_000;

/** A pass over all disks: where it is, and what it found. */
export interface ScrubProgress {
  startedMs: number;
  /** The next leaf, on the disk of this index. */
  disk: number;
  leaf: number;
  leavesCompared: number;
  /** Not clean when the scrub came by, or not readable. */
  leavesPassedOver: number;
}

export interface ScrubStep {
  /** Again: something differs and must be looked at once more. Interrupted: nothing was learnt. */
  outcome: 'Done' | 'Again' | 'Interrupted';
  /** The disk was slow: leave it alone for so long. */
  pauseMs: number;
  /** The pass that this step ended. */
  ended?: ScrubProgress;
}

export interface ScrubStepDeps {
  sink: RecordSink;
  /** Aborts when something more urgent is due; the step then ends as soon as it holds no read. */
  signal: AbortSignal;
}

interface Group {
  disk: CapturedDisk;
  firstLeaf: number;
  leafCount: number;
}

/** A leaf was written past all tracking; what was recorded of it since is as it was before. */
export class WrittenUnseenError extends TrackingLostError {
  constructor(disk: CapturedDisk, leaf: number) {
    const start = leaf * LEAF_SIZE;
    const end = Math.min(start + LEAF_SIZE, disk.identity.sizeBytes);
    const place = `leaf ${leaf} of ${disk.device.path} (disk ${disk.index}, bytes ${start} to ${end - 1})`;
    super(`${place} was written`);
    this.message = `The scrub found that ${place} is not what was last sent of it, although nothing was seen to write there. Recovery points made since that write hold what was there before. A resync compares every block again; until it ends no new one is made. Find out what writes to this disk past this machine's kernel (another host, the hypervisor), or whether the disk gives back what it was given.`;
  }
}

export class Scrub {
  readonly #tracking: Tracking;
  readonly #disks: readonly CapturedDisk[];
  readonly #clock: Clock;
  readonly #log: Logger;
  #progress: ScrubProgress;
  #buffer: Uint8Array | undefined;
  /** Leaves of the group at hand that differed when it was looked at last. */
  #suspects: ReadonlySet<number> = new Set();
  #suspectSinceMs: number | undefined;
  /** A question that was given up; another is not asked before its answer came. */
  #isAnswerOutstanding = false;

  /** `progress`: to go on from; by default the pass begins. */
  constructor(options: {
    tracking: Tracking;
    clock: Clock;
    log: Logger;
    progress?: ScrubProgress;
  }) {
    this.#tracking = options.tracking;
    this.#disks = options.tracking.disks.filter(({ leafCount }) => leafCount > 0);
    this.#clock = options.clock;
    this.#log = options.log;
    this.#progress = options.progress ?? this.#beginning();
  }

  get progress(): Readonly<ScrubProgress> {
    return this.#progress;
  }

  /** Looks at the next group. Throws WrittenUnseenError, TrackingLostError; rejects when the session ends or a disk vanished. */
  async step(deps: ScrubStepDeps): Promise<ScrubStep> {
    if (this.#isAnswerOutstanding || deps.signal.aborted)
      return { outcome: 'Interrupted', pauseMs: 0 };
    const group = this.#group();
    if (group === undefined) return { outcome: 'Done', pauseMs: 0 };
    const clean = leavesOf(group).filter((leaf) => group.disk.dirt.isClean(leaf));
    if (clean.length === 0) return { outcome: 'Done', pauseMs: 0, ...this.#pass(group, 0) };
    const read = await this.#read(group);
    if (read === undefined) return { outcome: 'Done', pauseMs: 0, ...this.#pass(group, 0) };
    const { bytes, pauseMs } = read;
    const codes = await this.#ask(group, bytes, deps);
    if (codes === undefined) return { outcome: 'Interrupted', pauseMs };
    const differing = clean.filter((leaf) => codes[leaf - group.firstLeaf] === AnswerCode.Differs);
    const suspects = await this.#judge(group, differing, deps.signal);
    if (suspects > 0) return { outcome: 'Again', pauseMs };
    return { outcome: 'Done', pauseMs, ...this.#pass(group, clean.length - differing.length) };
  }

  #group(): Group | undefined {
    const { disk: index, leaf } = this.#progress;
    let disk = this.#disks.find((one) => one.index === index && leaf < one.leafCount);
    if (disk === undefined) {
      // The disks are others than those that a former agent was at.
      this.#progress = this.#beginning();
      [disk] = this.#disks;
    }
    if (disk === undefined) return undefined;
    const firstLeaf = this.#progress.leaf;
    return { disk, firstLeaf, leafCount: Math.min(RUN_LEAVES, disk.leafCount - firstLeaf) };
  }

  /** undefined: it can't be read, which is no matter of ours as long as nobody writes there. */
  async #read(group: Group): Promise<{ bytes: Uint8Array; pauseMs: number } | undefined> {
    const { disk, firstLeaf, leafCount } = group;
    this.#buffer ??= disk.device.alignedBuffer(SCRUB_GROUP_BYTES);
    const bytes = this.#buffer.subarray(0, leafCount * LEAF_SIZE);
    try {
      const throttle = disk.throttle(this.#clock);
      const { pauseMs } = await throttle.measure(bytes.length, () =>
        disk.readLeaves(bytes, firstLeaf),
      );
      return { bytes, pauseMs };
    } catch (error) {
      if (!(error instanceof BlockDeviceError && error.code === 'DiskReadFailed')) throw error;
      this.#log.warn({ code: error.code, error }, 'The scrub passes over what it can not read');
      return undefined;
    }
  }

  /** undefined: something else was due before the answer came. */
  async #ask(
    { disk, firstLeaf, leafCount }: Group,
    bytes: Uint8Array,
    { sink, signal }: ScrubStepDeps,
  ): Promise<Uint8Array | undefined> {
    const hashes = new Uint8Array(leafCount * HASH_SIZE);
    for (let index = 0; index < leafCount; index += 1)
      hashes.set(
        leafHash(bytes.subarray(index * LEAF_SIZE, (index + 1) * LEAF_SIZE)),
        index * HASH_SIZE,
      );
    if (signal.aborted) return undefined;
    this.#isAnswerOutstanding = true;
    const answer = sink.ask({ disk: disk.index, firstLeaf, hashes }).finally(() => {
      this.#isAnswerOutstanding = false;
    });
    return await unlessAborted(answer, signal);
  }

  /** How many of these leaves are suspect still. Throws WrittenUnseenError when it is certain of one. */
  async #judge(group: Group, differing: readonly number[], signal: AbortSignal): Promise<number> {
    const before = this.#suspects;
    this.#suspects = new Set();
    if (differing.length === 0) return 0;
    const { disk } = group;
    const rested =
      differing.some((leaf) => before.has(leaf)) && (await this.#comeToRest(disk, signal));
    await this.#tracking.absorb();
    const suspects = differing.filter((leaf) => disk.dirt.isClean(leaf));
    const certain = rested ? suspects.find((leaf) => before.has(leaf)) : undefined;
    if (certain !== undefined) throw new WrittenUnseenError(disk, certain);
    this.#suspects = new Set(suspects);
    this.#tellOfUnrest(disk, suspects);
    return suspects.length;
  }

  #tellOfUnrest(disk: CapturedDisk, [leaf]: readonly number[]): void {
    if (leaf === undefined) return;
    const nowMs = this.#clock.monotonic();
    this.#suspectSinceMs ??= nowMs;
    if (nowMs - this.#suspectSinceMs < TELL_AFTER_MS) return;
    // Once.
    this.#suspectSinceMs = Number.POSITIVE_INFINITY;
    this.#log.warn(
      { code: 'ScrubWaits', device: disk.device.path, leaf },
      'A leaf differs from what was sent of it, and the disk has not been at rest for a moment since, so that nobody can tell why; the scrub waits',
    );
  }

  /** Whether there was a moment without a write in flight before the signal aborted. What completed before it is traced now. */
  async #comeToRest(disk: CapturedDisk, signal: AbortSignal): Promise<boolean> {
    try {
      while ((await disk.device.writesInFlight()) > 0)
        await this.#clock.sleep(REST_LOOK_MS, signal);
      await this.#clock.sleep(TRACED_WITHIN_MS, signal);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      throw error;
    }
  }

  /** Goes on behind the group. */
  #pass(group: Group, leavesCompared: number): { ended?: ScrubProgress } {
    const { disk, firstLeaf, leafCount } = group;
    const progress = {
      ...this.#progress,
      leaf: firstLeaf + leafCount,
      leavesCompared: this.#progress.leavesCompared + leavesCompared,
      leavesPassedOver: this.#progress.leavesPassedOver + leafCount - leavesCompared,
    };
    this.#suspects = new Set();
    this.#suspectSinceMs = undefined;
    this.#progress = progress;
    if (progress.leaf < disk.leafCount) return {};
    const next = this.#disks[this.#disks.indexOf(disk) + 1];
    if (next !== undefined) {
      this.#progress = { ...progress, disk: next.index, leaf: 0 };
      return {};
    }
    this.#progress = this.#beginning();
    return { ended: progress };
  }

  #beginning(): ScrubProgress {
    return {
      startedMs: this.#clock.now(),
      disk: this.#disks[0]?.index ?? 0,
      leaf: 0,
      leavesCompared: 0,
      leavesPassedOver: 0,
    };
  }
}

function leavesOf({ firstLeaf, leafCount }: Group): number[] {
  return Array.from({ length: leafCount }, (_, index) => firstLeaf + index);
}

/** What `work` gives; undefined when the signal aborts before. Nobody hears of what `work` does after that. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  work.catch(() => undefined);
  if (signal.aborted) return undefined;
  const aborted = Promise.withResolvers<undefined>();
  const stop = () => aborted.resolve(undefined);
  signal.addEventListener('abort', stop);
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
