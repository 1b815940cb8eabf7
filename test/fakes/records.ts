import { createHash } from 'node:crypto';
import {
  BLOCK_SIZE,
  DATA_HEADER_SIZE,
  encodeControlRecord,
  encodeDataHeader,
  type JournalRecord,
  LEAF_SIZE,
  RecordKind,
} from '../../dataplane/journal/record.ts';

const ZERO_BLOCK = new Uint8Array(BLOCK_SIZE);

/** A source disk in memory that says what an agent would send of it. */
export class SourceDisk {
  readonly index: number;
  readonly bytes: Uint8Array;

  constructor(options: { index: number; sizeBytes: number }) {
    this.index = options.index;
    this.bytes = new Uint8Array(options.sizeBytes);
  }

  leaf(leaf: number): Uint8Array {
    const padded = new Uint8Array(LEAF_SIZE);
    padded.set(this.bytes.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE));
    return padded;
  }

  leafHash(leaf: number): Uint8Array {
    return new Uint8Array(createHash('sha256').update(this.leaf(leaf)).digest());
  }

  /** A Data record of these blocks of a leaf as they are now. */
  record(leaf: number, blockMask = 0xffff): Uint8Array {
    const content = this.leaf(leaf);
    const blocks: Uint8Array[] = [];
    let zeroMask = 0;
    for (let block = 0; block < 16; block++) {
      if ((blockMask & (1 << block)) === 0) continue;
      const bytes = content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
      if (Buffer.compare(bytes, ZERO_BLOCK) === 0) zeroMask |= 1 << block;
      else blocks.push(bytes);
    }
    const record = new Uint8Array(DATA_HEADER_SIZE + blocks.length * BLOCK_SIZE);
    const leafHash = this.leafHash(leaf);
    encodeDataHeader(record, 0, { disk: this.index, leaf, blockMask, zeroMask, leafHash });
    for (const [i, bytes] of blocks.entries()) record.set(bytes, DATA_HEADER_SIZE + i * BLOCK_SIZE);
    return record;
  }
}

export function resyncBegin(reason = 'Initial'): Uint8Array {
  return encodeControlRecord({ kind: RecordKind.ResyncBegin, reason });
}

export function resyncEnd(): Uint8Array {
  return encodeControlRecord({ kind: RecordKind.ResyncEnd });
}

/** Records in one buffer. */
export function joined(...records: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(records));
}

/** Applies records to disks, as an applier would. */
export function applyRecord(record: JournalRecord, disks: ReadonlyMap<number, Uint8Array>): void {
  if (record.kind !== RecordKind.Data) return;
  const disk = disks.get(record.disk);
  if (disk === undefined) return;
  let taken = 0;
  for (let block = 0; block < 16; block++) {
    if ((record.blockMask & (1 << block)) === 0) continue;
    const at = record.leaf * LEAF_SIZE + block * BLOCK_SIZE;
    const room = Math.max(0, Math.min(BLOCK_SIZE, disk.length - at));
    if ((record.zeroMask & (1 << block)) !== 0) disk.fill(0, at, at + room);
    else {
      disk.set(record.blocks.subarray(taken, taken + room), at);
      taken += BLOCK_SIZE;
    }
  }
}
