import { systemClock } from '../../platform/node/clock.ts';
import type { Clock } from '../../platform/ports.ts';

/** The machine's clock, ahead by as much as a test says: periods pass at once, while what sleeps goes on at its own pace. */
export class ShiftedClock implements Clock {
  #aheadMs = 0;

  pass(ms: number): void {
    this.#aheadMs += ms;
  }

  now(): number {
    return systemClock.now() + this.#aheadMs;
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#aheadMs;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await systemClock.sleep(ms, signal);
  }
}
