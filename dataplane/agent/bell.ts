import type { Clock } from '../../platform/ports.ts';

/** Wakes one who waits, at once or when a time has passed. A ring while nobody waits is heard by the next. */
export class Bell {
  readonly #clock: Clock;
  #ringing = new AbortController();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Aborts at the next ring; aborted already when one was not heard yet. */
  get signal(): AbortSignal {
    return this.#ringing.signal;
  }

  ring(): void {
    this.#ringing.abort(new Error('the bell rang'));
  }

  async wait(atMostMs: number): Promise<void> {
    await this.#clock.sleep(atMostMs, this.signal).catch(() => undefined);
    this.#ringing = new AbortController();
  }
}
