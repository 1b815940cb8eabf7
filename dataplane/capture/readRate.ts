import type { Clock } from '../../platform/ports.ts';

const ENOUGH_BYTES = 1 << 20;

/** How long reading this much while frozen would take, by how it went of late. */
export class ReadRate {
  readonly #clock: Clock;
  #bytesPerMs = 100 * 1024;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async measure(read: () => Promise<{ bytes: number }>): Promise<void> {
    const started = this.#clock.monotonic();
    const { bytes } = await read();
    const tookMs = this.#clock.monotonic() - started;
    if (bytes >= ENOUGH_BYTES && tookMs > 0)
      this.#bytesPerMs = this.#bytesPerMs * 0.5 + (bytes / tookMs) * 0.5;
  }

  estimateMs(bytes: number): number {
    return bytes / this.#bytesPerMs;
  }
}
