/**
 * Collects Data records into batches of about 1 MiB and remembers which blocks each carries, so that a batch that could not be sent
 * leaves its blocks dirty.
 */
import { hash } from 'node:crypto';
import {
  BLOCK_SIZE,
  BLOCKS_PER_LEAF,
  DATA_HEADER_SIZE,
  encodeDataHeader,
  LEAF_SIZE,
} from '../journal/record.ts';
import type { CapturedDisk } from './disk.ts';
import type { RecordSink } from './sink.ts';

const BATCH_BYTES_MAX = (1 << 20) + 128 * 1024;
/** A batch is sent before the next record might not fit. */
const RECORD_MAX = DATA_HEADER_SIZE + LEAF_SIZE;
const RECORDS_MAX = 8192;
/** One batch on its way, one waiting for it, one being filled. */
const BUFFERS_MAX = 3;
const WHOLE = 0xffff;

const zeroLeaf = Buffer.alloc(LEAF_SIZE);
const zeroBlock = zeroLeaf.subarray(0, BLOCK_SIZE);
/** SHA-256 of a leaf of zeros. */
export const ZERO_LEAF_HASH: Uint8Array = leafHash(zeroLeaf);

export function leafHash(leaf: Uint8Array): Uint8Array {
  return hash('sha256', leaf, 'buffer');
}

/** Compared by memcmp; much faster than hashing. */
export function isZero(bytes: Uint8Array): boolean {
  for (let offset = 0; offset < bytes.length; offset += LEAF_SIZE) {
    const part = bytes.subarray(offset, Math.min(bytes.length, offset + LEAF_SIZE));
    if (
      Buffer.compare(
        part,
        part.length === LEAF_SIZE ? zeroLeaf : zeroLeaf.subarray(0, part.length),
      ) !== 0
    )
      return false;
  }
  return true;
}

/** Which of the leaf's blocks are zero. */
function zeroMask(leaf: Uint8Array, blockMask: number): number {
  let zero = 0;
  for (let block = 0; block < BLOCKS_PER_LEAF; block += 1) {
    if ((blockMask & (1 << block)) === 0) continue;
    const bytes = leaf.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
    if (Buffer.compare(bytes, zeroBlock) === 0) zero |= 1 << block;
  }
  return zero;
}

export class BatchSender {
  readonly #sink: RecordSink;
  readonly #batchBytes: number;
  #records: Uint8Array = new Uint8Array(0);
  /** Of batches that were sent. Made once: the collector would run for every few MiB of new ones. */
  readonly #free: Uint8Array[] = [];
  #filled = 0;
  #carried: { disk: CapturedDisk; leaf: number; mask: number }[] = [];
  #failure: unknown;
  /** Batches on their way: the next is filled while one is taken by the network. */
  #sending: Promise<void> = Promise.resolve();
  bytesSent = 0;

  constructor(sink: RecordSink) {
    this.#sink = sink;
    this.#batchBytes = Math.min(BATCH_BYTES_MAX, sink.batchBytes);
  }

  /**
   * Adds the blocks of `mask` of a leaf. `bytes` is the whole of it as it was read; given its `hash`, the blocks of the mask are enough.
   * It is copied. The blocks count as sent once their batch is; when that fails they are dirty again and this, or a later call, rejects.
   */
  async add(
    disk: CapturedDisk,
    record: {
      leaf: number;
      mask: number;
      bytes: Uint8Array;
      hash?: Uint8Array;
    },
  ): Promise<void> {
    const { leaf, mask, bytes } = record;
    this.#carried.push({ disk, leaf, mask });
    disk.dirt.carry(leaf, mask);
    // Blocks past the disk's end are zero: a leaf that is sent whole is always whole.
    const blockMask = mask === disk.dirt.dirty.wholeMask(leaf) ? WHOLE : mask;
    const allZero = record.hash === undefined ? isZero(bytes) : record.hash === ZERO_LEAF_HASH;
    const zero = allZero ? blockMask : zeroMask(bytes, blockMask);
    const hashOfLeaf = allZero ? ZERO_LEAF_HASH : (record.hash ?? leafHash(bytes));
    if (this.#records.length === 0)
      this.#records = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#batchBytes);
    encodeDataHeader(this.#records, this.#filled, {
      disk: disk.index,
      leaf,
      blockMask,
      zeroMask: zero,
      leafHash: hashOfLeaf,
    });
    this.#filled += DATA_HEADER_SIZE;
    this.#copyBlocks(bytes, blockMask & ~zero);
    if (this.#filled + RECORD_MAX > this.#batchBytes || this.#carried.length >= RECORDS_MAX)
      await this.#send();
  }

  /** Sends what was collected; resolves when all of it was handed on. */
  async flush(): Promise<void> {
    await this.#send();
    await this.#sending;
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Gives up: what was not sent is dirty again. */
  async abandon(): Promise<void> {
    for (const { disk, leaf, mask } of this.#carried) disk.dirt.giveBack(leaf, mask);
    this.#carried = [];
    this.#filled = 0;
    await this.#sending;
  }

  #copyBlocks(bytes: Uint8Array, mask: number): void {
    for (let block = 0; block < BLOCKS_PER_LEAF; ) {
      if ((mask & (1 << block)) === 0) {
        block += 1;
        continue;
      }
      let end = block + 1;
      while (end < BLOCKS_PER_LEAF && (mask & (1 << end)) !== 0) end += 1;
      this.#records.set(bytes.subarray(block * BLOCK_SIZE, end * BLOCK_SIZE), this.#filled);
      this.#filled += (end - block) * BLOCK_SIZE;
      block = end;
    }
  }

  async #send(): Promise<void> {
    if (this.#carried.length === 0) return;
    const carried = this.#carried;
    const buffer = this.#records;
    const filled = this.#filled;
    this.#carried = [];
    this.#records = new Uint8Array(0);
    this.#filled = 0;
    // One in flight, one being filled.
    await this.#sending;
    this.#sending = this.#sendBatch(buffer, filled, carried);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #sendBatch(
    buffer: Uint8Array,
    filled: number,
    carried: readonly { disk: CapturedDisk; leaf: number; mask: number }[],
  ): Promise<void> {
    try {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#sink.send({ records: buffer.subarray(0, filled), count: carried.length });
      if (this.#free.length < BUFFERS_MAX) this.#free.push(buffer);
      for (const { disk, leaf, mask } of carried) disk.dirt.markSent(leaf, mask);
      this.bytesSent += filled;
    } catch (error) {
      this.#failure ??= error;
      for (const { disk, leaf, mask } of carried) disk.dirt.giveBack(leaf, mask);
    }
  }
}
