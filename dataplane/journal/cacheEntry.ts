/**
 * The process server's log on its cache disk: bytes of one entry and of a file's header. Never leaves that disk; cacheLog.ts writes it,
 * cacheRecovery.ts reads it after a crash. All integers little-endian; entries begin at multiples of 64 bytes, zero-padded.
 *
 *   file header (64 bytes)                                  entry header (64 bytes), payload behind it
 *   0   8   magic "FARSLOG\n"                                0   4   magic "FLE1"
 *   8   2   version 1                                        4   4   CRC-32 of bytes 8–63
 *   10  6   0                                                8   4   CRC-32 of the payload
 *   16  16  cacheId                                          12  4   payload length
 *   32  8   number of this file                              16  4   record count
 *   40  8   size of the file before it, when this began      20  4   0
 *   48  4   CRC-32 of bytes 0–47                             24  16  machineId
 *   52  12  0                                                40  8   incarnation of the machine's local state
 *                                                            48  8   first LSN
 *                                                            56  8   durable: the file was synced up to here when this was written
 *
 * `durable` is what tells a torn tail from damage: bytes that do not add up were never acknowledged unless a later entry says so.
 */
import { crc32 } from 'node:zlib';

export const LOG_VERSION = 1;
export const LOG_HEADER_SIZE = 64;
export const ENTRY_HEADER_SIZE = 64;
export const ENTRY_ALIGNMENT = 64;
/** A wire frame's records and a barrier fit. */
export const ENTRY_PAYLOAD_MAX = 8 << 20;

const LOG_MAGIC = new TextEncoder().encode('FARSLOG\n');
const ENTRY_MAGIC = 0x31454c46;

export interface EntryHeader {
  machineId: string;
  /** Entries of an earlier life of the machine's local state are not its journal any more. */
  incarnation: bigint;
  firstLsn: bigint;
  count: number;
  payloadLength: number;
  payloadCrc: number;
  durable: number;
}

/** Bytes an entry takes in the file. */
export function entrySize(payloadLength: number): number {
  return Math.ceil((ENTRY_HEADER_SIZE + payloadLength) / ENTRY_ALIGNMENT) * ENTRY_ALIGNMENT;
}

export function encodeEntryHeader(into: Uint8Array, offset: number, entry: EntryHeader): void {
  const view = new DataView(into.buffer, into.byteOffset + offset, ENTRY_HEADER_SIZE);
  view.setUint32(0, ENTRY_MAGIC, true);
  view.setUint32(8, entry.payloadCrc, true);
  view.setUint32(12, entry.payloadLength, true);
  view.setUint32(16, entry.count, true);
  view.setUint32(20, 0, true);
  into.set(Buffer.from(entry.machineId, 'hex'), offset + 24);
  view.setBigUint64(40, entry.incarnation, true);
  view.setBigUint64(48, entry.firstLsn, true);
  view.setBigUint64(56, BigInt(entry.durable), true);
  view.setUint32(4, crc32(into.subarray(offset + 8, offset + ENTRY_HEADER_SIZE)), true);
}

/** Undefined when the bytes at `offset` are no entry's header. */
export function decodeEntryHeader(bytes: Uint8Array, offset: number): EntryHeader | undefined {
  if (offset + ENTRY_HEADER_SIZE > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, ENTRY_HEADER_SIZE);
  if (view.getUint32(0, true) !== ENTRY_MAGIC) return undefined;
  if (view.getUint32(4, true) !== crc32(bytes.subarray(offset + 8, offset + ENTRY_HEADER_SIZE)))
    return undefined;
  const payloadLength = view.getUint32(12, true);
  const count = view.getUint32(16, true);
  if (payloadLength > ENTRY_PAYLOAD_MAX || count === 0) return undefined;
  return {
    machineId: Buffer.from(bytes.subarray(offset + 24, offset + 40)).toString('hex'),
    incarnation: view.getBigUint64(40, true),
    firstLsn: view.getBigUint64(48, true),
    count,
    payloadLength,
    payloadCrc: view.getUint32(8, true),
    durable: Number(view.getBigUint64(56, true)),
  };
}

export interface LogFileHeader {
  cacheId: string;
  number: number;
  previousSize: number;
}

export function encodeLogHeader(header: LogFileHeader): Uint8Array {
  const bytes = new Uint8Array(LOG_HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  bytes.set(LOG_MAGIC);
  view.setUint16(8, LOG_VERSION, true);
  bytes.set(Buffer.from(header.cacheId, 'hex'), 16);
  view.setBigUint64(32, BigInt(header.number), true);
  view.setBigUint64(40, BigInt(header.previousSize), true);
  view.setUint32(48, crc32(bytes.subarray(0, 48)), true);
  return bytes;
}

export type DecodedLogHeader =
  | ({ state: 'whole' } & LogFileHeader)
  | { state: 'cut' | 'damaged' | 'newer' };

export function decodeLogHeader(bytes: Uint8Array): DecodedLogHeader {
  if (bytes.length < LOG_HEADER_SIZE) return { state: 'cut' };
  const view = new DataView(bytes.buffer, bytes.byteOffset, LOG_HEADER_SIZE);
  const intact =
    Buffer.compare(bytes.subarray(0, 8), LOG_MAGIC) === 0 &&
    view.getUint32(48, true) === crc32(bytes.subarray(0, 48));
  if (!intact) return { state: 'damaged' };
  if (view.getUint16(8, true) > LOG_VERSION) return { state: 'newer' };
  return {
    state: 'whole',
    cacheId: Buffer.from(bytes.subarray(16, 32)).toString('hex'),
    number: Number(view.getBigUint64(32, true)),
    previousSize: Number(view.getBigUint64(40, true)),
  };
}
