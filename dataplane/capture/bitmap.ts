/**
 * A set of 4 KiB blocks of one disk, kept as one 16-bit mask a leaf. Chunks of 128 MiB of disk exist only while they hold something:
 * an empty terabyte costs nothing, a full one 32 MiB.
 *
 * Serialised: u32 chunk count, then for each chunk u32 number and 2048 little-endian u16 masks.
 */
import { FarshoreError } from '../../platform/errors.ts';
import { BLOCK_SIZE, BLOCKS_PER_LEAF, LEAF_SIZE, popcount16 } from '../journal/record.ts';

const CHUNK_LEAVES = 2048;
const CHUNK_BYTES = CHUNK_LEAVES * 2;
const WHOLE = 0xffff;

export class LeafBitmap {
  /** Leaves on the disk; the last may be a partial one. */
  readonly leafCount: number;
  readonly #blockCount: number;
  readonly #chunks = new Map<number, Uint16Array>();
  #size = 0;

  constructor(options: { sizeBytes: number }) {
    this.leafCount = Math.ceil(options.sizeBytes / LEAF_SIZE);
    this.#blockCount = Math.ceil(options.sizeBytes / BLOCK_SIZE);
  }

  /** Blocks in the set. */
  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#size * BLOCK_SIZE;
  }

  /** The blocks of a leaf that lie on the disk. */
  wholeMask(leaf: number): number {
    const blocks = this.#blockCount - leaf * BLOCKS_PER_LEAF;
    if (blocks >= BLOCKS_PER_LEAF) return WHOLE;
    return blocks <= 0 ? 0 : (1 << blocks) - 1;
  }

  mask(leaf: number): number {
    return this.#chunks.get(Math.floor(leaf / CHUNK_LEAVES))?.[leaf % CHUNK_LEAVES] ?? 0;
  }

  /** Blocks past the disk's end are left out. */
  add(leaf: number, mask: number): void {
    const wanted = mask & this.wholeMask(leaf);
    if (wanted === 0) return;
    const number = Math.floor(leaf / CHUNK_LEAVES);
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      chunk = new Uint16Array(CHUNK_LEAVES);
      this.#chunks.set(number, chunk);
    }
    const before = chunk[leaf % CHUNK_LEAVES] ?? 0;
    chunk[leaf % CHUNK_LEAVES] = before | wanted;
    this.#size += popcount16(wanted & ~before);
  }

  /** Every block that the bytes touch. */
  addBytes(range: { offset: number; length: number }): void {
    if (range.length <= 0) return;
    const first = Math.floor(range.offset / BLOCK_SIZE);
    const last = Math.min(this.#blockCount, Math.ceil((range.offset + range.length) / BLOCK_SIZE));
    for (let block = first; block < last; ) {
      const leaf = Math.floor(block / BLOCKS_PER_LEAF);
      const from = block % BLOCKS_PER_LEAF;
      const to = Math.min(BLOCKS_PER_LEAF, last - leaf * BLOCKS_PER_LEAF);
      this.add(leaf, ((1 << to) - 1) & ~((1 << from) - 1));
      block = (leaf + 1) * BLOCKS_PER_LEAF;
    }
  }

  /** Blocks in both sets. */
  sizeWith(other: LeafBitmap): number {
    let size = 0;
    for (const [number, chunk] of this.#chunks) {
      const theirs = other.#chunks.get(number);
      if (theirs === undefined) continue;
      for (let index = 0; index < CHUNK_LEAVES; index += 1)
        size += popcount16((chunk[index] ?? 0) & (theirs[index] ?? 0));
    }
    return size;
  }

  addAll(other: LeafBitmap): void {
    for (const [leaf, mask] of other.leaves()) this.add(leaf, mask);
  }

  remove(leaf: number, mask: number): void {
    const chunk = this.#chunks.get(Math.floor(leaf / CHUNK_LEAVES));
    if (chunk === undefined) return;
    const before = chunk[leaf % CHUNK_LEAVES] ?? 0;
    chunk[leaf % CHUNK_LEAVES] = before & ~mask;
    this.#size -= popcount16(before & mask);
  }

  /** Removes a leaf's blocks and says which they were. */
  take(leaf: number): number {
    const mask = this.mask(leaf);
    this.remove(leaf, mask);
    return mask;
  }

  clear(): void {
    this.#chunks.clear();
    this.#size = 0;
  }

  /** Leaves with blocks in the set, in order, with their masks. The set may change meanwhile; what is added behind is not seen. */
  *leaves(): Generator<[leaf: number, mask: number]> {
    for (const number of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const chunk = this.#chunks.get(number);
      if (chunk === undefined) continue;
      let empty = true;
      for (let index = 0; index < CHUNK_LEAVES; index += 1) {
        const mask = chunk[index] ?? 0;
        if (mask === 0) continue;
        empty = false;
        yield [number * CHUNK_LEAVES + index, mask];
      }
      if (empty) this.#chunks.delete(number);
    }
  }

  serialise(): Uint8Array {
    const numbers = [...this.#chunks.keys()].sort((a, b) => a - b);
    const bytes = new Uint8Array(4 + numbers.length * (4 + CHUNK_BYTES));
    const view = new DataView(bytes.buffer);
    view.setUint32(0, numbers.length, true);
    let offset = 4;
    for (const number of numbers) {
      view.setUint32(offset, number, true);
      offset += 4;
      for (const mask of this.#chunks.get(number) ?? []) {
        view.setUint16(offset, mask, true);
        offset += 2;
      }
    }
    return bytes;
  }

  /** Adds what `serialise` wrote of a disk of the same size. Throws FarshoreError BitmapInvalid. */
  addSerialised(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const count = bytes.length < 4 ? -1 : view.getUint32(0, true);
    if (count < 0 || bytes.length !== 4 + count * (4 + CHUNK_BYTES))
      throw new FarshoreError('BitmapInvalid', 'A saved bitmap has an impossible length.');
    for (let offset = 4; offset < bytes.length; offset += 4 + CHUNK_BYTES) {
      const first = view.getUint32(offset, true) * CHUNK_LEAVES;
      if (first >= this.leafCount)
        throw new FarshoreError(
          'BitmapInvalid',
          'A saved bitmap reaches past the end of its disk.',
        );
      for (let index = 0; index < CHUNK_LEAVES; index += 1)
        this.add(first + index, view.getUint16(offset + 4 + index * 2, true));
    }
  }
}
