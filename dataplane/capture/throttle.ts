import type { Clock } from '../../platform/ports.ts';

const SLOW_FACTOR = 5;
const SLOW_MIN_MS = 40;
const PAUSE_MAX_MS = 500;
/** How fast the notion of "normal" follows a disk that became slower for good. */
const DRIFT = 1.02;

/**
 * Holds our own reading back when it makes the disk slow: production's requests wait in the same queue. A read that takes five
 * times what reads of this size normally take (and 40 ms) is followed by a pause as long.
 */
export class ReadThrottle {
  readonly #clock: Clock;
  #normal: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async time<T>(read: () => Promise<T>): Promise<T> {
    const { result, pauseMs } = await this.measure(read);
    if (pauseMs > 0) await this.#clock.sleep(pauseMs);
    return result;
  }

  /** For who pauses by himself: for `pauseMs`, which is 0 while the disk is as fast as ever. */
  async measure<T>(read: () => Promise<T>): Promise<{ result: T; pauseMs: number }> {
    const started = this.#clock.monotonic();
    const result = await read();
    const took = this.#clock.monotonic() - started;
    this.#normal = Math.min(took, (this.#normal ?? took) * DRIFT + 0.01);
    const isSlow = took > SLOW_MIN_MS && took > this.#normal * SLOW_FACTOR;
    return { result, pauseMs: isSlow ? Math.min(took, PAUSE_MAX_MS) : 0 };
  }
}
