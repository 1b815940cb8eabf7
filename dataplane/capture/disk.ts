/**
 * One protected disk as capture sees it: the device, what is dirty, the proof of its tracking, and how its canonical image differs
 * from the device (the body of swap areas is zero).
 */
import type { BlockDevice, BlockDeviceIdentity, Clock, WriteEvent } from '../../platform/ports.ts';
import { BLOCK_SIZE, BLOCKS_PER_LEAF, LEAF_SIZE } from '../journal/record.ts';
import { type SavedAccount, SectorAccount, TrackingLostError } from './accounting.ts';
import { Dirt } from './dirt.ts';
import { ReadThrottle } from './throttle.ts';

const SECTOR_SIZE = 512;

export interface ByteRange {
  offset: number;
  length: number;
}

export class CapturedDisk {
  /** Position in every journal record. */
  readonly index: number;
  readonly device: BlockDevice;
  readonly identity: BlockDeviceIdentity;
  readonly dirt: Dirt;
  readonly account: SectorAccount;
  /** Swap bodies, in order. */
  #zeroed: readonly ByteRange[];
  #raidRecords: readonly ByteRange[];
  #throttle: ReadThrottle | undefined;

  constructor(options: {
    index: number;
    device: BlockDevice;
    identity: BlockDeviceIdentity;
    account?: SavedAccount;
    /** As they were when the former agent of these disks saved it. */
    zeroed?: readonly ByteRange[];
    raidRecords?: readonly ByteRange[];
  }) {
    this.index = options.index;
    this.device = options.device;
    this.identity = options.identity;
    this.dirt = new Dirt(options.identity);
    this.#zeroed = options.zeroed ?? [];
    this.#raidRecords = options.raidRecords ?? [];
    this.account = new SectorAccount({
      name: options.device.path,
      ...(options.account === undefined ? {} : { saved: options.account }),
    });
  }

  get leafCount(): number {
    return this.dirt.dirty.leafCount;
  }

  get zeroed(): readonly ByteRange[] {
    return this.#zeroed;
  }

  /** Of passes and the scrub: how fast this disk normally is, is remembered from one to the next. */
  throttle(clock: Clock): ReadThrottle {
    this.#throttle ??= new ReadThrottle(clock);
    return this.#throttle;
  }

  /** Swap came or went: what lies there has another canonical content now, and is sent again. */
  setZeroed(ranges: readonly ByteRange[]): void {
    const sorted = [...ranges].sort((a, b) => a.offset - b.offset);
    const key = (range: ByteRange) => `${range.offset}+${range.length}`;
    const before = new Set(this.#zeroed.map(key));
    const after = new Set(sorted.map(key));
    const changed = [
      ...this.#zeroed.filter((range) => !after.has(key(range))),
      ...sorted.filter((range) => !before.has(key(range))),
    ];
    this.#zeroed = sorted;
    for (const range of changed) this.dirt.dirty.addBytes(range);
  }

  /** Where the kernel keeps a software RAID's own records. */
  get raidRecords(): readonly ByteRange[] {
    return this.#raidRecords;
  }

  setRaidRecords(ranges: readonly ByteRange[]): void {
    this.#raidRecords = ranges;
  }

  /** Whether all that an event touched is the kernel's own, not what a filesystem or a program keeps there. */
  isRaidRecord(event: WriteEvent): boolean {
    return within(bytesOf(event), this.#raidRecords);
  }

  /** Of what is dirty, all but a RAID's own records: what somebody wrote. */
  get foreignDirtyBytes(): number {
    const { dirty } = this.dirt;
    if (dirty.size === 0 || this.#raidRecords.length === 0) return dirty.bytes;
    let blocks = 0;
    for (const [leaf, mask] of dirty.leaves())
      for (let block = 0; block < BLOCKS_PER_LEAF; block += 1) {
        if ((mask & (1 << block)) === 0) continue;
        const range = { offset: leaf * LEAF_SIZE + block * BLOCK_SIZE, length: BLOCK_SIZE };
        if (!within(range, this.#raidRecords)) blocks += 1;
      }
    return blocks * BLOCK_SIZE;
  }

  /** Marks what an event touched. Returns false when it lies wholly in a swap body, whose content is never kept. */
  markDirty(event: WriteEvent): boolean {
    if (within(bytesOf(event), this.#zeroed)) return false;
    this.dirt.dirty.addBytes(bytesOf(event));
    return true;
  }

  /**
   * Reads leaves as the canonical image has them: swap bodies zero, zero-padded past the disk's end. `into` holds them exactly and
   * comes from `device.alignedBuffer`.
   */
  async readLeaves(into: Uint8Array, firstLeaf: number): Promise<void> {
    const start = firstLeaf * LEAF_SIZE;
    const available = Math.min(into.length, this.identity.sizeBytes - start);
    const read = await this.device.read(
      available === into.length ? into : into.subarray(0, available),
      start,
    );
    if (read < available)
      throw new TrackingLostError(
        `${this.device.path} ended at byte ${start + read}, before its size of ${this.identity.sizeBytes} bytes`,
      );
    into.fill(0, available);
    for (const zero of this.#zeroed) {
      const from = Math.max(0, zero.offset - start);
      const to = Math.min(into.length, zero.offset + zero.length - start);
      if (from < to) into.fill(0, from, to);
    }
  }
}

function bytesOf(event: WriteEvent): ByteRange {
  return { offset: event.sector * SECTOR_SIZE, length: event.sectorCount * SECTOR_SIZE };
}

function within({ offset, length }: ByteRange, ranges: readonly ByteRange[]): boolean {
  return ranges.some(
    (range) => offset >= range.offset && offset + length <= range.offset + range.length,
  );
}
