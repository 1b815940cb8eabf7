/**
 * A cache of all objects of one type, kept current by a list and a watch.
 *
 * It never gives up: a watch that ends is resumed where it was; one that can't be (410, an answer we do not understand,
 * repeated failures) is replaced by a new list, whose differences are reported like any other change. What it holds may
 * be old while the API server can't be reached; it is never empty for that reason.
 */

import { errorCode, errorMessage } from '../../platform/errors.ts';
import {
  isKubeError,
  type KubeClient,
  type KubeObject,
  type ResourceType,
} from '../../platform/kubernetes.ts';
import type { Clock, Logger, Random } from '../../platform/ports.ts';
import { type BackoffOptions, backoffMs, fraction } from './backoff.ts';
import { keyOf, type ObjectKey } from './objectKey.ts';

const PAGE_SIZE = 500;
/** The server ends a watch after this many seconds, up to twice as many by chance. */
const WATCH_SECONDS = 300;
/** A watch that ended sooner counts as failed, lest a server that ends each at once is asked without pause. */
const SHORT_WATCH_MS = 1_000;
/** After so many refusals in a row, what we know may be from another history: list again. */
const REFUSALS_BEFORE_LIST = 3;
/** Whatever the server asks for. */
const LONGEST_PAUSE_MS = 60_000;
const defaultBackoff: BackoffOptions = { baseMs: 250, maxMs: 30_000 };

/** One object appeared (no `before`), changed or went (no `after`). Objects are shared: do not change them. */
export interface Change<T extends KubeObject> {
  key: ObjectKey;
  before: T | undefined;
  after: T | undefined;
}

/** Values by which objects are found, such as the name of the vault that they refer to. */
export type Indexes<T extends KubeObject> = Record<string, (object: T) => readonly string[]>;

/** What a reconcile may read: no calls, no waiting. */
export interface ObjectCache<T extends KubeObject> {
  get(key: ObjectKey): T | undefined;
  list(): T[];
  /** Objects whose index function gave this value, in no order. Throws on an index that was not declared. */
  byIndex(index: string, value: string): T[];
  readonly size: number;
}

export interface InformerOptions<T extends KubeObject> {
  type: ResourceType;
  namespace?: string;
  labelSelector?: string;
  indexes?: Indexes<T>;
  pageSize?: number;
  backoff?: Partial<BackoffOptions>;
}

export class Informer<T extends KubeObject> implements ObjectCache<T> {
  readonly type: ResourceType;
  readonly #deps: { client: KubeClient; clock: Clock; random: Random; logger: Logger };
  readonly #options: InformerOptions<T>;
  readonly #backoff: BackoffOptions;
  readonly #objects = new Map<ObjectKey, T>();
  readonly #indexes = new Map<string, Map<string, Set<ObjectKey>>>();
  readonly #handlers = new Set<(change: Change<T>) => void>();
  readonly #syncWaiters: (() => void)[] = [];
  #synced = false;
  #resourceVersion: string | undefined;
  /** Failures in a row: how long to wait. */
  #failures = 0;
  /** Of these, answers that were errors, since the last list. */
  #refusals = 0;
  /** Lists made because of 410, since anything came of one. */
  #relists = 0;
  #lastContactMs: number | undefined;

  constructor(
    deps: { client: KubeClient; clock: Clock; random: Random; logger: Logger },
    options: InformerOptions<T>,
  ) {
    this.type = options.type;
    this.#deps = { ...deps, logger: deps.logger.child({ informer: options.type.plural }) };
    this.#options = options;
    this.#backoff = { ...defaultBackoff, ...options.backoff };
    for (const index of Object.keys(options.indexes ?? {})) this.#indexes.set(index, new Map());
  }

  get(key: ObjectKey): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  byIndex(index: string, value: string): T[] {
    const entries = this.#indexes.get(index);
    if (entries === undefined) throw new TypeError(`${this.type.plural} has no index ${index}`);
    const found: T[] = [];
    for (const key of entries.get(value) ?? []) {
      const object = this.#objects.get(key);
      if (object !== undefined) found.push(object);
    }
    return found;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Whether a first list is complete. */
  get synced(): boolean {
    return this.#synced;
  }

  /** Monotonic ms at which the server last said something; undefined before the first list. */
  get lastContactMs(): number | undefined {
    return this.#lastContactMs;
  }

  /** Resolves after the first list; rejects with the signal's reason. */
  untilSynced(signal: AbortSignal): Promise<void> {
    if (this.#synced) return Promise.resolve();
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      const abort = () => reject(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      this.#syncWaiters.push(() => {
        signal.removeEventListener('abort', abort);
        resolve();
      });
    });
  }

  /** Called for every change, and at once for every object already known. Handlers must not throw. Returns how to stop. */
  onChange(handler: (change: Change<T>) => void): () => void {
    this.#handlers.add(handler);
    for (const [key, after] of this.#objects) handler({ key, before: undefined, after });
    return () => this.#handlers.delete(handler);
  }

  /** Keeps the cache current until the signal aborts; then resolves. Run it once. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (this.#resourceVersion === undefined) await this.#list(signal);
        await this.#watch(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#fail(error);
        await this.#pause(signal, error);
      }
    }
  }

  #fail(error: unknown): void {
    if (isKubeError(error, 'Gone')) {
      // The server is there: what failed before does not count. Lists that lead nowhere, one after the other, do.
      this.#relists += 1;
      this.#failures = this.#relists;
      this.#resourceVersion = undefined;
    } else {
      this.#failures += 1;
      if (!isKubeError(error, 'Unreachable', 'TooManyRequests')) this.#refusals += 1;
      if (isKubeError(error, 'BadAnswer') || this.#refusals >= REFUSALS_BEFORE_LIST)
        this.#resourceVersion = undefined;
    }
    // A version that is too old is how a long interruption ends, not a fault; a fault is told again as it lasts, but not each time.
    const telling = isKubeError(error, 'Gone')
      ? 'debug'
      : isPowerOfTwo(this.#failures)
        ? 'warn'
        : 'debug';
    this.#deps.logger[telling](
      { code: errorCode(error), failures: this.#failures, error: errorMessage(error) },
      'the watch broke; what is cached may be old until it is back',
    );
  }

  async #pause(signal: AbortSignal, error?: unknown): Promise<void> {
    const askedMs = isKubeError(error) ? (error.retryAfterMs ?? 0) : 0;
    const ownMs = backoffMs(this.#failures - 1, this.#backoff, this.#deps.random);
    const delayMs = Math.min(Math.max(ownMs, askedMs), LONGEST_PAUSE_MS);
    await this.#deps.clock.sleep(delayMs, signal).catch(() => undefined);
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { client } = this.#deps;
    const seen = new Map<ObjectKey, T>();
    let resourceVersion = '';
    let next: string | undefined;
    do {
      const page = await client.list<T>(this.#options.type, {
        ...this.#selection(),
        limit: this.#options.pageSize ?? PAGE_SIZE,
        ...(next === undefined ? {} : { continue: next }),
        signal,
      });
      for (const object of page.items) seen.set(keyOf(object), object);
      ({ resourceVersion, continue: next } = page);
    } while (next !== undefined);
    this.#heard();
    for (const key of [...this.#objects.keys()]) if (!seen.has(key)) this.#set(key, undefined);
    for (const [key, object] of seen) this.#set(key, object);
    this.#resourceVersion = resourceVersion;
    this.#refusals = 0;
    this.#synced = true;
    for (const resolve of this.#syncWaiters.splice(0)) resolve();
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { client, clock, random } = this.#deps;
    const startedMs = clock.monotonic();
    let events = 0;
    const stream = client.watch<T>(this.#options.type, {
      ...this.#selection(),
      resourceVersion: this.#resourceVersion ?? '',
      timeoutSeconds: Math.round(WATCH_SECONDS * (1 + fraction(random))),
      signal,
    });
    for await (const event of stream) {
      events += 1;
      this.#heard();
      this.#recovered();
      if (event.type === 'bookmark') {
        this.#resourceVersion = event.resourceVersion;
        continue;
      }
      this.#set(keyOf(event.object), event.type === 'deleted' ? undefined : event.object);
      this.#resourceVersion = event.object.metadata.resourceVersion;
    }
    if (signal.aborted || events > 0) return;
    if (clock.monotonic() - startedMs >= SHORT_WATCH_MS) {
      this.#recovered();
      return;
    }
    this.#failures += 1;
    await this.#pause(signal);
  }

  #recovered(): void {
    this.#failures = 0;
    this.#refusals = 0;
    this.#relists = 0;
  }

  #selection(): { namespace?: string; labelSelector?: string } {
    const { namespace, labelSelector } = this.#options;
    return {
      ...(namespace === undefined ? {} : { namespace }),
      ...(labelSelector === undefined ? {} : { labelSelector }),
    };
  }

  #heard(): void {
    this.#lastContactMs = this.#deps.clock.monotonic();
  }

  #set(key: ObjectKey, after: T | undefined): void {
    const before = this.#objects.get(key);
    if (before === undefined && after === undefined) return;
    // Who set which field is half of an object's size, and nobody here reads it.
    if (after !== undefined) Reflect.deleteProperty(after.metadata, 'managedFields');
    if (before !== undefined && before.metadata.resourceVersion === after?.metadata.resourceVersion)
      return;
    this.#index(key, before, after);
    if (after === undefined) this.#objects.delete(key);
    else this.#objects.set(key, after);
    for (const handler of this.#handlers) handler({ key, before, after });
  }

  #index(key: ObjectKey, before: T | undefined, after: T | undefined): void {
    for (const [name, valuesOf] of Object.entries(this.#options.indexes ?? {})) {
      const entries = this.#indexes.get(name);
      if (entries === undefined) continue;
      for (const value of before === undefined ? [] : valuesOf(before)) {
        const keys = entries.get(value);
        keys?.delete(key);
        if (keys?.size === 0) entries.delete(value);
      }
      for (const value of after === undefined ? [] : valuesOf(after)) {
        const keys = entries.get(value) ?? new Set();
        entries.set(value, keys.add(key));
      }
    }
  }
}

function isPowerOfTwo(count: number): boolean {
  return (count & (count - 1)) === 0;
}
