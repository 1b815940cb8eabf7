/**
 * A queue of keys with client-go's rules: a key that is queued is queued once; one that is being worked on is not handed out a
 * second time, but comes again after `done` if it was added meanwhile. So a burst of changes costs one reconcile, and no two
 * workers ever have the same object.
 */
import type { Clock, Random } from '../../platform/ports.ts';
import { type BackoffOptions, backoffMs } from './backoff.ts';
import type { ObjectKey } from './objectKey.ts';

const defaultBackoff: BackoffOptions = { baseMs: 100, maxMs: 120_000 };

export class WorkQueue {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #backoff: BackoffOptions;
  /** Ready, in order. */
  readonly #ready: ObjectKey[] = [];
  /** To be worked on: every key in #ready, and those of #processing that were added again. */
  readonly #dirty = new Set<ObjectKey>();
  readonly #processing = new Set<ObjectKey>();
  readonly #failures = new Map<ObjectKey, number>();
  /** Monotonic ms at which a key becomes ready. */
  readonly #due = new Map<ObjectKey, number>();
  readonly #waiting: ((key: ObjectKey | undefined) => void)[] = [];
  #alarm: { atMs: number; cancel: AbortController } | undefined;
  #shutDown = false;

  constructor(
    deps: { clock: Clock; random: Random },
    options: { backoff?: Partial<BackoffOptions> } = {},
  ) {
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#backoff = { ...defaultBackoff, ...options.backoff };
  }

  /** Keys that are ready and not handed out. */
  get depth(): number {
    return this.#ready.length;
  }

  /** Keys that wait for their time. */
  get delayed(): number {
    return this.#due.size;
  }

  add(key: ObjectKey): void {
    if (this.#shutDown || this.#dirty.has(key)) return;
    this.#dirty.add(key);
    if (!this.#processing.has(key)) this.#offer(key);
  }

  /** Adds the key once the time has passed; of several such times the earliest counts. */
  addAfter(key: ObjectKey, delayMs: number): void {
    if (this.#shutDown) return;
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    const dueMs = this.#clock.monotonic() + delayMs;
    const known = this.#due.get(key);
    if (known !== undefined && known <= dueMs) return;
    this.#due.set(key, dueMs);
    this.#setAlarm();
  }

  /** Adds the key after a delay that doubles each time until `forget`. Returns the delay. */
  addRateLimited(key: ObjectKey): number {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    const delayMs = backoffMs(failures, this.#backoff, this.#random);
    this.addAfter(key, delayMs);
    return delayMs;
  }

  /** The key's work succeeded, or is given up: its next failure starts with the shortest delay. */
  forget(key: ObjectKey): void {
    this.#failures.delete(key);
  }

  failures(key: ObjectKey): number {
    return this.#failures.get(key) ?? 0;
  }

  /** The next key; waits for one. `undefined` after `shutDown`. Call `done` when its work has ended, however it ended. */
  get(): Promise<ObjectKey | undefined> {
    if (this.#shutDown) return Promise.resolve(undefined);
    const key = this.#ready.shift();
    if (key !== undefined) return Promise.resolve(this.#take(key));
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  done(key: ObjectKey): void {
    this.#processing.delete(key);
    if (this.#dirty.has(key) && !this.#shutDown) this.#offer(key);
  }

  /** Hands out nothing more; whoever waits gets `undefined`. What is handed out may still be finished. */
  shutDown(): void {
    this.#shutDown = true;
    this.#ready.length = 0;
    this.#dirty.clear();
    this.#due.clear();
    this.#alarm?.cancel.abort();
    for (const waiting of this.#waiting.splice(0)) waiting(undefined);
  }

  #offer(key: ObjectKey): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#ready.push(key);
    else waiting(this.#take(key));
  }

  #take(key: ObjectKey): ObjectKey {
    this.#dirty.delete(key);
    this.#processing.add(key);
    return key;
  }

  #setAlarm(): void {
    if (this.#due.size === 0) return;
    let atMs = Number.POSITIVE_INFINITY;
    for (const dueMs of this.#due.values()) atMs = Math.min(atMs, dueMs);
    if (this.#alarm !== undefined && this.#alarm.atMs <= atMs) return;
    this.#alarm?.cancel.abort();
    const alarm = { atMs, cancel: new AbortController() };
    this.#alarm = alarm;
    this.#clock.sleep(Math.max(0, atMs - this.#clock.monotonic()), alarm.cancel.signal).then(
      () => this.#ring(alarm),
      () => undefined, // superseded by an earlier one, or shut down
    );
  }

  #ring(alarm: { atMs: number; cancel: AbortController }): void {
    if (this.#alarm !== alarm) return;
    this.#alarm = undefined;
    const now = this.#clock.monotonic();
    for (const [key, dueMs] of [...this.#due].sort((a, b) => a[1] - b[1])) {
      if (dueMs > now) break;
      this.#due.delete(key);
      this.add(key);
    }
    this.#setAlarm();
  }
}
