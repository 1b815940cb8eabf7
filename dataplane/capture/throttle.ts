import type { Clock } from '../../platform/ports.ts';

const SLOW_FACTOR = 5;
/** Of a large read; of smaller ones as much less. */
const SLOW_MIN_MS = 40;
const PAUSE_MAX_MS = 500;
/** What is read at a time where size counts, and where it hardly does. */
const SMALL_BYTES = 128 << 10;
export const LARGE_BYTES = 1 << 20;
/** Where eight times as much takes less than so many times as long, it is not our bytes that others would wait for. */
const SIZE_COUNTS_FACTOR = 3;
/** How fast the notion of "normal" follows a disk that became slower for good. */
const DRIFT = 1.02;

/**
 * Holds our own reading back when it makes the disk slow: production's requests wait in the same queue. A read that takes five
 * times what reads of about this size normally take (and 40 ms a megabyte) is followed by a pause as long.
 */
export class ReadThrottle {
  readonly #clock: Clock;
  /** Milliseconds, by the size's power of two. */
  readonly #normal = new Map<number, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Bytes to read at a time beside programs that come first. Many disks serve one request at a time, and a program's waits for as long as
   * ours takes: small ones then. Where they take nearly as long as large ones (network disks), they would only make us slow.
   */
  get gentleBytes(): number {
    const small = this.#normal.get(sizeClass(SMALL_BYTES));
    const large = this.#normal.get(sizeClass(LARGE_BYTES));
    if (small === undefined) return SMALL_BYTES;
    // One, to see.
    if (large === undefined) return LARGE_BYTES;
    return large < small * SIZE_COUNTS_FACTOR ? LARGE_BYTES : SMALL_BYTES;
  }

  async time<T>(bytes: number, read: () => Promise<T>): Promise<T> {
    const { result, pauseMs } = await this.measure(bytes, read);
    if (pauseMs > 0) await this.#clock.sleep(pauseMs);
    return result;
  }

  /** For who pauses by himself: for `pauseMs`, which is 0 while the disk is as fast as ever. */
  async measure<T>(bytes: number, read: () => Promise<T>): Promise<{ result: T; pauseMs: number }> {
    const started = this.#clock.monotonic();
    const result = await read();
    const took = this.#clock.monotonic() - started;
    const size = sizeClass(bytes);
    const normal = Math.min(took, (this.#normal.get(size) ?? took) * DRIFT + 0.01);
    this.#normal.set(size, normal);
    const slowMinMs = SLOW_MIN_MS * Math.min(1, bytes / LARGE_BYTES);
    const isSlow = took > slowMinMs && took > normal * SLOW_FACTOR;
    return { result, pauseMs: isSlow ? Math.min(took, PAUSE_MAX_MS) : 0 };
  }
}

function sizeClass(bytes: number): number {
  return Math.ceil(Math.log2(bytes));
}
