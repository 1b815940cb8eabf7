import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { cacheLog } from '../../test/fuzz/targets/cache.ts';
import {
  decodeEntryHeader,
  decodeLogHeader,
  ENTRY_HEADER_SIZE,
  ENTRY_PAYLOAD_MAX,
  encodeEntryHeader,
  encodeLogHeader,
  LOG_HEADER_SIZE,
} from './cacheEntry.ts';

const id = fc.stringMatching(/^[0-9a-f]{32}$/);
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const entryHeader = fc.record({
  machineId: id,
  incarnation: u64,
  firstLsn: u64,
  count: fc.integer({ min: 1, max: 0xffffffff }),
  payloadLength: fc.nat(ENTRY_PAYLOAD_MAX),
  payloadCrc: fc.nat(0xffffffff),
  durable: fc.maxSafeNat(),
});
const logHeader = fc.record({
  cacheId: id,
  number: fc.maxSafeNat(),
  previousSize: fc.maxSafeNat(),
});

describe('headers in the cache’s log', () => {
  test('of entries come back, wherever they lie, and with any bit flipped are none', () => {
    fc.assert(
      fc.property(entryHeader, fc.nat(64), fc.nat(511), (header, at, bit) => {
        const bytes = new Uint8Array(at + ENTRY_HEADER_SIZE);
        encodeEntryHeader(bytes, at, header);
        expect(decodeEntryHeader(bytes, at)).toEqual(header);
        const byte = at + (bit >> 3);
        bytes[byte] = (bytes[byte] as number) ^ (1 << (bit & 7));
        expect(decodeEntryHeader(bytes, at)).toBeUndefined();
        expect(decodeEntryHeader(bytes.subarray(0, -1), at)).toBeUndefined();
      }),
    );
  });

  test('of files come back, and with any bit flipped or cut are not whole', () => {
    const checked = 52 * 8;
    fc.assert(
      fc.property(logHeader, fc.nat(checked - 1), (header, bit) => {
        const bytes = encodeLogHeader(header);
        expect(decodeLogHeader(bytes)).toEqual({ state: 'whole', ...header });
        expect(decodeLogHeader(bytes.subarray(0, LOG_HEADER_SIZE - 1)).state).toBe('cut');
        bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
        expect(decodeLogHeader(bytes).state).toBe('damaged');
      }),
    );
  });
});

test('a log file of any bytes is recovered or refused, and a second recovery finds the same', async () => {
  await standsHostileBytes(cacheLog, 200);
});
