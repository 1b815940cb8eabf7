import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { joined, resyncBegin, SourceDisk } from '../../test/fakes/records.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { records as recordsTarget } from '../../test/fuzz/targets/records.ts';
import { valuesOf } from '../../test/fuzz/values.ts';
import { checkBatch } from './batchCheck.ts';
import {
  type Barrier,
  BLOCK_SIZE,
  barrierSchema,
  decodeRecord,
  encodeControlRecord,
  popcount16,
  RecordKind,
  recordLength,
} from './record.ts';

const source = new SourceDisk({ index: 5, sizeBytes: 1 << 20 });
source.bytes.set(new SeededRandom(2).bytes(500_000));

describe('records', () => {
  test('of data come back with their blocks, hash and masks', () => {
    fc.assert(
      fc.property(fc.nat(15), fc.integer({ min: 1, max: 0xffff }), (leaf, blockMask) => {
        const bytes = source.record(leaf, blockMask);
        const { record, next } = decodeRecord(bytes, 0);
        expect(next).toBe(bytes.length);
        expect(recordLength(bytes, 0)).toBe(bytes.length);
        if (record.kind !== RecordKind.Data) throw new Error('not data');
        expect([record.disk, record.leaf, record.blockMask]).toEqual([5, leaf, blockMask]);
        expect(Buffer.compare(record.leafHash, source.leafHash(leaf))).toBe(0);
        const content = source.leaf(leaf);
        let taken = 0;
        for (let block = 0; block < 16; block++) {
          if ((blockMask & (1 << block)) === 0) continue;
          const wanted = content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
          if ((record.zeroMask & (1 << block)) !== 0)
            expect(wanted.every((b) => b === 0)).toBe(true);
          else {
            expect(Buffer.compare(record.blocks.subarray(taken, taken + BLOCK_SIZE), wanted)).toBe(
              0,
            );
            taken += BLOCK_SIZE;
          }
        }
      }),
    );
  });

  test('of control come back', () => {
    const barrier = {
      timeMs: 1,
      consistency: 'App' as const,
      disks: [{ index: 0, sizeBytes: 512, root: 'ab'.repeat(32) }],
      freezeMs: 1.5,
      final: { failover: 'f' },
    };
    for (const record of [
      { kind: RecordKind.ResyncBegin, reason: 'TrackingLost' },
      { kind: RecordKind.ResyncEnd },
      { kind: RecordKind.Barrier, barrier },
    ] as const) {
      const bytes = encodeControlRecord(record);
      expect(decodeRecord(bytes, 0)).toEqual({ record, next: bytes.length });
      expect(recordLength(bytes, 0)).toBe(bytes.length);
    }
  });

  test('of any barrier and reason come back', () => {
    fc.assert(
      fc.property(valuesOf(barrierSchema), fc.string(), (barrier, reason) => {
        for (const record of [
          { kind: RecordKind.Barrier, barrier: barrier as Barrier },
          { kind: RecordKind.ResyncBegin, reason },
        ])
          expect(decodeRecord(encodeControlRecord(record), 0).record).toEqual(record);
      }),
    );
  });

  test('of any bytes, one by one and as an agent’s batch, are taken or refused with a typed error', async () => {
    await standsHostileBytes(recordsTarget);
  });

  test('of any bytes are decoded or refused with RecordInvalid, and the length that is told is the one that is read', () => {
    const good = joined(resyncBegin(), source.record(0, 3), source.record(9, 0x8001));
    const hostile = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }).map((edits) => {
        const bytes = good.slice();
        for (const [at, value] of edits) bytes[at] = value;
        return bytes;
      }),
      fc.nat(good.length).map((length) => good.slice(0, length)),
    );
    fc.assert(
      fc.property(hostile, (bytes) => {
        let offset = 0;
        try {
          while (offset < bytes.length) {
            const { next } = decodeRecord(bytes, offset);
            expect(next).toBe(offset + recordLength(bytes, offset));
            expect(next).toBeLessThanOrEqual(bytes.length);
            offset = next;
          }
        } catch (error) {
          expect(error).toMatchObject({ code: 'RecordInvalid' });
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('bits are counted', () => {
    for (let mask = 0; mask <= 0xffff; mask++)
      if (popcount16(mask) !== mask.toString(2).replaceAll('0', '').length)
        throw new Error(`${mask}`);
  });
});

describe('what an agent sends', () => {
  const disks = new Map([[5, { index: 5, name: 'sda', sizeBytes: 1 << 20 }]]);
  const check = (records: Uint8Array, count = 1) =>
    checkBatch({ firstLsn: 1n, count, records }, disks);

  test('whole leaves must have the hash that they state, zero blocks included', () => {
    for (let leaf = 0; leaf < 16; leaf++) {
      const record = source.record(leaf);
      expect(check(record)).toHaveLength(1);
      record[20] = (record[20] as number) ^ 1;
      expect(() => check(record)).toThrow(expect.objectContaining({ code: 'LeafHashMismatch' }));
    }
    const content = source.record(0);
    content[3000] = (content[3000] as number) ^ 1;
    expect(() => check(content)).toThrow(expect.objectContaining({ code: 'LeafHashMismatch' }));
  });

  test('barriers, other disks, leaves past the end, and a wrong count are refused', () => {
    const barrier = {
      timeMs: 1,
      consistency: 'Crash' as const,
      disks: [{ index: 5, sizeBytes: 1 << 20, root: '0'.repeat(64) }],
      freezeMs: 0,
    };
    const outside = source.record(0, 1);
    outside[8] = 16;
    const otherDisk = source.record(0, 1);
    otherDisk[1] = 4;
    const refused = expect.objectContaining({ code: 'RecordRefused' });
    for (const records of [
      encodeControlRecord({ kind: RecordKind.Barrier, barrier }),
      outside,
      otherDisk,
    ])
      expect(() => check(records)).toThrow(refused);
    expect(() => check(source.record(0), 2)).toThrow(refused);
    expect(() => check(new Uint8Array(0), 0)).toThrow(refused);
    expect(() => check(new Uint8Array((4 << 20) + 1))).toThrow(
      expect.objectContaining({ code: 'BatchTooLong' }),
    );
  });
});
