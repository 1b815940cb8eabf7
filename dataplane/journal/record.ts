/**
 * Journal records: the unit that an LSN counts, in the wire's Data frames, in the process server's cache and in segments alike,
 * byte for byte, so that nothing re-encodes them on the way.
 *
 * All integers little-endian. A record is
 *
 *   offset size
 *   0      1    kind          1 Data, 2 ResyncBegin, 3 ResyncEnd, 4 Barrier
 *   1      1    disk          index in the catalog; 0 for kinds 2, 3 and 4
 *   2      2    blockMask     Data: bit i set = block i of the leaf is in this record
 *   4      2    zeroMask      Data: subset of blockMask; these blocks are zero and carry no bytes
 *   6      2    0
 *   8      4    leaf          Data: index of the 64 KiB leaf on the disk
 *   12     4    payloadLength
 *   16     32   leafHash      Data only: SHA-256 of the whole leaf as the source was read (zero-padded past the disk's end)
 *   …      payloadLength
 *
 * Payload of Data: the blocks of blockMask & ~zeroMask in ascending order, 4096 bytes each.
 * Payload of ResyncBegin: UTF-8 reason. ResyncEnd: empty. Barrier: UTF-8 JSON, `barrierSchema`.
 *
 * The LSN is not stored: a batch names its first one. A leaf hash counts only at the next barrier, unless the record holds the
 * whole leaf (blockMask 0xffff): between barriers a hash may cover a block whose bytes are still to come (docs/INVARIANTS.md).
 */
import { z } from 'zod';
import { FarshoreError } from '../../platform/errors.ts';

export const BLOCK_SIZE = 4096;
export const LEAF_SIZE = 65536;
export const BLOCKS_PER_LEAF = 16;
export const HASH_SIZE = 32;
export const RECORD_HEADER_SIZE = 16;
export const DATA_HEADER_SIZE = RECORD_HEADER_SIZE + HASH_SIZE;
/** Reasons and barriers are small; anything longer is damage. */
const CONTROL_PAYLOAD_MAX = 64 * 1024;

export const RecordKind = { Data: 1, ResyncBegin: 2, ResyncEnd: 3, Barrier: 4 } as const;

export interface DataRecord {
  kind: typeof RecordKind.Data;
  disk: number;
  leaf: number;
  blockMask: number;
  zeroMask: number;
  /** 32 bytes. A view into the decoded buffer. */
  leafHash: Uint8Array;
  /** A view into the decoded buffer. */
  blocks: Uint8Array;
}

export interface ResyncBeginRecord {
  kind: typeof RecordKind.ResyncBegin;
  reason: string;
}

export interface ResyncEndRecord {
  kind: typeof RecordKind.ResyncEnd;
}

export interface BarrierRecord {
  kind: typeof RecordKind.Barrier;
  barrier: Barrier;
}

export type JournalRecord = DataRecord | ResyncBeginRecord | ResyncEndRecord | BarrierRecord;

export const barrierSchema = z.object({
  /** The process server's clock when the freeze was asked for; never goes back within a machine. */
  timeMs: z.number().int().nonnegative(),
  consistency: z.enum(['Crash', 'App']),
  /** Merkle root of each disk, over the body padded to whole MiB (merkle.ts), computed from the source's reads. */
  disks: z
    .array(
      z.object({
        index: z.number().int().min(0).max(63),
        sizeBytes: z.number().int().positive(),
        root: z.string().regex(/^[0-9a-f]{64}$/),
      }),
    )
    .min(1)
    .max(64),
  /** The last barrier of a planned failover: the source stays frozen after it. */
  final: z.object({ failover: z.string() }).optional(),
  freezeMs: z.number().nonnegative(),
});
export type Barrier = z.infer<typeof barrierSchema>;

/** Bytes that can't be a record: damage, or a peer that does not speak the format. */
export class RecordError extends FarshoreError {
  constructor(problem: string, options?: ErrorOptions) {
    super('RecordInvalid', `Journal record is damaged: ${problem}.`, options);
  }
}

/**
 * Decodes the record at `offset`; returns it and the offset after it. Views into `bytes`, nothing is copied.
 * Throws RecordError for anything that the layout above does not allow.
 */
export function decodeRecord(
  bytes: Uint8Array,
  offset: number,
): { record: JournalRecord; next: number } {
  if (offset + RECORD_HEADER_SIZE > bytes.length) throw new RecordError('it ends inside a header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = view.getUint8(offset);
  const disk = view.getUint8(offset + 1);
  const blockMask = view.getUint16(offset + 2, true);
  const zeroMask = view.getUint16(offset + 4, true);
  const reserved = view.getUint16(offset + 6, true);
  const leaf = view.getUint32(offset + 8, true);
  const payloadLength = view.getUint32(offset + 12, true);
  if (reserved !== 0) throw new RecordError('reserved bits are set');
  if (kind === RecordKind.Data) {
    if (disk > 63) throw new RecordError(`disk index ${disk}`);
    if (blockMask === 0 || (zeroMask & ~blockMask) !== 0)
      throw new RecordError('its block masks contradict each other');
    if (payloadLength !== popcount16(blockMask & ~zeroMask) * BLOCK_SIZE)
      throw new RecordError('its length does not match its block mask');
    const payload = offset + DATA_HEADER_SIZE;
    const next = payload + payloadLength;
    if (next > bytes.length) throw new RecordError('it ends inside its blocks');
    const leafHash = bytes.subarray(offset + RECORD_HEADER_SIZE, payload);
    return {
      record: {
        kind,
        disk,
        leaf,
        blockMask,
        zeroMask,
        leafHash,
        blocks: bytes.subarray(payload, next),
      },
      next,
    };
  }
  if (disk !== 0 || blockMask !== 0 || zeroMask !== 0 || leaf !== 0)
    throw new RecordError(`kind ${kind} with data fields`);
  if (payloadLength > CONTROL_PAYLOAD_MAX)
    throw new RecordError(`kind ${kind} of ${payloadLength} bytes`);
  const payload = offset + RECORD_HEADER_SIZE;
  const next = payload + payloadLength;
  if (next > bytes.length) throw new RecordError('it ends inside its payload');
  const text = () => decodeText(bytes.subarray(payload, next));
  switch (kind) {
    case RecordKind.ResyncBegin:
      return { record: { kind, reason: text() }, next };
    case RecordKind.ResyncEnd:
      if (payloadLength !== 0) throw new RecordError('ResyncEnd with a payload');
      return { record: { kind }, next };
    case RecordKind.Barrier:
      return { record: { kind, barrier: decodeBarrier(text()) }, next };
    default:
      throw new RecordError(`unknown kind ${kind}`);
  }
}

/**
 * Bytes of the whole record whose header is at `offset` and complete; the record itself may be cut. Checks only what bounds the
 * length; throws RecordError.
 */
export function recordLength(bytes: Uint8Array, offset: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, RECORD_HEADER_SIZE);
  const payloadLength = view.getUint32(12, true);
  const isData = view.getUint8(0) === RecordKind.Data;
  if (payloadLength > (isData ? LEAF_SIZE : CONTROL_PAYLOAD_MAX))
    throw new RecordError(`it claims ${payloadLength} bytes`);
  return (isData ? DATA_HEADER_SIZE : RECORD_HEADER_SIZE) + payloadLength;
}

/** Writes a Data record's header (48 bytes) at `offset`; the caller places the blocks right behind it. */
export function encodeDataHeader(
  into: Uint8Array,
  offset: number,
  record: { disk: number; leaf: number; blockMask: number; zeroMask: number; leafHash: Uint8Array },
): void {
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  view.setUint8(offset, RecordKind.Data);
  view.setUint8(offset + 1, record.disk);
  view.setUint16(offset + 2, record.blockMask, true);
  view.setUint16(offset + 4, record.zeroMask, true);
  view.setUint16(offset + 6, 0, true);
  view.setUint32(offset + 8, record.leaf, true);
  view.setUint32(offset + 12, popcount16(record.blockMask & ~record.zeroMask) * BLOCK_SIZE, true);
  into.set(record.leafHash, offset + RECORD_HEADER_SIZE);
}

/** A whole record that carries no blocks. */
export function encodeControlRecord(record: Exclude<JournalRecord, DataRecord>): Uint8Array {
  const payload = new TextEncoder().encode(controlPayload(record));
  const bytes = new Uint8Array(RECORD_HEADER_SIZE + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, record.kind);
  view.setUint32(12, payload.length, true);
  bytes.set(payload, RECORD_HEADER_SIZE);
  return bytes;
}

export function popcount16(mask: number): number {
  let count = mask - ((mask >> 1) & 0x5555);
  count = (count & 0x3333) + ((count >> 2) & 0x3333);
  count = (count + (count >> 4)) & 0x0f0f;
  return (count + (count >> 8)) & 0x1f;
}

function controlPayload(record: Exclude<JournalRecord, DataRecord>): string {
  switch (record.kind) {
    case RecordKind.ResyncBegin:
      return record.reason;
    case RecordKind.ResyncEnd:
      return '';
    case RecordKind.Barrier:
      return JSON.stringify(record.barrier);
  }
}

function decodeBarrier(text: string): Barrier {
  try {
    return barrierSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new RecordError('its barrier can not be read', { cause });
  }
}

function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new RecordError('its text is not UTF-8', { cause });
  }
}
