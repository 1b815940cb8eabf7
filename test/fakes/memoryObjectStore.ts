import { buffer } from 'node:stream/consumers';
import type {
  Clock,
  ObjectInfo,
  ObjectSource,
  ObjectStore,
  StoredObject,
} from '../../platform/ports.ts';

export type ObjectOperation =
  | 'get'
  | 'head'
  | 'putIfAbsent'
  | 'replace'
  | 'put'
  | 'list'
  | 'remove';

/** `before`: the store never saw the request. `after`: it took effect, and the answer was lost. */
export interface StoreFault {
  when: 'before' | 'after';
  error: Error;
}

interface Stored {
  body: Uint8Array;
  etag: string;
  lastModified: number;
}

/** ObjectStore in memory. Passes test/conformance/objectStore.ts. */
export class MemoryObjectStore implements ObjectStore {
  readonly #clock: Clock;
  readonly #objects = new Map<string, Stored>();
  #version = 0;
  /** Makes an operation fail; asked once for each. */
  fault: ((operation: ObjectOperation, key: string) => StoreFault | undefined) | undefined;
  /** Runs before an operation takes effect: where a test lets somebody else act in between. */
  interleave: ((operation: ObjectOperation, key: string) => Promise<void> | void) | undefined;
  /** Every operation asked for, in order. */
  readonly log: { operation: ObjectOperation; key: string }[] = [];

  constructor(deps: { clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** The same objects in a store of its own. */
  copy(deps: { clock: Clock }): MemoryObjectStore {
    const copy = new MemoryObjectStore(deps);
    for (const [key, stored] of this.#objects) copy.#objects.set(key, stored);
    copy.#version = this.#version;
    return copy;
  }

  /** Rises with every change. */
  get changes(): number {
    return this.#version;
  }

  /** Everything stored, piece by piece. */
  *essence(): Generator<string | Uint8Array> {
    for (const [key, { body }] of this.#objects) {
      yield key;
      yield body;
    }
  }

  /** All keys, in order. */
  keys(): string[] {
    return [...this.#objects.keys()].sort();
  }

  async get(
    key: string,
    options: { offset?: number; length?: number; signal?: AbortSignal } = {},
  ): Promise<StoredObject | undefined> {
    options.signal?.throwIfAborted();
    return await this.#run('get', key, () => {
      const stored = this.#objects.get(key);
      if (stored === undefined) return undefined;
      const start = options.offset ?? 0;
      const end = options.length === undefined ? undefined : start + options.length;
      return { ...describe(key, stored), body: stored.body.slice(start, end) };
    });
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    return await this.#run('head', key, () => {
      const stored = this.#objects.get(key);
      return stored && describe(key, stored);
    });
  }

  async putIfAbsent(
    key: string,
    body: Uint8Array | ObjectSource,
    options: { signal?: AbortSignal } = {},
  ): Promise<{ outcome: 'created'; etag: string } | { outcome: 'exists' }> {
    options.signal?.throwIfAborted();
    const bytes = body instanceof Uint8Array ? body : await buffer(body.open());
    if (!(body instanceof Uint8Array) && bytes.length !== body.size)
      throw new RangeError(`source of ${key} gave ${bytes.length} bytes, not ${body.size}`);
    return await this.#run('putIfAbsent', key, () => {
      if (this.#objects.has(key)) return { outcome: 'exists' } as const;
      return { outcome: 'created', etag: this.#store(key, bytes) } as const;
    });
  }

  async replace(
    key: string,
    body: Uint8Array,
    condition: { etag: string },
  ): Promise<{ outcome: 'replaced'; etag: string } | { outcome: 'conflict' }> {
    return await this.#run('replace', key, () => {
      if (this.#objects.get(key)?.etag !== condition.etag) return { outcome: 'conflict' } as const;
      return { outcome: 'replaced', etag: this.#store(key, body) } as const;
    });
  }

  async put(key: string, body: Uint8Array): Promise<{ etag: string }> {
    return await this.#run('put', key, () => ({ etag: this.#store(key, body) }));
  }

  async *list(prefix: string, options: { startAfter?: string } = {}): AsyncIterable<ObjectInfo> {
    const found = await this.#run('list', prefix, () =>
      [...this.#objects]
        .filter(([key]) => key.startsWith(prefix) && key > (options.startAfter ?? ''))
        .map(([key, stored]) => describe(key, stored))
        .sort((a, b) => (a.key < b.key ? -1 : 1)),
    );
    yield* found;
  }

  async remove(
    key: string,
    condition?: { etag: string },
  ): Promise<'removed' | 'missing' | 'conflict'> {
    return await this.#run('remove', key, () => {
      const stored = this.#objects.get(key);
      if (stored === undefined) return 'missing';
      if (condition !== undefined && condition.etag !== stored.etag) return 'conflict';
      this.#objects.delete(key);
      this.#version += 1;
      return 'removed';
    });
  }

  async serverTime(): Promise<number> {
    // A Date header carries whole seconds.
    return Math.floor(this.#clock.now() / 1000) * 1000;
  }

  #store(key: string, body: Uint8Array): string {
    this.#version += 1;
    const etag = `"0x${this.#version.toString(16).padStart(16, '0').toUpperCase()}"`;
    this.#objects.set(key, { body: new Uint8Array(body), etag, lastModified: this.#clock.now() });
    return etag;
  }

  async #run<T>(operation: ObjectOperation, key: string, act: () => T): Promise<T> {
    this.log.push({ operation, key });
    await this.interleave?.(operation, key);
    const fault = this.fault?.(operation, key);
    if (fault?.when === 'before') throw fault.error;
    const result = act();
    if (fault !== undefined) throw fault.error;
    return result;
  }
}

function describe(key: string, stored: Stored): ObjectInfo {
  return { key, size: stored.body.length, etag: stored.etag, lastModified: stored.lastModified };
}
