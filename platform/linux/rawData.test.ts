import { expect, test } from 'vitest';
import { RAW_DATA_START, rawOwnerOf } from './rawData.ts';

const MAGIC = 0x00bab10cn;

function start(fill: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.alloc(RAW_DATA_START);
  fill(bytes);
  return bytes;
}

test('a disk of Oracle ASM is known by its header', () => {
  expect(rawOwnerOf(start((bytes) => bytes.write('ORCLDISKDATA1', 32)))).toBe('Oracle ASM');
});

test.each(['LE', 'BE'] as const)('a ZFS pool is known by its uberblocks (%s)', (order) => {
  const pool = start((bytes) => {
    for (let slot = 3; slot < 7; slot += 1) {
      const at = (128 << 10) + slot * 1024;
      if (order === 'LE') bytes.writeBigUInt64LE(MAGIC, at);
      else bytes.writeBigUInt64BE(MAGIC, at);
    }
  });
  expect(rawOwnerOf(pool)).toBe('ZFS');
});

test('a magic number or two of a pool that was destroyed are nobody’s data', () => {
  const left = start((bytes) => bytes.writeBigUInt64LE(MAGIC, 128 << 10));
  expect(rawOwnerOf(left)).toBeUndefined();
});

test('filesystems, partition tables, and what is short or empty are let through', () => {
  const ext4 = start((bytes) => bytes.writeUInt16LE(0xef53, 1024 + 56));
  for (const bytes of [ext4, Buffer.alloc(RAW_DATA_START), Buffer.alloc(512), Buffer.alloc(0)])
    expect(rawOwnerOf(bytes)).toBeUndefined();
});
