import { describe, expect, test } from 'vitest';
import { freezeOrder, parseMountInfo, type StackedMount } from './mounts.ts';
import { parseFileExtents, parseSwaps, throughTable } from './swap.ts';
import { splitDeviceNumber } from './sysfs.ts';

test('a mountinfo line with optional fields and escaped blanks is read', () => {
  const text =
    '36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 shared:7 - ext3 /dev/root ro,errors=continue\n' +
    '37 35 0:31 / /sub rw - btrfs /dev/sda2 rw,subvol=/\n\nnonsense\n';
  expect(parseMountInfo(text)).toEqual([
    {
      number: { major: 98, minor: 0 },
      mountPoint: '/mnt two',
      filesystem: 'ext3',
      source: '/dev/root',
      readOnly: true,
    },
    {
      number: { major: 0, minor: 31 },
      mountPoint: '/sub',
      filesystem: 'btrfs',
      source: '/dev/sda2',
      readOnly: false,
    },
  ]);
});

test('of a stack, what is on top comes first, and only what lies on the disks', () => {
  const mount = (mountPoint: string, level: number, disks: string[]): StackedMount => ({
    number: { major: 8, minor: 1 },
    mountPoint,
    filesystem: 'ext4',
    source: '',
    readOnly: false,
    devices: [],
    disks,
    level,
  });
  const all = [
    mount('/', 1, ['sda']),
    mount('/img', 3, ['loop0', 'sda']),
    mount('/other', 1, ['sdb']),
    mount('/lvm', 2, ['sda']),
  ];
  expect(freezeOrder(all, ['sda']).map(({ mountPoint }) => mountPoint)).toEqual([
    '/img',
    '/lvm',
    '/',
  ]);
});

describe('swap', () => {
  test('areas are read with their header page', () => {
    const text =
      'Filename\tType\tSize\tUsed\tPriority\n/dev/sda5 partition\t1048572\t0\t-2\n/swap\\040file file 4092 0 -3\n';
    expect(parseSwaps(text)).toEqual([
      { path: '/dev/sda5', kind: 'partition', length: 1 << 30 },
      { path: '/swap file', kind: 'file', length: 4 << 20 },
    ]);
  });

  test("a swap file's extents are read from filefrag", () => {
    const text = `Filesystem type is: ef53
File size of /swapfile is 8388608 (2048 blocks of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..    1023:      34816..     35839:   1024:
   1:     1024..    2047:      40960..     41983:   1024:      35840: last,eof
/swapfile: 2 extents found
`;
    expect(parseFileExtents(text)).toEqual([
      { offset: 34816 * 4096, length: 4 << 20 },
      { offset: 40960 * 4096, length: 4 << 20 },
    ]);
  });

  test('an extent of a logical volume is cut where the volume is', () => {
    const table = [
      { start: 0, length: 1000, device: 'sda3', offset: 5000 },
      { start: 1000, length: 1000, device: 'sdb1', offset: 0 },
    ];
    expect(throughTable({ device: 'dm-0', offset: 900, length: 300 }, table)).toEqual([
      { device: 'sda3', offset: 5900, length: 100 },
      { device: 'sdb1', offset: 0, length: 200 },
    ]);
  });
});

test('device numbers with large minors are split as glibc does', () => {
  expect(splitDeviceNumber(0x0801)).toEqual({ major: 8, minor: 1 });
  expect(splitDeviceNumber(0x110300)).toEqual({ major: 259, minor: 256 });
});
