/**
 * Lets bytes go at a rate: a bucket that fills at the limit in force and holds a quarter of a second of it. The limit is asked for again
 * at every grant, and once a second while somebody waits, so a new one counts without a restart.
 */
import type { Clock } from '../../platform/ports.ts';

const BURST_SECONDS = 0.25;
const BURST_MIN = 64 << 10;
/** Granted at once: small enough that several who upload at the same time share evenly, and that none of them seems stuck. */
const GRANT_SECONDS = 0.125;
const GRANT_MIN = 16 << 10;
const LOOK_AGAIN_MS = 1000;

interface Waiting {
  bytes: number;
  grant: (bytes: number) => void;
}

export class RateLimit {
  readonly #clock: Clock;
  readonly #bytesPerSecond: () => number | undefined;
  readonly #queue: Waiting[] = [];
  #held = 0;
  #heldAtMs = 0;
  #granting = false;

  /** `bytesPerSecond`: the limit now; undefined: none. */
  constructor(options: { clock: Clock; bytesPerSecond: () => number | undefined }) {
    this.#clock = options.clock;
    this.#bytesPerSecond = options.bytesPerSecond;
  }

  /** How many of `bytes` may go now: all while there is no limit, otherwise a part, in time. In order of call. */
  take(bytes: number, signal?: AbortSignal): number | Promise<number> {
    const limit = this.#bytesPerSecond();
    if (limit === undefined && this.#queue.length === 0) return bytes;
    return this.#wait(bytes, signal);
  }

  /** Resolves once all of `bytes` may go. Rejects with the signal's reason. */
  async takeAll(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    for (let left = bytes; left > 0; ) left -= await this.take(left, signal);
  }

  async #wait(bytes: number, signal: AbortSignal | undefined): Promise<number> {
    const { promise, resolve: grant, reject } = Promise.withResolvers<number>();
    const waiting = { bytes, grant };
    const abort = () => {
      const index = this.#queue.indexOf(waiting);
      if (index >= 0) this.#queue.splice(index, 1);
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    this.#queue.push(waiting);
    if (!this.#granting) void this.#grantAll();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  async #grantAll(): Promise<void> {
    this.#granting = true;
    try {
      for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
        const limit = this.#bytesPerSecond();
        const bytes = limit === undefined ? next.bytes : grantOf(next.bytes, limit);
        if (limit !== undefined) {
          this.#fill(limit);
          const missing = bytes - this.#held;
          if (missing > 0) {
            await this.#clock.sleep(Math.min(LOOK_AGAIN_MS, (missing / limit) * 1000));
            continue;
          }
          this.#held -= bytes;
        }
        this.#queue.shift();
        next.grant(bytes);
      }
    } finally {
      this.#granting = false;
    }
  }

  #fill(limit: number): void {
    const nowMs = this.#clock.monotonic();
    const filled = this.#held + ((nowMs - this.#heldAtMs) / 1000) * limit;
    this.#held = Math.min(filled, Math.max(BURST_MIN, BURST_SECONDS * limit));
    this.#heldAtMs = nowMs;
  }
}

function grantOf(bytes: number, limit: number): number {
  return Math.min(bytes, Math.max(GRANT_MIN, Math.floor(GRANT_SECONDS * limit)));
}
