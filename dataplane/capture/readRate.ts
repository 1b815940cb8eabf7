import type { Clock } from '../../platform/ports.ts';

const ENOUGH_BYTES = 1 << 20;

/**
 * How long reading this much while frozen would take, by how it went of late. A look at the disk beside its programs can only show that it
 * is faster than was thought: frozen, they are out of the way.
 */
export class ReadRate {
  readonly #clock: Clock;
  #frozen = 100 * 1024;
  #beside = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Of a read while frozen. */
  async measure(read: () => Promise<{ bytes: number }>): Promise<void> {
    const bytesPerMs = await this.#time(read);
    if (bytesPerMs !== undefined) this.#frozen = this.#frozen * 0.5 + bytesPerMs * 0.5;
  }

  /** Of a read beside the machine's programs. */
  async probe(read: () => Promise<{ bytes: number }>): Promise<void> {
    this.#beside = (await this.#time(read)) ?? 0;
  }

  estimateMs(bytes: number): number {
    return bytes / Math.max(this.#frozen, this.#beside);
  }

  async #time(read: () => Promise<{ bytes: number }>): Promise<number | undefined> {
    const started = this.#clock.monotonic();
    const { bytes } = await read();
    const tookMs = this.#clock.monotonic() - started;
    return bytes >= ENOUGH_BYTES && tookMs > 0 ? bytes / tookMs : undefined;
  }
}
