import type { Clock } from '../platform/ports.ts';

/** Turns "so many bytes of so many" into progress with the rate since the first report. */
export class Speedometer {
  readonly #clock: Clock;
  #first: { at: number; done: number } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  progress(bytes: { done: number; total: number }): {
    bytesDone: number;
    bytesTotal: number;
    bytesPerSecond: number;
  } {
    const at = this.#clock.monotonic();
    this.#first ??= { at, done: bytes.done };
    const seconds = (at - this.#first.at) / 1000;
    const bytesPerSecond = seconds > 0 ? Math.max(0, bytes.done - this.#first.done) / seconds : 0;
    return { bytesDone: bytes.done, bytesTotal: bytes.total, bytesPerSecond };
  }
}
