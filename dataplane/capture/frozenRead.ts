/**
 * What a barrier reads while everything is frozen, into memory that was set aside before: nothing is allocated or sent then.
 *
 * Leaves are kept whole and hashed after the thaw, while there is room for that. Where single blocks all over the disks are dirty there
 * is not: then leaves are hashed as they are read, which takes about as long as reading them, and only their dirty blocks are kept.
 */
import { BLOCK_SIZE, BLOCKS_PER_LEAF, LEAF_SIZE, popcount16 } from '../journal/record.ts';
import { BarrierVoidError } from './barrierErrors.ts';
import { BatchSender, isZero, leafHash, ZERO_LEAF_HASH } from './batch.ts';
import type { CapturedDisk } from './disk.ts';
import { dirtyRuns, RUN_LEAVES, type Run, sampleOf } from './pass.ts';
import type { RecordSink } from './sink.ts';

export const FROZEN_BYTES_MAX = 256 << 20;
const PARALLEL_READS = 4;
const PROBE_BYTES = 16 << 20;

interface Work {
  disk: CapturedDisk;
  run: Run;
}

interface ReadLeaf {
  disk: CapturedDisk;
  leaf: number;
  mask: number;
  /** A part of the memory set aside; undefined: the leaf is zero, as most of what was discarded is. */
  bytes: Uint8Array | undefined;
  /** Of the leaf; then `bytes` are the blocks of the mask alone, one after the other. */
  hash?: Uint8Array;
}

/** Of the memory set aside, what whole leaves may fill; the rest is for what is written meanwhile. */
const WHOLE_LEAVES_SHARE = 0.75;
/** What all that is dirty may fill, seen from before the freeze, which writes a little more. */
const EXPECTED_SHARE = 0.9;
/** Leaves with more dirty blocks are kept whole: their hash would cost more than it saves. */
const PACKED_BLOCKS_MAX = 12;

export class FrozenRead {
  readonly #memory: Uint8Array;
  readonly #scratch: Uint8Array[];
  #filled = 0;
  #packs = false;
  /** By disk index and leaf: a leaf that is read again replaces what was read before. */
  readonly #leaves = new Map<string, ReadLeaf>();

  /** Set aside before the freeze. */
  constructor(disks: readonly CapturedDisk[], options: { bytes?: number } = {}) {
    this.#memory = allocate(disks, options.bytes ?? FROZEN_BYTES_MAX);
    this.#scratch = scratchFor(disks);
  }

  /** Reads all that is dirty and takes it off the dirty sets. Throws BarrierVoidError when it does not fit, or not `inTime`. */
  async take(
    disks: readonly CapturedDisk[],
    inTime: () => boolean = () => true,
  ): Promise<{ bytes: number }> {
    const work: Work[] = [];
    let leaves = 0;
    for (const disk of disks)
      for (const run of dirtyRuns(disk)) {
        leaves += run.masks.length;
        work.push({ disk, run });
        for (const [index, mask] of run.masks.entries())
          this.#expect(disk, run.firstLeaf + index, mask);
      }
    this.#packs ||= this.#filled + leaves * LEAF_SIZE > this.#memory.length * WHOLE_LEAVES_SHARE;
    await readAll(work, this.#scratch, (next, bytes) => {
      if (!inTime()) throw tooMuch('could be read in time');
      this.#keepAll(next, bytes);
    });
    return { bytes: leaves * LEAF_SIZE };
  }

  /** The barrier is void: everything it read is dirty again. */
  giveBack(): void {
    for (const { disk, leaf, mask } of this.#leaves.values()) disk.dirt.giveBack(leaf, mask);
    this.#leaves.clear();
  }

  /** Hashes and sends it, after the thaw. */
  async send(sink: RecordSink): Promise<void> {
    const sender = new BatchSender(sink);
    try {
      const unpacked = new Uint8Array(LEAF_SIZE);
      for (const [key, { disk, leaf, mask, bytes, hash }] of this.#leaves) {
        this.#leaves.delete(key);
        if (bytes === undefined)
          await sender.add(disk, { leaf, mask, bytes: zeroLeaf, hash: ZERO_LEAF_HASH });
        else if (hash === undefined) await sender.add(disk, { leaf, mask, bytes });
        else await sender.add(disk, { leaf, mask, bytes: unpack(bytes, mask, unpacked), hash });
      }
      await sender.flush();
    } catch (error) {
      await sender.abandon();
      this.giveBack();
      throw error;
    }
  }

  /** Not dirty any more before it is read, but ours to give back. */
  #expect(disk: CapturedDisk, leaf: number, mask: number): void {
    disk.dirt.take(leaf, mask);
    const key = `${disk.index}:${leaf}`;
    const before = this.#leaves.get(key);
    if (before === undefined) this.#leaves.set(key, { disk, leaf, mask, bytes: undefined });
    else before.mask |= mask;
  }

  #keepAll({ disk, run }: Work, bytes: Uint8Array): void {
    for (let index = 0; index < run.masks.length; index += 1) {
      const entry = this.#leaves.get(`${disk.index}:${run.firstLeaf + index}`);
      if (entry !== undefined)
        this.#keep(entry, bytes.subarray(index * LEAF_SIZE, (index + 1) * LEAF_SIZE));
    }
  }

  #keep(entry: ReadLeaf, content: Uint8Array): void {
    if (entry.bytes === undefined && isZero(content)) return;
    if (this.#packs && isPacked(entry.mask)) {
      // Read again, it may have more blocks than there was room for.
      entry.bytes = this.#reserve(popcount16(entry.mask) * BLOCK_SIZE);
      entry.hash = leafHash(content);
      pack(content, entry.mask, entry.bytes);
      return;
    }
    if (entry.bytes?.length !== LEAF_SIZE) entry.bytes = this.#reserve(LEAF_SIZE);
    delete entry.hash;
    entry.bytes.set(content);
  }

  #reserve(bytes: number): Uint8Array {
    if (this.#filled + bytes > this.#memory.length)
      throw tooMuch(`fits the ${this.#memory.length >> 20} MiB set aside`);
    this.#filled += bytes;
    return this.#memory.subarray(this.#filled - bytes, this.#filled);
  }
}

function tooMuch(limit: string): BarrierVoidError {
  return new BarrierVoidError(
    'BehindTheLink',
    `More was written since the last pass than ${limit}, to be read while frozen. The barrier is tried again once the link has caught up.`,
  );
}

/** Whether all that is dirty could be kept in so many bytes, where this share of the leaves is zero. */
export function frozenReadFits(
  disks: readonly CapturedDisk[],
  memory: { bytes: number; zeroShare: number },
): boolean {
  let whole = 0;
  let packed = 0;
  for (const disk of disks)
    for (const [, mask] of disk.dirt.dirty.leaves()) {
      whole += LEAF_SIZE;
      packed += isPacked(mask) ? popcount16(mask) * BLOCK_SIZE : LEAF_SIZE;
    }
  const kept = 1 - memory.zeroShare;
  return (
    whole <= memory.bytes * WHOLE_LEAVES_SHARE || packed * kept <= memory.bytes * EXPECTED_SHARE
  );
}

/** Reads some of what is dirty, on all disks, as `take` would, to see how long that takes and what is zero, and takes nothing. */
export async function probeReading(
  disks: readonly CapturedDisk[],
): Promise<{ bytes: number; zeroShare: number }> {
  const each = PROBE_BYTES / disks.length;
  const work = disks.flatMap((disk) =>
    [...sampleOf(() => dirtyRuns(disk), each)].map((run) => ({ disk, run })),
  );
  let bytes = 0;
  for (const { run } of work) bytes += run.masks.length * LEAF_SIZE;
  let zero = 0;
  await readAll(work, scratchFor(disks), (next, content) => {
    for (let at = 0; at < content.length; at += LEAF_SIZE) {
      const leaf = content.subarray(at, at + LEAF_SIZE);
      if (isZero(leaf)) zero += LEAF_SIZE;
      else if (isPacked(next.run.masks[at / LEAF_SIZE] ?? 0)) leafHash(leaf);
    }
  });
  return { bytes, zeroShare: bytes === 0 ? 0 : zero / bytes };
}

async function readAll(
  work: Work[],
  scratch: readonly Uint8Array[],
  each: (work: Work, bytes: Uint8Array) => void,
): Promise<void> {
  const readers = scratch.map(async (buffer) => {
    for (let next = work.pop(); next !== undefined; next = work.pop()) {
      const bytes = buffer.subarray(0, next.run.masks.length * LEAF_SIZE);
      await next.disk.readLeaves(bytes, next.run.firstLeaf);
      each(next, bytes);
    }
  });
  const results = await Promise.allSettled(readers);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

function allocate(disks: readonly CapturedDisk[], size: number): Uint8Array {
  return disks[0]?.device.alignedBuffer(size) ?? new Uint8Array(0);
}

function scratchFor(disks: readonly CapturedDisk[]): Uint8Array[] {
  return Array.from({ length: PARALLEL_READS }, () => allocate(disks, RUN_LEAVES * LEAF_SIZE));
}

function isPacked(mask: number): boolean {
  return popcount16(mask) <= PACKED_BLOCKS_MAX;
}

/** The blocks of the mask, one after the other. */
function pack(leaf: Uint8Array, mask: number, into: Uint8Array): void {
  let at = 0;
  for (const start of blocksOf(mask)) {
    into.set(leaf.subarray(start, start + BLOCK_SIZE), at);
    at += BLOCK_SIZE;
  }
}

/** Where they belong in a leaf; all else in it is zero, as what lies past a disk's end must be. */
function unpack(blocks: Uint8Array, mask: number, leaf: Uint8Array): Uint8Array {
  leaf.fill(0);
  let at = 0;
  for (const start of blocksOf(mask)) {
    leaf.set(blocks.subarray(at, at + BLOCK_SIZE), start);
    at += BLOCK_SIZE;
  }
  return leaf;
}

function* blocksOf(mask: number): Generator<number> {
  for (let block = 0; block < BLOCKS_PER_LEAF; block += 1)
    if ((mask & (1 << block)) !== 0) yield block * BLOCK_SIZE;
}

const zeroLeaf = new Uint8Array(LEAF_SIZE);
