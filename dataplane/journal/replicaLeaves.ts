/**
 * The table of leaf hashes beside a replica (docs/design/0002): entry _i_ at offset 32·_i_, zeros for a leaf of zeros.
 *
 * Sixteen entries share a page, so a change reads its page first. Chunks of the table are cached within a limit that all disks of a
 * machine share; a cached chunk always equals what the blob holds, so that it survives a failed write only by being dropped.
 */
import type { PageRange } from '../../platform/ports.ts';
import { PAGE_SIZE } from '../../platform/storeErrors.ts';
import { CHUNK_LEAVES, leafEntry, sameBytes } from './merkle.ts';
import { HASH_SIZE } from './record.ts';

const CHUNK_BYTES = CHUNK_LEAVES * HASH_SIZE;
/** What a computation of a whole root fetches at once. */
const READ_AHEAD_BYTES = 1 << 20;
/** Unchanged pages between two changed ones are rewritten rather than spend another request, up to this many. */
const GAP_PAGES = 8;

/** Reads and fenced writes of one table's blob. */
export interface LeafTableBlob {
  key: string;
  /** Bytes of the table. */
  size: number;
  /** The table was created by us and holds zeros wherever we have not written. */
  fresh: boolean;
  read(range: PageRange): Promise<Uint8Array>;
  write(bytes: Uint8Array, offset: number): Promise<void>;
}

/** Chunks of leaf tables, least recently used first out. */
export class LeafChunkCache {
  readonly #chunks = new Map<string, Uint8Array>();
  readonly #limit: number;

  constructor(options: { bytes: number }) {
    this.#limit = Math.max(1, Math.floor(options.bytes / CHUNK_BYTES));
  }

  get(key: string): Uint8Array | undefined {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined) return undefined;
    this.#chunks.delete(key);
    this.#chunks.set(key, chunk);
    return chunk;
  }

  set(key: string, chunk: Uint8Array): void {
    this.#chunks.delete(key);
    this.#chunks.set(key, chunk);
    if (this.#chunks.size <= this.#limit) return;
    for (const oldest of this.#chunks.keys()) {
      this.#chunks.delete(oldest);
      return;
    }
  }

  delete(key: string): void {
    this.#chunks.delete(key);
  }

  clear(): void {
    this.#chunks.clear();
  }
}

export class LeafTable {
  readonly #blob: LeafTableBlob;
  readonly #cache: LeafChunkCache;
  /** Chunks of a fresh table that are no longer known to be zero. */
  readonly #touched = new Set<number>();
  /** A piece of the table as the blob holds it. */
  #ahead: { offset: number; bytes: Uint8Array } | undefined;

  constructor(options: { blob: LeafTableBlob; cache: LeafChunkCache }) {
    this.#blob = options.blob;
    this.#cache = options.cache;
  }

  /** Work that writes these hashes (ascending by leaf), a step for each chunk of the table; steps may run at the same time. */
  updates(changed: readonly { leaf: number; hash: Uint8Array }[]): (() => Promise<void>)[] {
    // A leaf of zeros past the disk's body has no entry.
    const hashes = changed.filter(({ leaf }) => leaf * HASH_SIZE < this.#blob.size);
    const steps: (() => Promise<void>)[] = [];
    for (let first = 0; first < hashes.length; ) {
      const chunk = Math.floor((hashes[first]?.leaf ?? 0) / CHUNK_LEAVES);
      let end = first;
      while (end < hashes.length && Math.floor((hashes[end]?.leaf ?? 0) / CHUNK_LEAVES) === chunk)
        end += 1;
      const part = hashes.slice(first, end);
      steps.push(() => this.#update(chunk, part));
      first = end;
    }
    return steps;
  }

  /** Entries for a tree (merkle.ts); `firstLeaf` begins a chunk. No update may be under way. */
  async read(firstLeaf: number, count: number): Promise<Uint8Array> {
    const chunk = firstLeaf / CHUNK_LEAVES;
    const known = this.#known(chunk);
    if (known !== undefined) return known.subarray(0, count * HASH_SIZE);
    const offset = chunk * CHUNK_BYTES;
    const within = offset - (this.#ahead?.offset ?? Number.POSITIVE_INFINITY);
    if (this.#ahead !== undefined && within >= 0 && within < this.#ahead.bytes.length)
      return this.#ahead.bytes.subarray(within, within + count * HASH_SIZE);
    const length = Math.min(READ_AHEAD_BYTES, this.#blob.size - offset);
    this.#ahead = { offset, bytes: await this.#blob.read({ offset, length }) };
    return this.#ahead.bytes.subarray(0, count * HASH_SIZE);
  }

  async #update(
    chunk: number,
    hashes: readonly { leaf: number; hash: Uint8Array }[],
  ): Promise<void> {
    this.#ahead = undefined;
    const before = await this.#load(chunk);
    const after = new Uint8Array(before);
    const dirty = new Set<number>();
    for (const { leaf, hash } of hashes) {
      const at = (leaf % CHUNK_LEAVES) * HASH_SIZE;
      const entry = leafEntry(hash);
      if (sameBytes(after.subarray(at, at + HASH_SIZE), entry)) continue;
      after.set(entry, at);
      dirty.add(Math.floor(at / PAGE_SIZE));
    }
    if (dirty.size === 0) return;
    const key = this.#key(chunk);
    this.#cache.delete(key);
    this.#touched.add(chunk);
    for (const { first, last } of spans([...dirty].sort((a, b) => a - b)))
      await this.#blob.write(
        after.subarray(first * PAGE_SIZE, (last + 1) * PAGE_SIZE),
        chunk * CHUNK_BYTES + first * PAGE_SIZE,
      );
    this.#cache.set(key, after);
  }

  async #load(chunk: number): Promise<Uint8Array> {
    const known = this.#known(chunk);
    if (known !== undefined) return known;
    const offset = chunk * CHUNK_BYTES;
    const length = Math.min(CHUNK_BYTES, this.#blob.size - offset);
    return await this.#blob.read({ offset, length });
  }

  /** A chunk that needs no request. */
  #known(chunk: number): Uint8Array | undefined {
    const cached = this.#cache.get(this.#key(chunk));
    if (cached !== undefined) return cached;
    if (!this.#blob.fresh || this.#touched.has(chunk)) return undefined;
    return new Uint8Array(Math.min(CHUNK_BYTES, this.#blob.size - chunk * CHUNK_BYTES));
  }

  #key(chunk: number): string {
    return `${this.#blob.key}#${chunk}`;
  }
}

function spans(pages: readonly number[]): { first: number; last: number }[] {
  const found: { first: number; last: number }[] = [];
  for (const page of pages) {
    const current = found.at(-1);
    if (current !== undefined && page - current.last <= GAP_PAGES) current.last = page;
    else found.push({ first: page, last: page });
  }
  return found;
}
