import fc from 'fast-check';
import { expect, test } from 'vitest';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { vhdFooter } from '../../test/fuzz/targets/cache.ts';
import { decodeVhdFooter, encodeVhdFooter, vhdBodySize, vhdSize, vhdUniqueId } from './vhd.ts';

const MIB = 1 << 20;
const uniqueId = vhdUniqueId({ machineId: 'ab'.repeat(16), index: 0 });

test('a body is the disk rounded up to whole MiB, and the footer comes on top', () => {
  expect(vhdBodySize(1)).toBe(MIB);
  expect(vhdBodySize(MIB)).toBe(MIB);
  expect(vhdBodySize(MIB + 512)).toBe(2 * MIB);
  expect(vhdSize(MIB + 512)).toBe(2 * MIB + 512);
});

test('a footer says what it was made from, for every size', () => {
  for (const bodySize of [MIB, 17 * MIB, 127 * 1024 * MIB, 2040 * 1024 * MIB, 4095 * 1024 * MIB])
    expect(decodeVhdFooter(encodeVhdFooter({ bodySize, uniqueId }))).toEqual({ bodySize });
});

test('a footer of any size says that size', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 << 20 }), (mib) => {
      const bodySize = mib * MIB;
      expect(decodeVhdFooter(encodeVhdFooter({ bodySize, uniqueId }))).toEqual({ bodySize });
    }),
  );
});

test('any bytes are a footer of a size that can be, or none', async () => {
  await standsHostileBytes(vhdFooter);
});

test('footers of the same disk are the same bytes, those of another disk are not', () => {
  const footer = encodeVhdFooter({ bodySize: MIB, uniqueId });
  expect(encodeVhdFooter({ bodySize: MIB, uniqueId })).toEqual(footer);
  const other = vhdUniqueId({ machineId: 'ab'.repeat(16), index: 1 });
  expect(encodeVhdFooter({ bodySize: MIB, uniqueId: other })).not.toEqual(footer);
});

test('any flipped byte of what counts makes it no footer', () => {
  const footer = encodeVhdFooter({ bodySize: MIB, uniqueId });
  for (let at = 0; at < 512; at += 1) {
    const flipped = footer.slice();
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    expect({ at, decoded: decodeVhdFooter(flipped) }).toEqual({ at, decoded: undefined });
  }
});
