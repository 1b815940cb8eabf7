/** When the scrub looks at its next leaves: slowly, while there is nothing else to do, and never when the disks are slow. */
import type { Clock, Logger } from '../../platform/ports.ts';
import { RECHECK_MS, SCRUB_GROUP_BYTES, Scrub, type ScrubProgress } from '../capture/scrub.ts';
import type { Tracking } from '../capture/tracking.ts';
import type { MachineCapture } from './machineCapture.ts';
import type { Session } from './session.ts';

/** All clean leaves are read once in so long, when the rate below and the other work let it. */
const SCRUB_PASS_MS = 7 * 86_400_000;
/** Disks of more than 4.6 TiB take longer than seven days. */
const BYTES_PER_SECOND_MAX = 8 << 20;
/** Small disks are done sooner: a group a minute costs nothing. */
const INTERVAL_MAX_MS = 60_000;
/** Passes wait for a step no longer than this. */
const STEP_MAX_MS = 5_000;
/** The scrub has time: it leaves a slow disk alone so many times longer than other reads of ours do. */
const PATIENCE = 10;

export interface ScrubWorkDeps {
  clock: Clock;
  log: Logger;
  capture: MachineCapture;
  /** By default seven days; Infinity: never. */
  scrubPassMs?: number;
}

export class ScrubWork {
  readonly #deps: ScrubWorkDeps;
  #at: { scrub: Scrub; tracking: Tracking } | undefined;
  #nextAtMs = 0;

  constructor(deps: ScrubWorkDeps) {
    this.#deps = deps;
  }

  /** For a successor. */
  get saved(): ScrubProgress | undefined {
    const { tracking } = this.#deps.capture;
    return this.#at?.tracking === tracking ? this.#at?.scrub.progress : undefined;
  }

  /** What a former agent left, over the disks that are tracked on. */
  adopt(saved: ScrubProgress): void {
    const { tracking } = this.#deps.capture;
    if (tracking !== undefined) this.#begin(tracking, saved);
  }

  /** Until the next step over these disks is due; 0: now. */
  waitMs(tracking: Tracking): number {
    if (this.#intervalMs(tracking) === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    if (this.#at?.tracking !== tracking) this.#begin(tracking);
    return Math.max(0, this.#nextAtMs - this.#deps.clock.monotonic());
  }

  /** Ends early when the signal aborts. Rejects as `Scrub.step` does. */
  async step(tracking: Tracking, session: Session, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    const scrub = this.#at?.tracking === tracking ? this.#at.scrub : this.#begin(tracking);
    const limit = new AbortController();
    const done = new AbortController();
    void clock.sleep(STEP_MAX_MS, done.signal).then(
      () => limit.abort(new Error('the step took too long')),
      () => undefined,
    );
    try {
      const { outcome, pauseMs, ended } = await scrub.step({
        sink: session,
        signal: AbortSignal.any([signal, limit.signal]),
      });
      const waitMs = outcome === 'Done' ? this.#intervalMs(tracking) : RECHECK_MS;
      this.#nextAtMs = clock.monotonic() + Math.max(waitMs, pauseMs * PATIENCE);
      if (ended === undefined) return;
      const { leavesCompared, leavesPassedOver, startedMs } = ended;
      const seconds = Math.max(0, clock.now() - startedMs) / 1000;
      log.info({ leavesCompared, leavesPassedOver, seconds }, 'The scrub found no write unseen');
    } finally {
      done.abort(new Error('done'));
    }
  }

  /** Disks that were opened anew are compared whole by the resync that follows: their pass begins. */
  #begin(tracking: Tracking, progress?: ScrubProgress): Scrub {
    const { clock, log } = this.#deps;
    const scrub = new Scrub({
      tracking,
      clock,
      log,
      ...(progress === undefined ? {} : { progress }),
    });
    this.#at = { scrub, tracking };
    this.#nextAtMs = clock.monotonic() + this.#intervalMs(tracking);
    return scrub;
  }

  #intervalMs({ disks }: Tracking): number {
    const passMs = this.#deps.scrubPassMs ?? SCRUB_PASS_MS;
    if (passMs === Number.POSITIVE_INFINITY) return passMs;
    const bytes = disks.reduce((sum, disk) => sum + disk.identity.sizeBytes, 0);
    return Math.max(
      (SCRUB_GROUP_BYTES * 1000) / BYTES_PER_SECOND_MAX,
      Math.min(INTERVAL_MAX_MS, (passMs * SCRUB_GROUP_BYTES) / bytes),
    );
  }
}
