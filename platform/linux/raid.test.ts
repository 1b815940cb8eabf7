import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fakeSysfs } from '../../test/fakes/fakeSysfs.ts';
import { raidRecordsOn } from './raid.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'farshore-sysfs-'));
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

/** One array over these members, whose data begins at a sector and has so many KiB. */
const array = (members: Record<string, { offset: number; size: number }>) => ({
  bioBased: true,
  on: Object.keys(members),
  attributes: Object.fromEntries([
    ['md/level', 'raid1'],
    ...Object.entries(members).flatMap(([name, { offset, size }]) => [
      [`md/dev-${name}/offset`, String(offset)],
      [`md/dev-${name}/size`, String(size)],
    ]),
  ]),
});

test('a RAID’s records lie before its data, or behind it, or both, on a whole disk or a partition', () => {
  const sysfs = fakeSysfs(root, {
    sda: { attributes: { size: '2048' } },
    sdb: { partitions: ['sdb1', 'sdb2'] },
    sdc: {},
    md0: array({ sda: { offset: 256, size: 800 }, sdb2: { offset: 128, size: 448 } }),
    md1: array({ sdb1: { offset: 0, size: 500 }, sdc: { offset: 16, size: 900 } }),
  });
  const paths = new Map([
    ['sda', '/dev/disk/by-id/a'],
    ['sdb', '/dev/sdb'],
  ]);
  const KIB = 1024;
  expect(raidRecordsOn(sysfs, paths)).toEqual([
    { devicePath: '/dev/disk/by-id/a', offset: 0, length: 128 * KIB },
    { devicePath: '/dev/disk/by-id/a', offset: 928 * KIB, length: 96 * KIB },
    { devicePath: '/dev/sdb', offset: 512 * KIB, length: 64 * KIB },
    // sdb1 has its record at its end; sdc is not protected.
    { devicePath: '/dev/sdb', offset: 500 * KIB, length: 12 * KIB },
  ]);
});

test('a member that says nothing useful of itself has no records', () => {
  const sysfs = fakeSysfs(root, {
    sda: {},
    sdb: {},
    md0: {
      ...array({ sda: { offset: 0, size: 9999 }, sdb: { offset: 16, size: 0 } }),
    },
  });
  const paths = new Map(['sda', 'sdb'].map((name) => [name, `/dev/${name}`]));
  expect(raidRecordsOn(sysfs, paths)).toEqual([]);
});
