import { readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { joined, resyncBegin, SourceDisk } from '../../test/fakes/records.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { sealedSegment, segment, segmentHeader } from '../../test/fuzz/targets/segments.ts';
import { goldenSegments } from '../../test/golden/segment/samples.ts';
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  NO_DIGEST,
  SEGMENT_CHUNK_SIZE,
  SEGMENT_SIZE_MAX,
  type SegmentHeader,
} from './segment.ts';
import { inlineCodec } from './segmentCodec.ts';
import { fetchSegment, SegmentReader } from './segmentReader.ts';
import { encodeSegment } from './segmentWriter.ts';

const dataKey = new Uint8Array(32).fill(7);
const name = 'journal/m/000000000001.seg';

function headerFor(records: { count: number; length: number }): SegmentHeader {
  return {
    kind: records.count === 0 ? 'Claim' : 'Data',
    side: 'Source',
    machineId: '0123456789abcdef0123456789abcdef',
    seq: 1,
    writerEpoch: 3,
    firstLsn: 11n,
    lastLsn: 10n + BigInt(records.count),
    previousDigest: 'ab'.repeat(32),
    salt: new SeededRandom(5).bytes(32),
    plainLength: records.length,
    chunkSize: 4096,
    sealedAtMs: 1_790_000_000_000,
    barriers: [],
    failover: undefined,
  };
}

async function* cutUp(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Uint8Array, options: { key?: Uint8Array; pieces?: number } = {}) {
  const reader = await SegmentReader.open(cutUp(bytes, options.pieces ?? 1000), name);
  const batches: Uint8Array[] = [];
  let count = 0;
  const keys = { dataKey: options.key ?? dataKey, codec: inlineCodec };
  for await (const batch of reader.batches(keys)) {
    expect(batch.firstLsn).toBe(reader.header.firstLsn + BigInt(count));
    batches.push(batch.records);
    count += batch.count;
  }
  return {
    header: reader.header,
    records: joined(...batches),
    count,
    digest: await reader.digest(),
  };
}

const source = new SourceDisk({ index: 0, sizeBytes: 1 << 20 });
source.bytes.set(new SeededRandom(9).bytes(600_000));
const sample = joined(resyncBegin(), source.record(0), source.record(3, 5), source.record(15));

async function sampleSegment() {
  const header = headerFor({ count: 4, length: sample.length });
  return await encodeSegment({ header, dataKey, codec: inlineCodec, records: sample });
}

describe('a segment', () => {
  test('comes back as it went in, in whole records, however its bytes arrive', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(15), fc.integer({ min: 1, max: 0xffff })), { maxLength: 12 }),
        fc.constantFrom(1000, 4096, 100_000, SEGMENT_CHUNK_SIZE),
        fc.integer({ min: 1, max: 50_000 }),
        async (picks, chunkSize, pieces) => {
          const records = joined(...picks.map(([leaf, mask]) => source.record(leaf, mask)));
          const header = {
            ...headerFor({ count: picks.length, length: records.length }),
            chunkSize,
          };
          const made = await encodeSegment({ header, dataKey, codec: inlineCodec, records });
          const got = await read(made.bytes, { pieces });
          expect(got.header).toEqual(header);
          expect(Buffer.compare(got.records, records)).toBe(0);
          expect(got.count).toBe(picks.length);
          expect(got.digest).toBe(made.digest);
        },
      ),
      { numRuns: 40 },
    );
  });

  test('its digest is known without its key', async () => {
    const { bytes, digest } = await sampleSegment();
    const reader = await SegmentReader.open(cutUp(bytes, 777), name);
    expect(await reader.digest()).toBe(digest);
  });

  test('with any bit flipped is refused, and never gives other records', async () => {
    const { bytes } = await sampleSegment();
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(7), async (at, bit) => {
        const flipped = bytes.slice();
        flipped[at] = (flipped[at] as number) ^ (1 << bit);
        await expect(read(flipped)).rejects.toMatchObject({
          code: expect.stringMatching(/^Segment(Damaged|KeyRefused|FormatTooNew)$/),
        });
      }),
      { numRuns: 300 },
    );
  });

  test('cut anywhere, or with bytes behind it, is refused', async () => {
    const { bytes } = await sampleSegment();
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), async (length) => {
        await expect(read(bytes.subarray(0, length))).rejects.toMatchObject({
          code: 'SegmentDamaged',
        });
      }),
      { numRuns: 100 },
    );
    await expect(read(joined(bytes, new Uint8Array(1)))).rejects.toMatchObject({
      code: 'SegmentDamaged',
    });
  });

  test('with chunks exchanged is refused', async () => {
    const records = joined(source.record(0), source.record(0), source.record(0));
    const header = {
      ...headerFor({ count: 3, length: records.length }),
      chunkSize: records.length / 3,
    };
    const { bytes } = await encodeSegment({ header, dataKey, codec: inlineCodec, records });
    const start = encodeSegmentHeader(header).length;
    const chunk = (bytes.length - start) / 3;
    expect(Number.isInteger(chunk)).toBe(true);
    const [a, b, c] = [0, 1, 2].map((i) => bytes.slice(start + i * chunk, start + (i + 1) * chunk));
    const exchanged = joined(
      bytes.slice(0, start),
      b as Uint8Array,
      a as Uint8Array,
      c as Uint8Array,
    );
    await expect(read(exchanged)).rejects.toMatchObject({ code: 'SegmentKeyRefused' });
  });

  test('of another machine key is refused', async () => {
    const { bytes } = await sampleSegment();
    await expect(read(bytes, { key: new Uint8Array(32) })).rejects.toMatchObject({
      code: 'SegmentKeyRefused',
    });
  });

  test('of a newer version is refused as such', async () => {
    const { bytes } = await sampleSegment();
    bytes[8] = 2;
    await expect(read(bytes)).rejects.toMatchObject({ code: 'SegmentFormatTooNew' });
  });

  test('that unfolds to more than its header says is stopped before it has', async () => {
    const big = new Uint8Array(1 << 20);
    const lie = { ...headerFor({ count: 1, length: 100 }), chunkSize: 4096 };
    const codec = {
      parallelism: 1,
      open: inlineCodec.open,
      seal: async (seal: Parameters<typeof inlineCodec.seal>[0]) =>
        await inlineCodec.seal(seal, big),
    };
    const { bytes } = await encodeSegment({
      ...{ header: lie, dataKey, codec },
      records: new Uint8Array(100),
    });
    await expect(read(bytes)).rejects.toMatchObject({ code: 'SegmentDamaged' });
  });

  test('that is longer than any segment is refused before it is read', async () => {
    const objects = new MemoryObjectStore({ clock: new ManualClock() });
    await objects.put(name, new Uint8Array(SEGMENT_SIZE_MAX + 1));
    const asked = objects.log.length;
    await expect(fetchSegment(objects, name)).rejects.toMatchObject({ code: 'SegmentDamaged' });
    expect(objects.log.slice(asked)).toEqual([{ operation: 'head', key: name }]);
  });

  test('whose record count is a lie is refused', async () => {
    for (const lastLsn of [13n, 15n]) {
      const header = { ...headerFor({ count: 4, length: sample.length }), lastLsn };
      const { bytes } = await encodeSegment({
        header,
        dataKey,
        codec: inlineCodec,
        records: sample,
      });
      await expect(read(bytes)).rejects.toMatchObject({ code: 'SegmentDamaged' });
    }
  });
});

describe('a segment header', () => {
  test('of any bytes is decoded or refused with a typed error', () => {
    const good = encodeSegmentHeader({
      ...headerFor({ count: 4, length: 500 }),
      barriers: [{ lsn: 12n, timeMs: 5, consistency: 'App' }],
    });
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 400 }),
          fc
            .array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 })
            .map((edits) => {
              const bytes = good.slice();
              for (const [at, value] of edits) bytes[at] = value;
              return bytes;
            }),
        ),
        (bytes) => {
          try {
            decodeSegmentHeader(bytes, name);
          } catch (error) {
            expect((error as { code: string }).code).toMatch(/^Segment/);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test.each(
    [segment, segmentHeader, sealedSegment].map((target) => [target.name, target] as const),
  )(
    'or a whole one of any bytes (%s), also under the right key, is read or refused with SegmentError',
    async (_name, target) => {
      await standsHostileBytes(target);
    },
  );

  test('of any kind comes back', () => {
    const u16 = fc.nat(0xffff);
    fc.assert(
      fc.property(
        fc.constantFrom('Data' as const, 'Claim' as const, 'Seal' as const),
        fc.constantFrom('Source' as const, 'Azure' as const),
        fc.record({ seq: u16, epoch: fc.integer({ min: 1, max: 2 ** 53 - 1 }), first: u16 }),
        fc.integer({ min: 1, max: SEGMENT_CHUNK_SIZE }),
        fc.uniqueArray(fc.nat(99), { maxLength: 20 }),
        fc.string({ minLength: 1, maxLength: 60 }),
        (kind, side, { seq, epoch, first }, chunkSize, offsets, failover) => {
          const firstLsn = BigInt(first + 1);
          const isData = kind === 'Data';
          const header: SegmentHeader = {
            ...headerFor({ count: isData ? 100 : 0, length: isData ? 5000 : 0 }),
            ...{ kind, side, chunkSize, seq: seq + 1, writerEpoch: epoch, firstLsn },
            lastLsn: firstLsn + (isData ? 99n : -1n),
            barriers: isData
              ? offsets
                  .sort((a, b) => a - b)
                  .map((at) => ({ lsn: firstLsn + BigInt(at), timeMs: at, consistency: 'App' }))
              : [],
            failover: kind === 'Seal' ? failover : undefined,
          };
          expect(decodeSegmentHeader(encodeSegmentHeader(header), name)).toEqual(header);
        },
      ),
    );
  });

  test('that makes no sense is not written', () => {
    const good = headerFor({ count: 4, length: 500 });
    const wrong: Partial<SegmentHeader>[] = [
      { kind: 'Claim' },
      { kind: 'Seal' },
      { failover: 'f' },
      { firstLsn: 0n },
      { lastLsn: 5n },
      { writerEpoch: 0 },
      { chunkSize: 0 },
      { machineId: 'x' },
      { seq: 0 },
      { barriers: [{ lsn: 99n, timeMs: 1, consistency: 'Crash' }] },
    ];
    expect(() => encodeSegmentHeader(good)).not.toThrow();
    for (const change of wrong)
      expect(() => encodeSegmentHeader({ ...good, ...change })).toThrow(RangeError);
    expect(() => encodeSegmentHeader({ ...good, seq: 0, previousDigest: NO_DIGEST })).not.toThrow();
  });
});

describe('golden segments of version 1', () => {
  for (const golden of goldenSegments)
    test(`${golden.name} is read as it was meant`, async () => {
      const file = path.join(
        import.meta.dirname,
        '../../test/golden/segment/v1',
        `${golden.name}.seg`,
      );
      const bytes = new Uint8Array(readFileSync(file));
      const got = await read(bytes, { key: golden.dataKey });
      expect(got.header).toEqual(golden.header);
      expect(Buffer.compare(got.records, golden.records)).toBe(0);
      // Compression may change between versions of zstd, so only what does not depend on it is compared byte for byte.
      expect(
        Buffer.compare(bytes.subarray(0, 160), encodeSegmentHeader(golden.header).subarray(0, 160)),
      ).toBe(0);
    });
});
