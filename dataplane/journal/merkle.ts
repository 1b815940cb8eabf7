/**
 * The Merkle root of a disk: what makes a recovery point provable.
 *
 *   body   the disk's bytes, zero-padded to a whole MiB: the body of its fixed VHD
 *   leaf   SHA-256 of 64 KiB of the body
 *   inner  SHA-256(0x01 | left | right); the last node of an odd level is promoted unchanged
 *   root   SHA-256("farshore-root-v1" | u64le size of the body | top)
 *
 * Wherever leaf hashes are stored (`LeafHashes`), 32 zero bytes stand for a leaf of zeros, so that a sparse disk has a sparse table.
 * A chunk is 1024 leaves (64 MiB of disk): a power of two, so its subtree is a node of the whole tree.
 */
import { createHash, hash } from 'node:crypto';
import { HASH_SIZE, LEAF_SIZE } from './record.ts';

export const BODY_UNIT = 1 << 20;
export const CHUNK_LEAVES = 1024;
/** The largest disk that Azure imports (32 TiB); what every table and tree is bounded by. */
export const DISK_SIZE_MAX = 32 * 2 ** 40;

const ROOT_PREFIX = 'farshore-root-v1';
const NODE_SIZE = 1 + 2 * HASH_SIZE;
const CHUNK_LEVELS = 10;

/** SHA-256 of 64 KiB of zeros: what an all-zero entry stands for. */
export const ZERO_LEAF_HASH: Uint8Array = sha256(new Uint8Array(LEAF_SIZE));
/** Stands for ZERO_LEAF_HASH in tables. */
export const ZERO_ENTRY: Uint8Array = new Uint8Array(HASH_SIZE);

const zeroChunk = new Uint8Array(CHUNK_LEAVES * HASH_SIZE);
/** Root of 2^level zero leaves. */
const zeroRoots: Uint8Array[] = [ZERO_LEAF_HASH];
/** Root of a chunk of n zero leaves, for the n that were asked for: a full one and the last ones of disks. */
const zeroChunkRoots = new Map<number, Uint8Array>();

/** Bytes of the padded body of a disk. */
export function paddedSize(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BODY_UNIT) * BODY_UNIT;
}

/** Leaves of the padded body. */
export function leafCount(sizeBytes: number): number {
  return paddedSize(sizeBytes) / LEAF_SIZE;
}

/** SHA-256 of a leaf's 64 KiB. */
export function hashLeaf(leaf: Uint8Array): Uint8Array {
  return sha256(leaf);
}

/** A hash as tables hold it: 32 zero bytes for a leaf of zeros, else the hash itself. */
export function leafEntry(leafHash: Uint8Array): Uint8Array {
  return sameBytes(leafHash, ZERO_LEAF_HASH) ? ZERO_ENTRY : leafHash;
}

/** Where a tree reads leaf hashes: 32 bytes a leaf, zeros for a leaf of zeros. */
export interface LeafHashes {
  /** `count` ≤ CHUNK_LEAVES. The result is `count` × 32 bytes and is not kept. */
  read(firstLeaf: number, count: number): Promise<Uint8Array>;
}

/**
 * The tree of one disk, kept as chunk roots (32 bytes for each 64 MiB): a root costs only the chunks that changed since the last one.
 * `known: 'zero'` says that every leaf is zero as yet; `'unread'` makes the first root read the whole table.
 */
export class DiskTree {
  #sizeBytes: number;
  #chunkRoots: (Uint8Array | undefined)[];
  #changed = new Set<number>();

  constructor(options: { sizeBytes: number; known: 'zero' | 'unread' }) {
    checkDiskSize(options.sizeBytes);
    this.#sizeBytes = options.sizeBytes;
    const chunks = chunkCount(options.sizeBytes);
    this.#chunkRoots = new Array(chunks).fill(undefined);
    if (options.known === 'unread') this.markAllChanged();
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  markChanged(leaf: number): void {
    this.#changed.add(Math.floor(leaf / CHUNK_LEAVES));
  }

  markAllChanged(): void {
    for (let chunk = 0; chunk < this.#chunkRoots.length; chunk++) this.#changed.add(chunk);
  }

  /** New leaves are zero, leaves past a smaller end are forgotten. The chunks at both ends are read again. */
  resize(sizeBytes: number): void {
    checkDiskSize(sizeBytes);
    const last = [this.#chunkRoots.length - 1, chunkCount(sizeBytes) - 1];
    this.#sizeBytes = sizeBytes;
    const kept = this.#chunkRoots.slice(0, chunkCount(sizeBytes));
    while (kept.length < chunkCount(sizeBytes)) kept.push(undefined);
    this.#chunkRoots = kept;
    for (const chunk of [...this.#changed]) if (chunk >= kept.length) this.#changed.delete(chunk);
    for (const chunk of last) if (chunk >= 0 && chunk < kept.length) this.#changed.add(chunk);
  }

  /** The root, hex. Leaves must not change while it is computed. */
  async root(hashes: LeafHashes): Promise<string> {
    for (const chunk of [...this.#changed].sort((a, b) => a - b)) {
      const first = chunk * CHUNK_LEAVES;
      const count = this.#leavesOf(chunk);
      this.#chunkRoots[chunk] = chunkRoot(await hashes.read(first, count), count);
      this.#changed.delete(chunk);
    }
    return finishRoot(
      this.#sizeBytes,
      this.#chunkRoots.map((root, chunk) => root ?? zeroChunkRoot(this.#leavesOf(chunk))),
    );
  }

  #leavesOf(chunk: number): number {
    return leavesOfChunk(this.#sizeBytes, chunk);
  }
}

/**
 * Computes a root from a disk's bytes, fed in ascending order; what is left out is zero. Used where nothing but the bytes is trusted.
 *
 * `onLeaves` gets every leaf's entry (zeros for a leaf of zeros) in order, at most CHUNK_LEAVES at a time: compare them with a stored
 * table to say which leaf is wrong. The array is reused after the call.
 */
export class RootBuilder {
  readonly #sizeBytes: number;
  readonly #onLeaves: ((firstLeaf: number, entries: Uint8Array) => void) | undefined;
  readonly #chunkRoots: Uint8Array[] = [];
  readonly #entries = new Uint8Array(CHUNK_LEAVES * HASH_SIZE);
  #entriesUsed = false;
  readonly #leaf = new Uint8Array(LEAF_SIZE);
  #leafUsed = false;
  #position = 0;

  constructor(options: {
    sizeBytes: number;
    onLeaves?: (firstLeaf: number, entries: Uint8Array) => void;
  }) {
    checkDiskSize(options.sizeBytes);
    this.#sizeBytes = options.sizeBytes;
    this.#onLeaves = options.onLeaves;
  }

  /** Throws RangeError for bytes before what was fed already or past the padded body's end. */
  add(offset: number, bytes: Uint8Array): void {
    if (offset < this.#position || offset + bytes.length > paddedSize(this.#sizeBytes))
      throw new RangeError(`bytes ${offset}+${bytes.length} are out of order or past the disk`);
    this.#skipTo(offset);
    let taken = 0;
    while (taken < bytes.length) {
      const within = this.#position % LEAF_SIZE;
      const count = Math.min(LEAF_SIZE - within, bytes.length - taken);
      const piece = bytes.subarray(taken, taken + count);
      if (count === LEAF_SIZE) this.#setEntry(piece);
      else {
        this.#leaf.set(piece, within);
        this.#leafUsed = true;
      }
      taken += count;
      this.#advance(this.#position + count);
    }
  }

  /** The root, hex. The builder can't be used afterwards. */
  finish(): string {
    this.#skipTo(paddedSize(this.#sizeBytes));
    if (this.#chunkRoots.length < chunkCount(this.#sizeBytes)) this.#endChunk();
    return finishRoot(this.#sizeBytes, this.#chunkRoots);
  }

  /** Zeros up to `offset`: a leaf in work is padded, whole leaves and chunks cost nothing. */
  #skipTo(offset: number): void {
    while (this.#position < offset) {
      const leafEnd = (Math.floor(this.#position / LEAF_SIZE) + 1) * LEAF_SIZE;
      const chunkEnd = chunkEndAfter(this.#position);
      const leafInWork = this.#leafUsed || this.#position % LEAF_SIZE !== 0;
      this.#advance(Math.min(offset, leafInWork ? leafEnd : chunkEnd));
    }
  }

  #advance(position: number): void {
    const before = this.#position;
    if (Math.floor(position / LEAF_SIZE) > Math.floor(before / LEAF_SIZE) && this.#leafUsed) {
      this.#setEntry(this.#leaf);
      this.#leaf.fill(0);
      this.#leafUsed = false;
    }
    this.#position = position;
    if (position === chunkEndAfter(before)) this.#endChunk();
  }

  #setEntry(leaf: Uint8Array): void {
    const entry = leafEntry(sha256(leaf));
    const index = Math.floor(this.#position / LEAF_SIZE) % CHUNK_LEAVES;
    this.#entries.set(entry, index * HASH_SIZE);
    if (entry !== ZERO_ENTRY) this.#entriesUsed = true;
  }

  #endChunk(): void {
    const chunk = this.#chunkRoots.length;
    const count = leavesOfChunk(this.#sizeBytes, chunk);
    const entries = this.#entries.subarray(0, count * HASH_SIZE);
    this.#chunkRoots.push(this.#entriesUsed ? chunkRoot(entries, count) : zeroChunkRoot(count));
    this.#onLeaves?.(chunk * CHUNK_LEAVES, entries);
    this.#entries.fill(0);
    this.#entriesUsed = false;
  }
}

/** The first chunk border after a position. */
function chunkEndAfter(position: number): number {
  const chunkBytes = CHUNK_LEAVES * LEAF_SIZE;
  return (Math.floor(position / chunkBytes) + 1) * chunkBytes;
}

function checkDiskSize(sizeBytes: number): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes > DISK_SIZE_MAX)
    throw new RangeError(`a disk of ${sizeBytes} bytes`);
}

function chunkCount(sizeBytes: number): number {
  return Math.ceil(leafCount(sizeBytes) / CHUNK_LEAVES);
}

function leavesOfChunk(sizeBytes: number, chunk: number): number {
  return Math.min(CHUNK_LEAVES, leafCount(sizeBytes) - chunk * CHUNK_LEAVES);
}

/** Root of `count` leaves given as table entries. */
function chunkRoot(entries: Uint8Array, count: number): Uint8Array {
  if (entries.length !== count * HASH_SIZE)
    throw new RangeError(`${entries.length} bytes of hashes for ${count} leaves`);
  if (isZero(entries)) return zeroChunkRoot(count);
  const level: Uint8Array[] = [];
  for (let leaf = 0; leaf < count; leaf++) {
    const entry = entries.subarray(leaf * HASH_SIZE, (leaf + 1) * HASH_SIZE);
    level.push(isZero(entry) ? ZERO_LEAF_HASH : entry);
  }
  return reduce(level, 0);
}

/** Zero subtrees are recognised by identity with the memo, so runs of zeros cost no hashing. */
function reduce(nodes: Uint8Array[], firstLevel: number): Uint8Array {
  let level = nodes;
  const joined = new Uint8Array(NODE_SIZE);
  joined[0] = 1;
  for (let height = firstLevel; level.length > 1; height++) {
    const zero = zeroRoot(height);
    const next: Uint8Array[] = [];
    for (let i = 0; i + 1 < level.length; i += 2) {
      const left = level[i] as Uint8Array;
      const right = level[i + 1] as Uint8Array;
      next.push(
        left === zero && right === zero ? zeroRoot(height + 1) : inner(joined, left, right),
      );
    }
    if (level.length % 2 === 1) next.push(level[level.length - 1] as Uint8Array);
    level = next;
  }
  return level[0] as Uint8Array;
}

function inner(joined: Uint8Array, left: Uint8Array, right: Uint8Array): Uint8Array {
  joined.set(left, 1);
  joined.set(right, 1 + HASH_SIZE);
  return sha256(joined);
}

function zeroRoot(level: number): Uint8Array {
  for (let height = zeroRoots.length; height <= level; height++) {
    const joined = new Uint8Array(NODE_SIZE);
    joined[0] = 1;
    const below = zeroRoots[height - 1] as Uint8Array;
    zeroRoots.push(inner(joined, below, below));
  }
  return zeroRoots[level] as Uint8Array;
}

function zeroChunkRoot(count: number): Uint8Array {
  if (count === CHUNK_LEAVES) return zeroRoot(CHUNK_LEVELS);
  let root = zeroChunkRoots.get(count);
  if (root === undefined) {
    root = reduce(new Array<Uint8Array>(count).fill(ZERO_LEAF_HASH), 0);
    zeroChunkRoots.set(count, root);
  }
  return root;
}

function finishRoot(sizeBytes: number, chunkRoots: Uint8Array[]): string {
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(paddedSize(sizeBytes)), true);
  return createHash('sha256')
    .update(ROOT_PREFIX)
    .update(size)
    .update(reduce(chunkRoots, CHUNK_LEVELS))
    .digest('hex');
}

function sha256(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer');
}

export function isZero(bytes: Uint8Array): boolean {
  return bytes.length <= zeroChunk.length
    ? sameBytes(bytes, zeroChunk.subarray(0, bytes.length))
    : bytes.every((byte) => byte === 0);
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
