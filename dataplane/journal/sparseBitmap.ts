import type { DiskFile } from '../../platform/ports.ts';

/** One chunk: 32768 bits in 4 KiB; for leaves that is 2 GiB of disk. */
const CHUNK_BYTES = 4096;
const CHUNK_BITS = CHUNK_BYTES * 8;
const LOAD_BYTES = 1 << 20;

/** Bits by number, with memory only where some are set. Optionally kept in a flat, sparse file. */
export class SparseBitmap {
  readonly #chunks = new Map<number, Uint8Array>();
  /** Chunks that differ from the file. */
  readonly #changed = new Set<number>();

  get isEmpty(): boolean {
    return this.#chunks.size === 0;
  }

  has(bit: number): boolean {
    const chunk = this.#chunks.get(Math.floor(bit / CHUNK_BITS));
    return chunk !== undefined && ((chunk[byteOf(bit)] as number) & maskOf(bit)) !== 0;
  }

  set(bit: number): void {
    const index = Math.floor(bit / CHUNK_BITS);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_BYTES);
      this.#chunks.set(index, chunk);
    }
    chunk[byteOf(bit)] = (chunk[byteOf(bit)] as number) | maskOf(bit);
    this.#changed.add(index);
  }

  clear(bit: number): void {
    const index = Math.floor(bit / CHUNK_BITS);
    const chunk = this.#chunks.get(index);
    if (chunk === undefined) return;
    chunk[byteOf(bit)] = (chunk[byteOf(bit)] as number) & ~maskOf(bit);
    this.#changed.add(index);
  }

  clearAll(): void {
    for (const index of this.#chunks.keys()) this.#changed.add(index);
    this.#chunks.clear();
  }

  /** Sets bits 0 to `count` - 1. */
  fill(count: number): void {
    const whole = Math.floor(count / CHUNK_BITS);
    for (let index = 0; index < whole; index++) {
      this.#chunks.set(index, new Uint8Array(CHUNK_BYTES).fill(0xff));
      this.#changed.add(index);
    }
    for (let bit = whole * CHUNK_BITS; bit < count; bit++) this.set(bit);
  }

  /** Clears every bit from `first` on. */
  clearFrom(first: number): void {
    const boundary = Math.floor(first / CHUNK_BITS);
    for (const index of [...this.#chunks.keys()])
      if (index > boundary) {
        this.#chunks.delete(index);
        this.#changed.add(index);
      }
    for (let bit = first; bit < (boundary + 1) * CHUNK_BITS; bit++) this.clear(bit);
  }

  /** Reads the whole file; empty chunks cost nothing. */
  async load(file: DiskFile): Promise<void> {
    this.#chunks.clear();
    this.#changed.clear();
    const size = await file.size();
    const buffer = new Uint8Array(Math.min(LOAD_BYTES, size));
    for (let offset = 0; offset < size; offset += LOAD_BYTES) {
      const read = await file.read(buffer, offset);
      for (let at = 0; at < read; at += CHUNK_BYTES) {
        const bytes = buffer.subarray(at, Math.min(at + CHUNK_BYTES, read));
        if (bytes.every((byte) => byte === 0)) continue;
        const chunk = new Uint8Array(CHUNK_BYTES);
        chunk.set(bytes);
        this.#chunks.set((offset + at) / CHUNK_BYTES, chunk);
      }
    }
  }

  /** Writes what changed. Not durable before the file is synced. */
  async flush(file: DiskFile): Promise<void> {
    const zeros = new Uint8Array(CHUNK_BYTES);
    for (const index of [...this.#changed].sort((a, b) => a - b)) {
      // Copied: bits may change while the write is under way, and the chunk then counts as changed again.
      const bytes = new Uint8Array(this.#chunks.get(index) ?? zeros);
      this.#changed.delete(index);
      await file.write(bytes, index * CHUNK_BYTES);
    }
  }
}

function byteOf(bit: number): number {
  return Math.floor((bit % CHUNK_BITS) / 8);
}

function maskOf(bit: number): number {
  return 1 << (bit % 8);
}
