import type { PageRange } from '../../platform/ports.ts';
import { PAGE_SIZE } from '../../platform/storeErrors.ts';

const CHUNK_SIZE = 64 * 1024;
const PAGES_PER_CHUNK = CHUNK_SIZE / PAGE_SIZE;

interface Chunk {
  bytes: Uint8Array;
  written: Uint8Array;
  /** Also part of a snapshot: copy before writing. */
  shared: boolean;
}

/** The pages of a page blob: sparse, and copied on write once a snapshot shares them. */
export class SparsePages {
  readonly #chunks: Map<number, Chunk>;
  size: number;

  constructor(size: number, chunks: Map<number, Chunk> = new Map()) {
    this.size = size;
    this.#chunks = chunks;
  }

  freeze(): SparsePages {
    for (const chunk of this.#chunks.values()) chunk.shared = true;
    return new SparsePages(this.size, new Map(this.#chunks));
  }

  resize(size: number): void {
    if (size < this.size) this.clear({ offset: size, length: this.size - size });
    this.size = size;
  }

  write(bytes: Uint8Array, offset: number): void {
    for (const part of parts({ offset, length: bytes.length })) {
      const chunk = this.#own(part.chunk);
      const from = part.offset - offset;
      chunk.bytes.set(bytes.subarray(from, from + part.length), part.within);
      chunk.written.fill(1, part.within / PAGE_SIZE, (part.within + part.length) / PAGE_SIZE);
    }
  }

  /** Flips a byte where it lies, in all that share it. */
  rot(offset: number): void {
    const index = Math.floor(offset / CHUNK_SIZE);
    const chunk = this.#chunks.get(index) ?? this.#own(index);
    const within = offset % CHUNK_SIZE;
    chunk.bytes[within] = (chunk.bytes[within] ?? 0) ^ 0xff;
  }

  clear(range: PageRange): void {
    for (const index of [...this.#chunks.keys()]) {
      const start = Math.max(range.offset, index * CHUNK_SIZE);
      const end = Math.min(range.offset + range.length, (index + 1) * CHUNK_SIZE);
      if (start >= end) continue;
      if (end - start === CHUNK_SIZE) {
        this.#chunks.delete(index);
        continue;
      }
      const chunk = this.#own(index);
      const within = start - index * CHUNK_SIZE;
      chunk.bytes.fill(0, within, within + end - start);
      chunk.written.fill(0, within / PAGE_SIZE, (within + end - start) / PAGE_SIZE);
    }
  }

  read(range: PageRange): Uint8Array {
    const out = new Uint8Array(range.length);
    for (const part of parts(range)) {
      const chunk = this.#chunks.get(part.chunk);
      if (chunk !== undefined)
        out.set(
          chunk.bytes.subarray(part.within, part.within + part.length),
          part.offset - range.offset,
        );
    }
    return out;
  }

  /** The 64 KiB that hold a chunk, as they are kept; undefined: never written. Only a frozen one stays as it is. */
  chunk(index: number): Uint8Array | undefined {
    return this.#chunks.get(index)?.bytes;
  }

  /** Written pages, adjacent ones merged, in order. */
  ranges(): PageRange[] {
    const found: PageRange[] = [];
    for (const index of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const written = this.#chunks.get(index)?.written ?? new Uint8Array();
      for (let page = 0; page < PAGES_PER_CHUNK; page += 1) {
        if (written[page] !== 1) continue;
        const offset = index * CHUNK_SIZE + page * PAGE_SIZE;
        const last = found.at(-1);
        if (last !== undefined && last.offset + last.length === offset) last.length += PAGE_SIZE;
        else found.push({ offset, length: PAGE_SIZE });
      }
    }
    return found;
  }

  #own(index: number): Chunk {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined)
      chunk = {
        bytes: new Uint8Array(CHUNK_SIZE),
        written: new Uint8Array(PAGES_PER_CHUNK),
        shared: false,
      };
    else if (chunk.shared)
      chunk = { bytes: chunk.bytes.slice(), written: chunk.written.slice(), shared: false };
    this.#chunks.set(index, chunk);
    return chunk;
  }
}

function* parts(
  range: PageRange,
): Generator<{ chunk: number; within: number; offset: number; length: number }> {
  const end = range.offset + range.length;
  for (let offset = range.offset; offset < end; ) {
    const chunk = Math.floor(offset / CHUNK_SIZE);
    const within = offset - chunk * CHUNK_SIZE;
    const length = Math.min(CHUNK_SIZE - within, end - offset);
    yield { chunk, within, offset, length };
    offset += length;
  }
}
