/**
 * What a round of journal records means for the replica's pages: the last state of every block, and from it few, large writes.
 *
 * Blocks are kept as views into the decoded segments, so a round's memory is what `byteLength` says: at most the segments it
 * spans. Azure allows 500 requests a second and blob, so adjacent blocks become one write of up to 4 MiB; nothing that the
 * journal did not name is ever written, because a snapshot is charged for every rewritten page.
 */
import type { PageRange } from '../../platform/ports.ts';
import { PAGE_WRITE_MAX } from '../../platform/storeErrors.ts';
import { BLOCK_SIZE, BLOCKS_PER_LEAF, type DataRecord, LEAF_SIZE } from './record.ts';

/** Pages to write, or pages to clear. */
export type PageChange =
  | { kind: 'write'; offset: number; length: number; blocks: readonly Uint8Array[] }
  | ({ kind: 'clear' } & PageRange);

interface PendingLeaf {
  /** Blocks of which something is known. */
  blockMask: number;
  /** Subset of blockMask: they are zero. */
  zeroMask: number;
  blocks: (Uint8Array | undefined)[];
  hash: Uint8Array;
}

/** The blocks of one disk that a round changes. */
export class PendingDisk {
  readonly #leaves = new Map<number, PendingLeaf>();

  /** A later record's block wins over an earlier one's. */
  add(record: DataRecord): void {
    let leaf = this.#leaves.get(record.leaf);
    if (leaf === undefined) {
      leaf = { blockMask: 0, zeroMask: 0, blocks: [], hash: record.leafHash };
      this.#leaves.set(record.leaf, leaf);
    }
    leaf.blockMask |= record.blockMask;
    leaf.zeroMask = (leaf.zeroMask & ~record.blockMask) | record.zeroMask;
    leaf.hash = record.leafHash;
    let at = 0;
    for (let block = 0; block < BLOCKS_PER_LEAF; block += 1) {
      const bit = 1 << block;
      if ((record.blockMask & bit) === 0) continue;
      if ((record.zeroMask & bit) !== 0) leaf.blocks[block] = undefined;
      else {
        leaf.blocks[block] = record.blocks.subarray(at, at + BLOCK_SIZE);
        at += BLOCK_SIZE;
      }
    }
  }

  /** Whether every one of these blocks of a leaf is written. */
  holds(leaf: number, blockMask: number): boolean {
    return ((this.#leaves.get(leaf)?.blockMask ?? 0) & blockMask) === blockMask;
  }

  /** Where the furthest leaf that has a block other than zero ends: what the blob must have room for. 0 when there is none. */
  get dataEnd(): number {
    let last = -1;
    for (const [index, leaf] of this.#leaves)
      if ((leaf.blockMask & ~leaf.zeroMask) !== 0) last = Math.max(last, index);
    return (last + 1) * LEAF_SIZE;
  }

  /** The newest hash of every changed leaf, ascending. */
  leafHashes(): { leaf: number; hash: Uint8Array }[] {
    return this.#sorted().map(([leaf, { hash }]) => ({ leaf, hash }));
  }

  /**
   * Changes in ascending order that don't overlap. A zero run is one clear of any length; a write is at most 4 MiB. `end` bounds a
   * trailing clear: zero blocks past the blob's body need no page.
   */
  *changes(limits: { end: number }): Generator<PageChange> {
    let change: PageChange | undefined;
    for (const { offset, block } of this.#blocks()) {
      if (offset >= limits.end) break;
      if (change !== undefined && extend(change, offset, block)) continue;
      if (change !== undefined) yield change;
      change =
        block === undefined
          ? { kind: 'clear', offset, length: BLOCK_SIZE }
          : { kind: 'write', offset, length: BLOCK_SIZE, blocks: [block] };
    }
    if (change !== undefined) yield change;
  }

  *#blocks(): Generator<{ offset: number; block: Uint8Array | undefined }> {
    for (const [leaf, { blockMask, blocks }] of this.#sorted())
      for (let block = 0; block < BLOCKS_PER_LEAF; block += 1)
        if ((blockMask & (1 << block)) !== 0)
          yield { offset: leaf * LEAF_SIZE + block * BLOCK_SIZE, block: blocks[block] };
  }

  #sorted(): [number, PendingLeaf][] {
    return [...this.#leaves].sort(([a], [b]) => a - b);
  }
}

/** The bytes of a write, in one piece. */
export function joinBlocks(change: PageChange & { kind: 'write' }): Uint8Array {
  const bytes = new Uint8Array(change.length);
  let at = 0;
  for (const block of change.blocks) {
    bytes.set(block, at);
    at += block.length;
  }
  return bytes;
}

function extend(change: PageChange, offset: number, block: Uint8Array | undefined): boolean {
  if (change.offset + change.length !== offset) return false;
  if (change.kind === 'clear') {
    if (block !== undefined) return false;
  } else {
    if (block === undefined || change.length + BLOCK_SIZE > PAGE_WRITE_MAX) return false;
    (change.blocks as Uint8Array[]).push(block);
  }
  change.length += BLOCK_SIZE;
  return true;
}
