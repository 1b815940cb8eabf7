import type { Clock } from '../../platform/ports.ts';

/** So many writes a second and no more, over all controllers of this process; unused ones are kept for one second. */
export class WriteBudget {
  readonly #clock: Clock;
  readonly #perSecond: number;
  #tokens: number;
  #filledMs: number;

  constructor(clock: Clock, options: { perSecond: number }) {
    this.#clock = clock;
    this.#perSecond = options.perSecond;
    this.#tokens = options.perSecond;
    this.#filledMs = clock.monotonic();
  }

  /** Takes one if there is one to take. */
  tryTake(): boolean {
    this.#fill();
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Takes one, when its turn has come. */
  async take(signal?: AbortSignal): Promise<void> {
    this.#fill();
    // Going below zero is how those who wait stand in line.
    this.#tokens -= 1;
    if (this.#tokens >= 0) return;
    await this.#clock.sleep((-this.#tokens / this.#perSecond) * 1000, signal);
  }

  #fill(): void {
    const now = this.#clock.monotonic();
    const earned = ((now - this.#filledMs) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#perSecond, this.#tokens + earned);
    this.#filledMs = now;
  }
}
