import type { Clock } from '../../platform/ports.ts';

/** Keys remembered at most; a flood from more addresses than this meets the overall limit first. */
const KEYS_MAX = 10_000;

interface Bucket {
  tokens: number;
  filledMs: number;
}

/** Token buckets: `burst` at once, `perMinute` in the long run, for each key. */
export class RateLimit {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #perMinute: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(deps: { clock: Clock }, options: { burst: number; perMinute: number }) {
    this.#clock = deps.clock;
    this.#burst = options.burst;
    this.#perMinute = options.perMinute;
  }

  /** Takes one; false when there is none left. */
  take(key: string): boolean {
    const now = this.#clock.monotonic();
    const bucket = this.#buckets.get(key) ?? { tokens: this.#burst, filledMs: now };
    const gained = ((now - bucket.filledMs) / 60_000) * this.#perMinute;
    bucket.tokens = Math.min(this.#burst, bucket.tokens + gained);
    bucket.filledMs = now;
    // Moved to the end: the first key is the one that was quiet for longest.
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    const oldest = this.#buckets.keys().next();
    if (this.#buckets.size > KEYS_MAX && oldest.done !== true) this.#buckets.delete(oldest.value);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }
}
