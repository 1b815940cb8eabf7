/**
 * Before a freeze: passes until little is dirty, or until the rest can be read while frozen where more passes would be in vain or take
 * too long.
 */
import type { FreezePlan } from '../../platform/ports.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import type { BarrierDeps } from './barrier.ts';
import { BarrierVoidError } from './barrierErrors.ts';
import { FROZEN_BYTES_MAX, frozenReadFits, probeReading } from './frozenRead.ts';
import { runPass } from './pass.ts';

/** Less than this is left for the freeze without another pass. */
const LITTLE_BYTES = 4 << 20;
const PASSES_MAX = 12;
/** Of the deadline, what reading may take while frozen: where passes are in vain once, and where they go on to be. */
const SHORT_READ = 0.25;
const READ_MAX = 0.6;
const IN_VAIN_MAX = 2;
/** After so many that left nearly all, what can not be read even so is given up for now: everything would be sent again each time, to no end. */
const HOPELESS_MAX = 4;
const HOPELESS_SHARE = 0.9;
/**
 * After so long, a barrier need not wait for little to be left: where the link is not much faster than the machine writes, every pass gains
 * little and all of them together make the point old. After three times as long it is as if they had been in vain.
 */
const LONG_MS = 5_000;
/** Set aside for the frozen read at least; only what is used of it takes memory. */
const FROZEN_BYTES_MIN = 64 << 20;

export type ShrinkingDeps = Pick<
  BarrierDeps,
  'tracking' | 'sink' | 'clock' | 'freezer' | 'machine' | 'readRate' | 'limits' | 'log'
>;

export class Shrinking {
  readonly #deps: ShrinkingDeps;
  /** Of what is dirty, as far as was looked at. */
  #zeroShare = 0;
  #gives = false;

  constructor(deps: ShrinkingDeps) {
    this.#deps = deps;
  }

  /**
   * Passes, each after a sync (which makes dirt). Resolves with what to set aside for the frozen read. Rejects with BarrierVoidError.
   * `giveWayMs`: so long, passes leave the processors to the machine's programs.
   */
  async run(plan: FreezePlan, giveWayMs: number): Promise<{ memoryBytes: number }> {
    if (giveWayMs === 0) return await this.#run(plan);
    const { machine, clock } = this.#deps;
    const ended = new AbortController();
    const giveWayNoMore = () => {
      if (this.#gives) machine.giveWay(false);
      this.#gives = false;
    };
    this.#gives = true;
    machine.giveWay(true);
    clock.sleep(giveWayMs, ended.signal).then(giveWayNoMore, () => undefined);
    try {
      return await this.#run(plan);
    } finally {
      // Before anything is frozen.
      giveWayNoMore();
      ended.abort();
    }
  }

  async #run(plan: FreezePlan): Promise<{ memoryBytes: number }> {
    const { tracking, clock, sink, freezer, readRate, log } = this.#deps;
    const begunMs = clock.monotonic();
    let before = Number.POSITIVE_INFINITY;
    let inVain = 0;
    // Small reads may be what keeps us from gaining on the writer.
    const gently = () => this.#gives && inVain === 0;
    let hopeless = 0;
    for (let passes = 0; ; passes += 1) {
      await freezer.sync(plan);
      await tracking.absorb();
      const left = tracking.dirtyBytes;
      const tookMs = clock.monotonic() - begunMs;
      log.debug({ passes, leftBytes: left, tookMs: Math.round(tookMs) }, 'Getting ready to freeze');
      if (left <= LITTLE_BYTES) break;
      if (left > before * 0.7) inVain += 1;
      if (left > before * HOPELESS_SHARE) hopeless += 1;
      if (inVain > 0 || tookMs >= LONG_MS) {
        await readRate.probe(() => this.#probe());
        // More passes would cost the machine as much again, and bring as little.
        const isPatient = inVain < IN_VAIN_MAX && tookMs < 3 * LONG_MS;
        if (this.#canBeRead(isPatient ? SHORT_READ : READ_MAX)) break;
      }
      if (passes === PASSES_MAX || hopeless === HOPELESS_MAX) {
        if (this.#canBeRead(READ_MAX)) break;
        throw this.#behindTheLink(passes);
      }
      before = left;
      await runPass(tracking.disks, { sink, clock, gently });
    }
    return { memoryBytes: this.#memoryNeeded() };
  }

  #behindTheLink(passes: number): BarrierVoidError {
    const ms = Math.round(this.#readMs());
    const atMostMs = this.#deps.limits.deadlineMs * READ_MAX;
    return new BarrierVoidError(
      'BehindTheLink',
      `What is still dirty after ${passes} passes (${this.#frozenBytes() >> 20} MiB) would take ${ms} ms to read while frozen, of ${atMostMs} ms, and ${this.#memoryMax >> 20} MiB may be kept of it: the machine writes faster than the link carries. The barrier is tried again later.`,
    );
  }

  /** All that is dirty, while frozen: in this share of the deadline, and into the memory that may be set aside. */
  #canBeRead(share: number): boolean {
    const { limits, tracking } = this.#deps;
    const isInTime = this.#readMs() <= limits.deadlineMs * share;
    const memory = { bytes: this.#memoryMax, zeroShare: this.#zeroShare };
    return isInTime && frozenReadFits(tracking.disks, memory);
  }

  async #probe(): Promise<{ bytes: number }> {
    const seen = await probeReading(this.#deps.tracking.disks);
    this.#zeroShare = seen.zeroShare;
    return seen;
  }

  #readMs(): number {
    return this.#deps.readRate.estimateMs(this.#frozenBytes());
  }

  /** Whole leaves are read, whatever part of them is dirty. */
  #frozenBytes(): number {
    let leaves = 0;
    for (const disk of this.#deps.tracking.disks)
      for (const _ of disk.dirt.dirty.leaves()) leaves += 1;
    return leaves * LEAF_SIZE;
  }

  get #memoryMax(): number {
    return this.#deps.limits.frozenBytesMax ?? FROZEN_BYTES_MAX;
  }

  #memoryNeeded(): number {
    return Math.min(this.#memoryMax, Math.max(FROZEN_BYTES_MIN, this.#frozenBytes() * 8));
  }
}
