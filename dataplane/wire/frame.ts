/**
 * Frames: what every byte on the wire belongs to. All integers little-endian.
 *
 *   offset size
 *   0      4    payloadLength   at most what `maximumPayload` says for the type
 *   4      1    type            FrameType (messages.ts)
 *   5      1    0               reserved
 *   6      2    stream          0; reserved for captures that carry many machines on one connection
 *   8      4    crc32           CRC-32 (zlib) over the 8 bytes above and the payload
 *   12     …    payload
 *
 * Damage here is a torn or broken transport; against people there is TLS. So a frame that does not add up ends the connection.
 */
import { crc32 } from 'node:zlib';
import { WireError } from './errors.ts';
import { FrameType } from './messages.ts';

export const FRAME_HEADER_SIZE = 12;
const CRC_OFFSET = 8;

/** Bytes of records in one Data frame. Small enough that control frames are never kept waiting for long. */
export const DATA_RECORDS_MAX = 4 << 20;
/** Leaves in one Ask: 2 GiB of disk. */
export const ASK_LEAVES_MAX = 32768;
export const DATA_PREFIX_SIZE = 12;
export const ASK_PREFIX_SIZE = 16;
export const ANSWER_PREFIX_SIZE = 8;

const KIB = 1024;
const maximumPayloads: Record<FrameType, number> = {
  [FrameType.Hello]: 16 * KIB,
  [FrameType.Welcome]: 128 * KIB,
  [FrameType.Redirect]: 16 * KIB,
  [FrameType.Refused]: 16 * KIB,
  [FrameType.Configure]: 128 * KIB,
  [FrameType.Data]: DATA_PREFIX_SIZE + DATA_RECORDS_MAX,
  [FrameType.Credit]: KIB,
  [FrameType.Uploaded]: KIB,
  [FrameType.Ask]: ASK_PREFIX_SIZE + ASK_LEAVES_MAX * 32,
  [FrameType.Answer]: ANSWER_PREFIX_SIZE + ASK_LEAVES_MAX,
  [FrameType.BarrierPrepare]: 4 * KIB,
  [FrameType.BarrierReady]: KIB,
  [FrameType.BarrierFreeze]: KIB,
  [FrameType.Barrier]: 16 * KIB,
  [FrameType.BarrierAcknowledged]: KIB,
  [FrameType.BarrierVoided]: 16 * KIB,
  [FrameType.AgentStatus]: 256 * KIB,
  [FrameType.Heartbeat]: KIB,
  [FrameType.EnrolBegin]: KIB,
  [FrameType.EnrolNonce]: KIB,
  [FrameType.EnrolRequest]: 256 * KIB,
  [FrameType.EnrolAnswer]: 64 * KIB,
};

const knownTypes: ReadonlySet<number> = new Set(Object.values(FrameType));

export interface FrameHeader {
  payloadLength: number;
  type: FrameType;
  stream: number;
  crc: number;
}

/** The most bytes that the payload of a frame of this type may have. */
export function maximumPayload(type: FrameType): number {
  return maximumPayloads[type];
}

/** Reads a header; throws WireError before anybody allocates for what it promises. */
export function decodeFrameHeader(header: Uint8Array): FrameHeader {
  const view = new DataView(header.buffer, header.byteOffset, FRAME_HEADER_SIZE);
  const payloadLength = view.getUint32(0, true);
  const type = view.getUint8(4);
  const reserved = view.getUint8(5);
  const stream = view.getUint16(6, true);
  if (!isFrameType(type))
    throw new WireError(
      'FrameUnknown',
      `The peer sent a frame of type ${type}, which this version does not know. One of the two must be upgraded, or bytes were damaged on the way.`,
    );
  if (reserved !== 0 || stream !== 0)
    throw new WireError(
      'FrameUnknown',
      `The peer sent a ${frameTypeName(type)} frame with reserved byte ${reserved} and stream ${stream}; both must be 0 in this version.`,
    );
  if (payloadLength > maximumPayloads[type])
    throw new WireError(
      'FrameTooLong',
      `The peer announced a ${frameTypeName(type)} frame of ${payloadLength} bytes; ${maximumPayloads[type]} is the most.`,
    );
  return { payloadLength, type, stream, crc: view.getUint32(CRC_OFFSET, true) };
}

/** The header of a frame whose payload is the concatenation of `parts`. Throws a RangeError (a bug of ours) when that is too long. */
export function encodeFrameHeader(type: FrameType, parts: readonly Uint8Array[]): Uint8Array {
  const payloadLength = parts.reduce((sum, part) => sum + part.length, 0);
  if (payloadLength > maximumPayloads[type])
    throw new RangeError(
      `${frameTypeName(type)} of ${payloadLength} bytes; ${maximumPayloads[type]} is the most`,
    );
  const header = new Uint8Array(FRAME_HEADER_SIZE);
  const view = new DataView(header.buffer);
  view.setUint32(0, payloadLength, true);
  view.setUint8(4, type);
  view.setUint32(CRC_OFFSET, frameCrc(header, parts), true);
  return header;
}

/** The checksum that a frame with this header (its first 8 bytes count) and payload must carry. */
export function frameCrc(header: Uint8Array, parts: readonly Uint8Array[]): number {
  let crc = crc32(header.subarray(0, CRC_OFFSET));
  for (const part of parts) crc = crc32(part, crc);
  return crc;
}

export function frameTypeName(type: FrameType): string {
  return Object.entries(FrameType).find(([, value]) => value === type)?.[0] ?? String(type);
}

function isFrameType(type: number): type is FrameType {
  return knownTypes.has(type);
}
