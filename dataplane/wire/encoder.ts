/**
 * Messages to frames and back: JSON through its schema for control messages, fixed layouts for the three that carry bulk.
 *
 *   Data    u64 firstLsn · u32 recordCount · records (dataplane/journal/record.ts), at most DATA_RECORDS_MAX bytes
 *   Ask     u32 askId · u8 disk · u8[3] 0 · u32 firstLeaf · u32 count · count × 32-byte leaf hash
 *   Answer  u32 askId · u32 count · count × u8 AnswerCode
 */
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { crc32OfTail } from './crc.ts';
import type { Frame } from './decoder.ts';
import { WireError } from './errors.ts';
import {
  ANSWER_PREFIX_SIZE,
  ASK_LEAVES_MAX,
  ASK_PREFIX_SIZE,
  DATA_PREFIX_SIZE,
  encodeFrameHeader,
  frameTypeName,
} from './frame.ts';
import {
  AnswerCode,
  type ControlType,
  FrameType,
  type Message,
  messageSchemas,
} from './messages.ts';

const HASH_SIZE = 32;
const RECORD_MIN = 16;

export interface DataBatch {
  /** LSN of the first record; the others follow one by one. */
  firstLsn: bigint;
  count: number;
  /** The records back to back. When received: a view into the frame's buffer. */
  records: Uint8Array;
  /** CRC-32 of the records as they arrived. */
  recordsCrc: number;
}

export interface Ask {
  askId: number;
  disk: number;
  firstLeaf: number;
  /** 32 bytes a leaf. */
  hashes: Uint8Array;
}

export interface Answer {
  askId: number;
  /** One AnswerCode a leaf asked for. */
  codes: Uint8Array;
}

/** What a frame says, once it passed its schema. */
export type Received =
  | { [T in ControlType]: { type: T; message: Message<T> } }[ControlType]
  | { type: typeof FrameType.Data; data: DataBatch }
  | { type: typeof FrameType.Ask; ask: Ask }
  | { type: typeof FrameType.Answer; answer: Answer };

/** The parts of a control frame. The schema must accept the message (a breach is a bug of ours and throws). */
export function encodeControl<T extends ControlType>(type: T, message: Message<T>): Uint8Array[] {
  const schema: z.ZodType = messageSchemas[type];
  const payload = new TextEncoder().encode(JSON.stringify(z.encode(schema, message)));
  return [encodeFrameHeader(type, [payload]), payload];
}

/** The parts of a Data frame; `records` may come in pieces, which are not copied. */
export function encodeData(batch: {
  firstLsn: bigint;
  count: number;
  records: readonly Uint8Array[];
}): Uint8Array[] {
  const prefix = new Uint8Array(DATA_PREFIX_SIZE);
  const view = new DataView(prefix.buffer);
  view.setBigUint64(0, batch.firstLsn, true);
  view.setUint32(8, batch.count, true);
  return [encodeFrameHeader(FrameType.Data, [prefix, ...batch.records]), prefix, ...batch.records];
}

export function encodeAsk(ask: Ask): Uint8Array[] {
  const prefix = new Uint8Array(ASK_PREFIX_SIZE);
  const view = new DataView(prefix.buffer);
  view.setUint32(0, ask.askId, true);
  view.setUint8(4, ask.disk);
  view.setUint32(8, ask.firstLeaf, true);
  view.setUint32(12, ask.hashes.length / HASH_SIZE, true);
  return [encodeFrameHeader(FrameType.Ask, [prefix, ask.hashes]), prefix, ask.hashes];
}

export function encodeAnswer(answer: Answer): Uint8Array[] {
  const prefix = new Uint8Array(ANSWER_PREFIX_SIZE);
  const view = new DataView(prefix.buffer);
  view.setUint32(0, answer.askId, true);
  view.setUint32(4, answer.codes.length, true);
  return [encodeFrameHeader(FrameType.Answer, [prefix, answer.codes]), prefix, answer.codes];
}

/** Reads a frame's payload. Throws WireError MessageInvalid. Records inside Data are checked by whoever stores them. */
export function decodeMessage(frame: Frame): Received {
  switch (frame.type) {
    case FrameType.Data:
      return { type: frame.type, data: decodeData(frame) };
    case FrameType.Ask:
      return { type: frame.type, ask: decodeAsk(frame.payload) };
    case FrameType.Answer:
      return { type: frame.type, answer: decodeAnswer(frame.payload) };
    default:
      return decodeControl(frame.type, frame.payload);
  }
}

function decodeControl(type: ControlType, payload: Uint8Array): Received {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
  } catch (cause) {
    throw invalid(type, 'it is not JSON', { cause });
  }
  const schema: z.ZodType = messageSchemas[type];
  const result = schema.safeParse(json);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw invalid(type, `${issue?.path.join('.') || 'message'}: ${issue?.message}`);
  }
  // The schema that parsed `data` is the one of `type`; TypeScript can't tie the two together.
  return { type, message: result.data } as Received;
}

function decodeData({ payload, crc }: Frame): DataBatch {
  if (payload.length < DATA_PREFIX_SIZE)
    throw invalid(FrameType.Data, 'it has no room for a batch');
  const view = viewOf(payload);
  const firstLsn = view.getBigUint64(0, true);
  const count = view.getUint32(8, true);
  const records = payload.subarray(DATA_PREFIX_SIZE);
  if (count === 0 || count > records.length / RECORD_MIN)
    throw invalid(FrameType.Data, `${count} records in ${records.length} bytes`);
  if (firstLsn === 0n || firstLsn > MAXIMUM_LSN)
    throw invalid(FrameType.Data, `its first LSN is ${firstLsn}`);
  const head = crc32(payload.subarray(0, DATA_PREFIX_SIZE), crc.header);
  const recordsCrc = crc32OfTail({ whole: crc.whole, head, tailLength: records.length });
  return { firstLsn, count, records, recordsCrc };
}

function decodeAsk(payload: Uint8Array): Ask {
  if (payload.length < ASK_PREFIX_SIZE) throw invalid(FrameType.Ask, 'it has no room for a range');
  const view = viewOf(payload);
  const disk = view.getUint8(4);
  const count = view.getUint32(12, true);
  const hashes = payload.subarray(ASK_PREFIX_SIZE);
  if (disk > 63) throw invalid(FrameType.Ask, `disk index ${disk}`);
  if (count === 0 || count > ASK_LEAVES_MAX || hashes.length !== count * HASH_SIZE)
    throw invalid(FrameType.Ask, `${count} leaves in ${hashes.length} bytes of hashes`);
  return { askId: view.getUint32(0, true), disk, firstLeaf: view.getUint32(8, true), hashes };
}

function decodeAnswer(payload: Uint8Array): Answer {
  if (payload.length < ANSWER_PREFIX_SIZE)
    throw invalid(FrameType.Answer, 'it has no room for an answer');
  const view = viewOf(payload);
  const count = view.getUint32(4, true);
  const codes = payload.subarray(ANSWER_PREFIX_SIZE);
  if (codes.length !== count)
    throw invalid(FrameType.Answer, `${count} leaves in ${codes.length} bytes`);
  if (codes.some((code) => code > AnswerCode.Differs))
    throw invalid(FrameType.Answer, 'an answer that is none');
  return { askId: view.getUint32(0, true), codes };
}

/** Leaves room for every LSN of a batch below 2^63. */
const MAXIMUM_LSN = (1n << 62n) - 1n;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function invalid(type: FrameType, problem: string, options?: ErrorOptions): WireError {
  return new WireError(
    'MessageInvalid',
    `The peer sent a ${frameTypeName(type)} message that can't be read: ${problem}.`,
    options,
  );
}
