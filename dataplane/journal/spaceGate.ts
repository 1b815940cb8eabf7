import type { Clock, Disk } from '../../platform/ports.ts';

const LOOK_AGAIN_MS = 1000;
/** Of what the cache may hold, kept for machines that hold less than an equal part of it: one that fills it does not stop the others. */
const KEPT_SHARE = 1 / 8;
/** The disk is asked again after so many bytes at the latest. */
const MEASURE_EVERY_BYTES = 32 << 20;

/**
 * Whether the cache may take more: what is left on its disk, and what it may use at all. A full cache makes writers wait; it never drops.
 */
export class SpaceGate {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #limits: { minFreeBytes: number; maxBytes: number };
  readonly #usedBytes: () => number;
  #free = 0;
  #total = 0;
  /** Taken since it was measured. */
  #unmeasured = 0;
  #stale = true;
  #freed = Promise.withResolvers<void>();
  #measuring: Promise<void> | undefined;

  constructor(deps: {
    disk: Disk;
    clock: Clock;
    limits: { minFreeBytes: number; maxBytes: number };
    /** Bytes of log files and sealed segments. */
    usedBytes: () => number;
  }) {
    this.#disk = deps.disk;
    this.#clock = deps.clock;
    this.#limits = deps.limits;
    this.#usedBytes = deps.usedBytes;
  }

  /** As last measured, less what was taken since. Bounded by what the cache may use. */
  get space(): { totalBytes: number; freeBytes: number } {
    const allowed = Math.max(0, this.#limits.maxBytes - this.#usedBytes());
    return {
      totalBytes: Math.min(this.#total, this.#limits.maxBytes),
      freeBytes: Math.max(0, Math.min(this.#free - this.#unmeasured, allowed)),
    };
  }

  taken(bytes: number): void {
    this.#unmeasured += bytes;
  }

  /** Something was removed: whoever waits looks again. */
  release(): void {
    this.#stale = true;
    this.#freed.resolve();
    this.#freed = Promise.withResolvers<void>();
  }

  async measure(): Promise<void> {
    this.#measuring ??= (async () => {
      try {
        this.#free = await this.#disk.freeBytes();
        this.#total = await this.#disk.totalBytes();
        this.#unmeasured = 0;
        this.#stale = false;
      } finally {
        this.#measuring = undefined;
      }
    })();
    await this.#measuring;
  }

  /**
   * `hasMost`: whether the machine holds more than an equal part of what waits here, so that it must leave some room to others.
   * `onFull` is called each time the cache is found full: what can be freed should be.
   */
  async wait(signal: AbortSignal, hasMost: () => boolean, onFull: () => void): Promise<void> {
    while (!signal.aborted) {
      if (this.#stale || this.#unmeasured > MEASURE_EVERY_BYTES) await this.measure();
      if (this.#hasRoom(hasMost)) return;
      await this.measure();
      if (this.#hasRoom(hasMost)) return;
      const freed = this.#freed.promise;
      onFull();
      const waking = new AbortController();
      const stop = () => waking.abort();
      signal.addEventListener('abort', stop, { once: true });
      const sleep = this.#clock.sleep(LOOK_AGAIN_MS, waking.signal).catch(() => {});
      await Promise.race([freed, sleep]);
      waking.abort();
      signal.removeEventListener('abort', stop);
    }
  }

  #hasRoom(hasMost: () => boolean): boolean {
    const { minFreeBytes, maxBytes } = this.#limits;
    const free = this.#free - this.#unmeasured - minFreeBytes;
    const allowed = maxBytes - this.#usedBytes();
    if (free < 0 || allowed <= 0) return false;
    const kept = KEPT_SHARE * Math.min(this.#total, maxBytes);
    // Only where room is scarce it matters who holds how much.
    return Math.min(free, allowed) >= kept || !hasMost();
  }
}
