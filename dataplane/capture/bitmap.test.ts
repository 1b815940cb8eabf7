import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LeafBitmap } from './bitmap.ts';

const sizeBytes = 1 << 30;

describe('LeafBitmap', () => {
  test('holds exactly the blocks that byte ranges touch', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ offset: fc.nat(4 << 20), length: fc.nat(300_000) }), {
          maxLength: 12,
        }),
        (ranges) => {
          const bitmap = new LeafBitmap({ sizeBytes: 4 << 20 });
          const expected = new Set<number>();
          for (const range of ranges) {
            bitmap.addBytes(range);
            const end = Math.min(1024, Math.ceil((range.offset + range.length) / 4096));
            if (range.length > 0)
              for (let block = Math.floor(range.offset / 4096); block < end; block += 1)
                expected.add(block);
          }
          const found = [...bitmap.leaves()].flatMap(([leaf, mask]) =>
            Array.from({ length: 16 }, (_, bit) => bit)
              .filter((bit) => mask & (1 << bit))
              .map((bit) => leaf * 16 + bit),
          );
          expect(found).toEqual([...expected].sort((a, b) => a - b));
          expect(bitmap.size).toBe(expected.size);
        },
      ),
    );
  });

  test('leaves out blocks past the end of a disk that is no whole number of leaves', () => {
    const bitmap = new LeafBitmap({ sizeBytes: 65536 + 5 * 4096 + 512 });
    bitmap.addBytes({ offset: 0, length: 1 << 20 });
    expect([...bitmap.leaves()]).toEqual([
      [0, 0xffff],
      [1, 0b111111],
    ]);
    expect(bitmap.wholeMask(1)).toBe(0b111111);
    expect(bitmap.wholeMask(2)).toBe(0);
  });

  test('survives being saved', () => {
    const bitmap = new LeafBitmap({ sizeBytes });
    bitmap.addBytes({ offset: 12_345_678, length: 999_999 });
    bitmap.add(16_000, 0x8001);
    const copy = new LeafBitmap({ sizeBytes });
    copy.addSerialised(bitmap.serialise());
    expect([...copy.leaves()]).toEqual([...bitmap.leaves()]);
    expect(copy.size).toBe(bitmap.size);
  });

  test('refuses saved bytes that can not be a bitmap of this disk', () => {
    const bitmap = new LeafBitmap({ sizeBytes });
    expect(() => bitmap.addSerialised(new Uint8Array(3))).toThrow(/impossible length/);
    const other = new LeafBitmap({ sizeBytes: 2 ** 40 });
    other.add(2 ** 23, 1);
    expect(() => bitmap.addSerialised(other.serialise())).toThrow(/past the end/);
  });

  test('costs nothing for what is empty again', () => {
    const bitmap = new LeafBitmap({ sizeBytes });
    bitmap.addBytes({ offset: 0, length: sizeBytes });
    for (const [leaf, mask] of bitmap.leaves()) bitmap.remove(leaf, mask);
    expect([...bitmap.leaves()]).toEqual([]);
    expect(bitmap.serialise().length).toBe(4);
  });
});
