import type { Clock } from '../../platform/ports.ts';

/** Wakes one who waits, at once or when a time has passed. A ring while nobody waits is heard by the next. */
export class Bell {
  readonly #clock: Clock;
  #rung = false;
  #wake: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  async wait(atMostMs: number): Promise<void> {
    if (!this.#rung) {
      const timer = new AbortController();
      const rung = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      const late = this.#clock.sleep(atMostMs, timer.signal).catch(() => undefined);
      await Promise.race([rung, late]);
      timer.abort(new Error('rung'));
      this.#wake = undefined;
    }
    this.#rung = false;
  }
}
