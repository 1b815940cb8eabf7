/**
 * Segments: what a machine's journal is in the vault. One immutable object each; docs/FORMAT.md is written from this.
 *
 * All integers little-endian.
 *
 *   offset size
 *   0      8    magic           89 46 53 45 47 0d 0a 1a ("\x89FSEG\r\n\x1a": shows text-mode damage)
 *   8      2    version         1
 *   10     2    0
 *   12     4    headerLength    all of the header, from the magic to its end; at most 64 KiB
 *   16     1    kind            1 Data, 2 Claim (first segment of a writer epoch, no records), 3 Seal (a failover closed the journal, no records)
 *   17     1    side            0 Source, 1 Azure: where the machine ran whose writes these are
 *   18     2    barrierCount
 *   20     4    chunkSize       plain bytes in each chunk but the last; at most 4 MiB
 *   24     16   machineId
 *   40     8    seq
 *   48     8    writerEpoch
 *   56     8    firstLsn
 *   64     8    lastLsn         firstLsn - 1 when there are no records
 *   72     32   previousDigest  SHA-256 of the whole object seq - 1; zeros for seq 0
 *   104    32   salt            random
 *   136    8    plainLength     bytes of all records
 *   144    8    sealedAtMs      writer's clock
 *   152    4    failoverLength
 *   156    4    0
 *   160    24·n barriers inside, ascending: lsn u64, timeMs u64, consistency u8 (0 Crash, 1 App), 0 × 7
 *   …           failover        UTF-8, kind Seal alone: who sealed
 *   headerLength: chunks, max(1, ceil(plainLength / chunkSize)) of them, each
 *     0    4    sealedLength    of what follows, tag included
 *     4    …    AES-256-GCM(zstd(plain)) and its 16-byte tag
 *
 * Nothing follows the last chunk. The plain bytes are records (record.ts) end to end; they may cross chunks. A segment without records has
 * one empty chunk, so every header is authenticated.
 *   key   = HKDF-SHA-256(machine's data key, salt, "farshore-segment-v1" | machineId | u64 writerEpoch | u64 seq), 32 bytes
 *   nonce = 0 × 7 | u32 big-endian chunk index | 1 for the last chunk, else 0         (STREAM: no cut, no reordering goes unseen)
 *   AAD   = SHA-256 of the header
 * The digest of a segment is SHA-256 of the whole object; the successor names it.
 */
import { createHash, hkdfSync } from 'node:crypto';
import { FarshoreError } from '../../platform/errors.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary } from '../../vault/documents/machineStatus.ts';

export const SEGMENT_VERSION = 1;
/** The most that a segment object is: what one Put Blob carries comfortably and a reader has to expect. */
export const SEGMENT_SIZE_MAX = 64 << 20;
/** Plain bytes that always fit, whatever they compress to. */
export const SEGMENT_PLAIN_MAX = SEGMENT_SIZE_MAX - (1 << 20);
export const SEGMENT_CHUNK_SIZE = 1 << 20;
export const SEGMENT_CHUNK_MAX = 4 << 20;
export const SEGMENT_HEADER_MAX = 64 << 10;
export const SEGMENT_FIXED_HEADER = 160;
export const SEGMENT_BARRIERS_MAX = 1024;
const SEGMENT_FAILOVER_MAX = 253;
const BARRIER_SIZE = 24;
const DIGEST_SIZE = 32;
const TAG_SIZE = 16;
const MAGIC = Uint8Array.of(0x89, 0x46, 0x53, 0x45, 0x47, 0x0d, 0x0a, 0x1a);
const KEY_INFO = 'farshore-segment-v1';
/** No LSN, epoch or sequence comes near; what is larger is damage. */
const COUNTER_MAX = 2n ** 53n;

export type SegmentKind = 'Data' | 'Claim' | 'Seal';
const KINDS: readonly (SegmentKind | undefined)[] = [undefined, 'Data', 'Claim', 'Seal'];
export type SegmentSide = 'Source' | 'Azure';
const SIDES: readonly SegmentSide[] = ['Source', 'Azure'];
const CONSISTENCIES: readonly BarrierSummary['consistency'][] = ['Crash', 'App'];

export interface SegmentHeader {
  kind: SegmentKind;
  side: SegmentSide;
  /** 32 hex digits. */
  machineId: string;
  seq: number;
  writerEpoch: number;
  firstLsn: Lsn;
  /** firstLsn - 1 when the segment holds no records. */
  lastLsn: Lsn;
  /** 64 hex digits: SHA-256 of segment seq - 1. */
  previousDigest: string;
  salt: Uint8Array;
  plainLength: number;
  chunkSize: number;
  sealedAtMs: number;
  barriers: readonly BarrierSummary[];
  /** Kind Seal: the Failover that sealed the journal. */
  failover: string | undefined;
}

export const NO_DIGEST = '0'.repeat(2 * DIGEST_SIZE);

export type SegmentErrorCode =
  /** Bytes that no writer of ours can have left: flipped, cut, too long. */
  | 'SegmentDamaged'
  /** It was there, and is gone: trimmed while it was read, or removed by hand. */
  | 'SegmentRemoved'
  /** A version that this build does not know. */
  | 'SegmentFormatTooNew'
  /** Its chunks do not open with this machine's data key: another key, or flipped bytes. */
  | 'SegmentKeyRefused';

export class SegmentError extends FarshoreError {
  declare readonly code: SegmentErrorCode;

  constructor(code: SegmentErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}

/** Number of chunks in a segment's body. */
export function chunkCountOf(header: Pick<SegmentHeader, 'plainLength' | 'chunkSize'>): number {
  return Math.max(1, Math.ceil(header.plainLength / header.chunkSize));
}

/** Plain bytes in one chunk. */
export function chunkLengthOf(
  header: Pick<SegmentHeader, 'plainLength' | 'chunkSize'>,
  index: number,
): number {
  return Math.min(header.chunkSize, header.plainLength - index * header.chunkSize);
}

/** The most that a chunk of so many plain bytes can be sealed to (zstd's own bound, and the tag). */
export function sealedLengthMax(plainLength: number): number {
  return plainLength + Math.ceil(plainLength / 128) + 1024 + TAG_SIZE;
}

/** Asserts (RangeError) what only a bug of ours could break: headers are written by us alone. */
export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const failover = new TextEncoder().encode(header.failover ?? '');
  const length = SEGMENT_FIXED_HEADER + header.barriers.length * BARRIER_SIZE + failover.length;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint16(8, SEGMENT_VERSION, true);
  view.setUint32(12, length, true);
  view.setUint8(16, KINDS.indexOf(header.kind));
  view.setUint8(17, SIDES.indexOf(header.side));
  view.setUint16(18, header.barriers.length, true);
  view.setUint32(20, header.chunkSize, true);
  bytes.set(Buffer.from(header.machineId, 'hex'), 24);
  view.setBigUint64(40, BigInt(header.seq), true);
  view.setBigUint64(48, BigInt(header.writerEpoch), true);
  view.setBigUint64(56, header.firstLsn, true);
  view.setBigUint64(64, header.lastLsn, true);
  bytes.set(Buffer.from(header.previousDigest, 'hex'), 72);
  bytes.set(header.salt, 104);
  view.setBigUint64(136, BigInt(header.plainLength), true);
  view.setBigUint64(144, BigInt(header.sealedAtMs), true);
  view.setUint32(152, failover.length, true);
  let offset = SEGMENT_FIXED_HEADER;
  for (const barrier of header.barriers) {
    view.setBigUint64(offset, barrier.lsn, true);
    view.setBigUint64(offset + 8, BigInt(barrier.timeMs), true);
    view.setUint8(offset + 16, CONSISTENCIES.indexOf(barrier.consistency));
    offset += BARRIER_SIZE;
  }
  bytes.set(failover, offset);
  const problem = problemOf(header);
  if (problem !== undefined) throw new RangeError(`segment header: ${problem}`);
  return bytes;
}

/** How long the header is, from its first 16 bytes. `name` is the object's key, for the message. */
export function segmentHeaderLength(start: Uint8Array, name: string): number {
  if (start.length < 16) throw damaged(name, `it is ${start.length} bytes long`);
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  if (Buffer.compare(start.subarray(0, 8), MAGIC) !== 0)
    throw damaged(name, 'it does not begin as a segment does');
  const version = view.getUint16(8, true);
  if (version !== SEGMENT_VERSION)
    throw new SegmentError(
      'SegmentFormatTooNew',
      `Segment ${name} has format version ${version}; this build reads ${SEGMENT_VERSION}. Upgrade Farshore before reading this journal.`,
    );
  const length = view.getUint32(12, true);
  if (length < SEGMENT_FIXED_HEADER || length > SEGMENT_HEADER_MAX)
    throw damaged(name, `its header claims ${length} bytes`);
  return length;
}

/** Decodes a whole header; its bytes are proven only once a chunk has been opened under it. Throws SegmentError. */
export function decodeSegmentHeader(bytes: Uint8Array, name: string): SegmentHeader {
  const length = segmentHeaderLength(bytes, name);
  if (bytes.length < length) throw damaged(name, 'it ends inside its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const barrierCount = view.getUint16(18, true);
  const failoverLength = view.getUint32(152, true);
  if (SEGMENT_FIXED_HEADER + barrierCount * BARRIER_SIZE + failoverLength !== length)
    throw damaged(name, 'the lengths in its header contradict each other');
  if (view.getUint16(10, true) !== 0 || view.getUint32(156, true) !== 0)
    throw damaged(name, 'reserved bytes of its header are set');
  const kind = KINDS[view.getUint8(16)];
  const side = SIDES[view.getUint8(17)];
  if (kind === undefined || side === undefined)
    throw damaged(name, `it is of kind ${view.getUint8(16)}, side ${view.getUint8(17)}`);
  const header: SegmentHeader = {
    kind,
    side,
    machineId: hex(bytes.subarray(24, 40)),
    seq: counter(view, 40, name),
    writerEpoch: counter(view, 48, name),
    firstLsn: BigInt(counter(view, 56, name)),
    lastLsn: BigInt(counter(view, 64, name)),
    previousDigest: hex(bytes.subarray(72, 104)),
    salt: bytes.slice(104, 136),
    plainLength: counter(view, 136, name),
    chunkSize: view.getUint32(20, true),
    sealedAtMs: counter(view, 144, name),
    barriers: decodeBarriers(view, barrierCount, name),
    failover: failoverLength === 0 ? undefined : decodeFailover(bytes, failoverLength, name),
  };
  const problem = problemOf(header);
  if (problem !== undefined) throw damaged(name, problem);
  return header;
}

/** The key of one segment's chunks. */
export function segmentKey(dataKey: Uint8Array, header: SegmentHeader): Uint8Array {
  const info = new Uint8Array(KEY_INFO.length + 32);
  const view = new DataView(info.buffer);
  info.set(new TextEncoder().encode(KEY_INFO));
  info.set(Buffer.from(header.machineId, 'hex'), KEY_INFO.length);
  view.setBigUint64(KEY_INFO.length + 16, BigInt(header.writerEpoch), true);
  view.setBigUint64(KEY_INFO.length + 24, BigInt(header.seq), true);
  return new Uint8Array(hkdfSync('sha256', dataKey, header.salt, info, 32));
}

export function segmentAad(headerBytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(headerBytes).digest());
}

export function damaged(name: string, problem: string, options?: ErrorOptions): SegmentError {
  return new SegmentError(
    'SegmentDamaged',
    `Segment ${name} is damaged: ${problem}. Restore the blob from the storage account's soft-deleted versions; points before it are not touched.`,
    options,
  );
}

export function removedMeanwhile(name: string): SegmentError {
  return new SegmentError(
    'SegmentRemoved',
    `Segment ${name} was removed while it was read: the journal was trimmed meanwhile. Begin again at the newest recovery point; if none is newer, restore the blob from the storage account's soft-deleted versions.`,
  );
}

/** What holds for every header that a writer of ours makes; undefined when all is well. */
function problemOf(header: SegmentHeader): string | undefined {
  const records = header.lastLsn - header.firstLsn + 1n;
  if (!/^[0-9a-f]{32}$/.test(header.machineId)) return 'its machine id is none';
  if (header.firstLsn < 1n || records < 0n) return 'its LSNs run backwards';
  if (header.writerEpoch < 1) return 'its writer epoch is 0';
  if (header.chunkSize < 1 || header.chunkSize > SEGMENT_CHUNK_MAX)
    return `its chunks are ${header.chunkSize} bytes`;
  if (header.plainLength > SEGMENT_SIZE_MAX) return `it claims ${header.plainLength} plain bytes`;
  if ((records === 0n) !== (header.plainLength === 0)) return 'its records have no bytes';
  if (records > BigInt(header.plainLength)) return 'it claims more records than bytes';
  if (header.kind !== 'Data' && records !== 0n) return `a ${header.kind} segment with records`;
  if (header.kind === 'Data' && records === 0n) return 'a Data segment without records';
  if ((header.kind === 'Seal') !== (header.failover !== undefined))
    return `kind ${header.kind} and the name of a failover contradict each other`;
  if ((header.failover?.length ?? 0) > SEGMENT_FAILOVER_MAX) return 'its failover name is too long';
  if (header.seq === 0 && header.previousDigest !== NO_DIGEST)
    return 'segment 0 names a predecessor';
  if (header.barriers.length > SEGMENT_BARRIERS_MAX)
    return `it claims ${header.barriers.length} barriers`;
  let previous = header.firstLsn - 1n;
  for (const barrier of header.barriers) {
    if (barrier.lsn <= previous || barrier.lsn > header.lastLsn)
      return 'its barriers lie outside its records';
    previous = barrier.lsn;
  }
  return undefined;
}

function decodeBarriers(view: DataView, count: number, name: string): BarrierSummary[] {
  const barriers: BarrierSummary[] = [];
  for (let i = 0; i < count; i++) {
    const offset = SEGMENT_FIXED_HEADER + i * BARRIER_SIZE;
    const consistency = CONSISTENCIES[view.getUint8(offset + 16)];
    if (consistency === undefined) throw damaged(name, 'a barrier of unknown consistency');
    barriers.push({
      lsn: BigInt(counter(view, offset, name)),
      timeMs: counter(view, offset + 8, name),
      consistency,
    });
  }
  return barriers;
}

function decodeFailover(bytes: Uint8Array, length: number, name: string): string {
  const start = segmentHeaderLength(bytes, name) - length;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(start, start + length));
  } catch (cause) {
    throw damaged(name, 'the name of its failover is no text', { cause });
  }
}

function counter(view: DataView, offset: number, name: string): number {
  const value = view.getBigUint64(offset, true);
  if (value >= COUNTER_MAX) throw damaged(name, `a counter in its header is ${value}`);
  return Number(value);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}
