import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { comesBack, wire } from '../../test/fuzz/targets/wire.ts';
import { valuesOf } from '../../test/fuzz/values.ts';
import { wireSamples } from '../../test/golden/wire/samples.ts';
import { FrameDecoder } from './decoder.ts';
import { decodeMessage, encodeData, type Received } from './encoder.ts';
import { WireError } from './errors.ts';
import {
  ASK_LEAVES_MAX,
  DATA_PREFIX_SIZE,
  DATA_RECORDS_MAX,
  encodeFrameHeader,
  FRAME_HEADER_SIZE,
  frameCrc,
  maximumPayload,
} from './frame.ts';
import { type ControlType, FrameType, messageSchemas } from './messages.ts';

const golden = path.resolve(import.meta.dirname, '../../test/golden/wire/v1');
const samples = Object.entries(wireSamples).map(([name, parts]) => ({
  name,
  bytes: Buffer.concat(parts),
}));
const everything = Buffer.concat(samples.map((sample) => sample.bytes));

function decodeAll(chunks: Iterable<Uint8Array>) {
  const decoder = new FrameDecoder();
  const messages = [...chunks].flatMap((chunk) => decoder.push(chunk).map(decodeMessage));
  decoder.end();
  return messages;
}

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof WireError) return error.code;
    throw error;
  }
  return 'none';
}

describe('golden bytes', () => {
  // New messages are recorded once (FARSHORE_RECORD_GOLDEN=1); what is recorded never changes within a version.
  test.each(samples)('version 1 of $name is byte for byte what it was', ({ name, bytes }) => {
    const file = path.join(golden, `${name}.frame`);
    if (process.env.FARSHORE_RECORD_GOLDEN === '1') {
      mkdirSync(golden, { recursive: true });
      writeFileSync(file, bytes, { flag: 'wx' });
    }
    expect(readFileSync(file).toString('hex')).toBe(bytes.toString('hex'));
  });

  test('there is one for every frame type', () => {
    const types = new Set(samples.map((sample) => sample.bytes[4]));
    expect([...types].sort()).toEqual([...Object.values(FrameType)].sort());
  });
});

describe('the decoder', () => {
  const whole = decodeAll([everything]);

  test('reads every message from one chunk', () => {
    expect(whole.length).toBe(samples.length);
    expect(whole[0]).toMatchObject({ message: { capturedLsn: 9_007_199_254_740_993n } });
  });

  test('reads the same when the stream is split after any byte', () => {
    for (let at = 1; at < everything.length; at += 1)
      expect(decodeAll([everything.subarray(0, at), everything.subarray(at)])).toEqual(whole);
  });

  test('reads the same byte by byte, and in any pieces', () => {
    expect(decodeAll(Array.from(everything, (byte) => Uint8Array.of(byte)))).toEqual(whole);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 400 }), { maxLength: 60 }), (sizes) => {
        const chunks: Uint8Array[] = [];
        let offset = 0;
        for (const size of sizes) {
          chunks.push(everything.subarray(offset, offset + size));
          offset += size;
        }
        chunks.push(everything.subarray(offset));
        expect(decodeAll(chunks)).toEqual(whole);
      }),
    );
  });

  test('gives Data as one buffer of its own that later bytes do not touch', () => {
    const records = Buffer.alloc(200_000, 7);
    const bytes = Buffer.concat(encodeData({ firstLsn: 1n, count: 1, records: [records] }));
    const decoder = new FrameDecoder();
    const frames = [];
    const scratch = Buffer.alloc(16_384);
    for (let offset = 0; offset < bytes.length; offset += scratch.length) {
      const count = bytes.copy(scratch, 0, offset);
      frames.push(...decoder.push(scratch.subarray(0, count)));
    }
    scratch.fill(0);
    expect(frames[0]?.payload.subarray(DATA_PREFIX_SIZE)).toEqual(records);
  });

  test('takes time in proportion to the bytes, however small the chunks', () => {
    const bytes = Buffer.concat(
      encodeData({ firstLsn: 1n, count: 1, records: [Buffer.alloc(DATA_RECORDS_MAX)] }),
    );
    const decoder = new FrameDecoder();
    let frames = 0;
    for (let offset = 0; offset < bytes.length; offset += 64)
      frames += decoder.push(bytes.subarray(offset, offset + 64)).length;
    expect(frames).toBe(1);
  });

  test.each(samples)('notices any flipped bit of $name', ({ bytes }) => {
    for (let bit = 0; bit < bytes.length * 8; bit += bytes.length > 400 ? 7 : 1) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(codeOf(() => decodeAll([flipped]))).toMatch(
        /^(FrameDamaged|FrameTooLong|FrameUnknown|FrameCut)$/,
      );
    }
  });

  test.each(samples)('notices when the stream ends inside $name', ({ bytes }) => {
    for (let length = 1; length < bytes.length; length += 1)
      expect(codeOf(() => decodeAll([bytes.subarray(0, length)]))).toBe('FrameCut');
  });

  test('refuses a frame that is longer than its type may be from its header alone', () => {
    const header = Buffer.alloc(FRAME_HEADER_SIZE);
    for (const type of Object.values(FrameType)) {
      header.writeUInt32LE(maximumPayload(type) + 1, 0);
      header.writeUInt8(type, 4);
      expect(codeOf(() => new FrameDecoder().push(header))).toBe('FrameTooLong');
    }
    header.writeUInt32LE(0xffffffff, 0);
    expect(codeOf(() => new FrameDecoder().push(header))).toBe('FrameTooLong');
  });

  test('refuses types, reserved bits and streams that it does not know', () => {
    const header = Buffer.from(encodeFrameHeader(FrameType.Heartbeat, []));
    for (const [offset, value] of [
      [4, 0],
      [4, 255],
      [5, 1],
      [6, 1],
      [7, 1],
    ] as const) {
      const changed = Buffer.from(header);
      changed[offset] = value;
      changed.writeUInt32LE(frameCrc(changed, []), 8);
      expect(codeOf(() => new FrameDecoder().push(changed))).toBe('FrameUnknown');
    }
  });

  test('refuses a type that the peer may not send, before allocating for it', () => {
    const decoder = new FrameDecoder({ accepts: (type) => type === FrameType.Hello });
    const data = wireSamples.data ?? [];
    expect(codeOf(() => decoder.push(data[0] ?? new Uint8Array()))).toBe('FrameUnexpected');
  });

  test('stays failed: nothing after a damaged frame is read', () => {
    const decoder = new FrameDecoder();
    const damaged = Buffer.concat(wireSamples.heartbeat ?? []);
    damaged[14] = 0;
    expect(codeOf(() => decoder.push(damaged))).toBe('FrameDamaged');
    expect(codeOf(() => decoder.push(everything))).toBe('FrameDamaged');
    expect(codeOf(() => decoder.end())).toBe('FrameDamaged');
  });

  test('throws nothing but WireError at arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        codeOf(() => decodeAll([noise]));
      }),
    );
  });
});

describe('message contents', () => {
  function readPayload(type: FrameType, payload: Uint8Array): string {
    return codeOf(() => decodeAll([encodeFrameHeader(type, [payload]), payload]));
  }

  test('throw nothing but WireError, whatever a well-formed frame carries', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(FrameType)),
        fc.oneof(
          fc.uint8Array({ minLength: 1, maxLength: 200 }),
          fc.json().map((json) => Buffer.from(json)),
        ),
        (type, payload) => {
          fc.pre(payload.length <= maximumPayload(type));
          expect(readPayload(type, payload)).toMatch(/^(MessageInvalid|none)$/);
        },
      ),
      { numRuns: 500 },
    );
  });

  const controls = Object.entries(FrameType).filter(([, type]) => type in messageSchemas);
  test.each(controls)('of %s come back, whatever they are', (_name, type) => {
    const values = valuesOf(messageSchemas[type as ControlType]);
    fc.assert(
      fc.property(values, (message) => comesBack({ type, message } as Received)),
      { numRuns: 50 },
    );
  });

  test('of Data, Ask and Answer come back, whatever they are', () => {
    const u32 = fc.nat(0xffffffff);
    const bytes = (least: number, unit: number) =>
      fc
        .uint8Array({ minLength: least * unit, maxLength: 20 * unit })
        .map((all) => all.subarray(0, all.length - (all.length % unit)));
    fc.assert(
      fc.property(
        fc.bigInt({ min: 1n, max: (1n << 62n) - 1n }),
        bytes(1, 16),
        fc.record({ askId: u32, disk: fc.nat(63), firstLeaf: u32, hashes: bytes(1, 32) }),
        fc.record({ askId: u32, codes: bytes(0, 1).map((codes) => codes.map((code) => code % 3)) }),
        (firstLsn, records, ask, answer) => {
          const data = {
            firstLsn,
            count: records.length / 16,
            records,
            recordsCrc: crc32(records),
          };
          comesBack({ type: FrameType.Data, data });
          comesBack({ type: FrameType.Ask, ask });
          comesBack({ type: FrameType.Answer, answer });
        },
      ),
    );
  });

  test('of any bytes, also with right checksums, are read or refused with WireError', async () => {
    await standsHostileBytes(wire);
  });

  test('are refused when a batch counts more records than its bytes can hold', () => {
    const payload = Buffer.alloc(DATA_PREFIX_SIZE + 32);
    payload.writeBigUInt64LE(1n, 0);
    payload.writeUInt32LE(3, 8);
    expect(readPayload(FrameType.Data, payload)).toBe('MessageInvalid');
  });

  test('are refused when LSNs would overflow', () => {
    const payload = Buffer.alloc(DATA_PREFIX_SIZE + 16);
    payload.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 0);
    payload.writeUInt32LE(1, 8);
    expect(readPayload(FrameType.Data, payload)).toBe('MessageInvalid');
  });

  test('are refused when an Ask counts other than it carries', () => {
    for (const count of [0, 2, ASK_LEAVES_MAX + 1]) {
      const payload = Buffer.alloc(16 + 32);
      payload.writeUInt32LE(count, 12);
      expect(readPayload(FrameType.Ask, payload)).toBe('MessageInvalid');
    }
  });

  test('are refused when an answer is none of the three', () => {
    const payload = Buffer.alloc(9);
    payload.writeUInt32LE(1, 4);
    payload[8] = 3;
    expect(readPayload(FrameType.Answer, payload)).toBe('MessageInvalid');
  });
});
