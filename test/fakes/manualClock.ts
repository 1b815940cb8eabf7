import type { Clock } from '../../platform/ports.ts';

interface Sleeper {
  dueMs: number;
  order: number;
  wake: () => void;
}

/** Time stands still until a test moves it. */
export class ManualClock implements Clock {
  #monotonicMs = 0;
  #wallMs: number;
  #order = 0;
  readonly #sleepers = new Set<Sleeper>();

  constructor(wallMs: number = Date.UTC(2026, 0, 1)) {
    this.#wallMs = wallMs;
  }

  now(): number {
    return this.#wallMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const sleeper: Sleeper = {
        dueMs: this.#monotonicMs + Math.max(0, ms),
        order: this.#order,
        wake: () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        },
      };
      const abort = () => {
        this.#sleepers.delete(sleeper);
        reject(signal?.reason);
      };
      this.#order += 1;
      signal?.addEventListener('abort', abort, { once: true });
      this.#sleepers.add(sleeper);
    });
  }

  /** How many are asleep: a test waits for this before it moves time. */
  get sleeping(): number {
    return this.#sleepers.size;
  }

  /** When the next sleeper wakes, in ms from now; undefined when nobody sleeps. */
  get nextDueMs(): number | undefined {
    const next = this.#next(Number.POSITIVE_INFINITY);
    return next === undefined ? undefined : next.dueMs - this.#monotonicMs;
  }

  /** Moves both clocks, waking sleepers in order of time; each one's continuation runs before the next is woken. */
  async advance(ms: number): Promise<void> {
    const until = this.#monotonicMs + ms;
    await settle();
    for (let next = this.#next(until); next !== undefined; next = this.#next(until)) {
      this.#step(next.dueMs);
      this.#sleepers.delete(next);
      next.wake();
      await settle();
    }
    this.#step(until);
  }

  /** The wall clock jumps; the monotonic one does not notice. */
  jumpWallClock(ms: number): void {
    this.#wallMs += ms;
  }

  #step(toMonotonicMs: number): void {
    this.#wallMs += toMonotonicMs - this.#monotonicMs;
    this.#monotonicMs = toMonotonicMs;
  }

  #next(untilMs: number): Sleeper | undefined {
    return [...this.#sleepers]
      .filter((sleeper) => sleeper.dueMs <= untilMs)
      .sort((a, b) => a.dueMs - b.dueMs || a.order - b.order)[0];
  }
}

/** Lets every promise that can go on now do so. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
