import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { crc32OfTail } from './crc.ts';

test('the checksum of a tail follows from those of head and whole', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 64 }),
      fc.uint8Array({ maxLength: 5000 }),
      (head, tail) => {
        const whole = crc32(tail, crc32(head));
        const found = crc32OfTail({ whole, head: crc32(head), tailLength: tail.length });
        expect(found).toBe(crc32(tail));
      },
    ),
  );
});

test('the checksum of a tail of the longest batch is right, too', () => {
  const head = Buffer.from('header and prefix');
  const tail = Buffer.alloc((4 << 20) - 1, 'records');
  const whole = crc32(tail, crc32(head));
  expect(crc32OfTail({ whole, head: crc32(head), tailLength: tail.length })).toBe(crc32(tail));
});
