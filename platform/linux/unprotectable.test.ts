import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FakeDevice, fakeSysfs } from '../../test/fakes/fakeSysfs.ts';
import type { Sysfs } from './sysfs.ts';
import { whyUnprotectable } from './unprotectable.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'farshore-sysfs-'));
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

const why = (sysfs: Sysfs, name: string) =>
  whyUnprotectable(sysfs, { path: `/dev/${name}`, name }) ?? 'fine';

describe('a disk that can be protected', () => {
  test.each([
    ['a virtio disk', 'vda', {}],
    ['a loop device', 'loop0', { attributes: { 'loop/backing_file': '/disk.raw' } }],
    ['an NVMe namespace with a path of its own', 'nvme0n1', {}],
    // It is as it is; nothing is written that could be missed.
    ['a read-only disk', 'sda', { attributes: { ro: '1' } }],
    // Which has a directory `bcache` as the device on top of it has.
    ['the disk below a bcache device', 'sdb', { attributes: { 'bcache/state': 'dirty' } }],
    ['a disk of a software RAID or with mapped devices on it', 'sdc', { partitions: ['sdc1'] }],
  ] satisfies [string, string, FakeDevice][])('is %s', (_, name, device) => {
    const stack = { md0: { bioBased: true, on: ['sdc1'], attributes: { 'md/level': 'raid1' } } };
    const devices: Record<string, FakeDevice> = { sdc: { partitions: ['sdc1'] }, ...stack };
    expect(why(fakeSysfs(root, { ...devices, [name]: device }), name)).toBe('fine');
  });
});

describe('refused by name, with what to protect instead:', () => {
  const disks = { sda: { partitions: ['sda1', 'sda2'] }, sdb: { partitions: ['sdb1'] } };
  const both = 'protect /dev/sda and /dev/sdb instead';

  test.each<[string, Record<string, FakeDevice>, string, string[]]>([
    ['a partition', disks, 'sda1', ['is a partition', 'protect /dev/sda instead']],
    [
      'a mapped device over partitions',
      {
        'dm-0': { bioBased: true, on: ['sda2', 'sdb1'], attributes: { 'dm/name': 'vg-data' } },
      },
      'dm-0',
      ['the mapped device vg-data', both],
    ],
    [
      'a mapped device over a mapped device over a software RAID',
      {
        md0: { bioBased: true, on: ['sda1', 'sdb1'], attributes: { 'md/level': 'raid1' } },
        'dm-0': { bioBased: true, on: ['md0'], attributes: { 'dm/name': 'luks' } },
        'dm-1': { bioBased: true, on: ['dm-0'], attributes: { 'dm/name': 'vg-root' } },
      },
      'dm-1',
      ['the mapped device vg-root', both],
    ],
    [
      'a software RAID of whole disks',
      { md127: { bioBased: true, on: ['sda', 'sdb'], attributes: { 'md/level': 'raid5' } } },
      'md127',
      ['a software RAID', both],
    ],
    [
      'a partition of a software RAID',
      {
        md0: {
          bioBased: true,
          on: ['sda', 'sdb'],
          attributes: { 'md/level': 'raid1' },
          partitions: ['md0p1'],
        },
      },
      'md0p1',
      ['is a partition', both],
    ],
    [
      'compressed memory',
      { zram0: { bioBased: true } },
      'zram0',
      ['compressed memory', 'leave it out'],
    ],
    [
      'a bcache device',
      {
        bcache0: { bioBased: true, on: ['sda', 'sdb1'], attributes: { 'bcache/state': 'clean' } },
      },
      'bcache0',
      ['a bcache device', both],
    ],
    [
      'an NVMe namespace under native multipathing',
      { nvme0n1: { bioBased: true }, nvme0c0n1: { attributes: { hidden: '1' } } },
      'nvme0n1',
      ['native multipathing', 'nvme_core.multipath=N'],
    ],
    [
      'the hidden path of one, which has no device node',
      { nvme0n1: { bioBased: true }, nvme0c0n1: { attributes: { hidden: '1' } } },
      'nvme0c0n1',
      ['one path of an NVMe namespace', 'nvme_core.multipath=N'],
    ],
    [
      'any other device without requests',
      { drbd0: { bioBased: true, on: ['sdb1'] } },
      'drbd0',
      ['not driven by requests', 'protect /dev/sdb instead'],
    ],
    ['one on nothing', { ram0: { bioBased: true } }, 'ram0', ['by requests', 'leave it out']],
    [
      'a zoned disk',
      { sdz: { attributes: { 'queue/zoned': 'host-managed' } } },
      'sdz',
      ['a host-managed zoned disk', 'leave it out'],
    ],
    ['a drive without a medium', { sr0: { attributes: { size: '0' } } }, 'sr0', ['no medium']],
    [
      'a disk whose writes are not counted',
      { sdq: { attributes: { 'queue/iostats': '0' } } },
      'sdq',
      ['does not count', 'echo 1 > /sys/block/sdq/queue/iostats'],
    ],
  ])('%s', (_, devices, name, said) => {
    const reason = why(fakeSysfs(root, { ...disks, ...devices }), name);
    expect(reason).toContain(`/dev/${name}`);
    for (const part of said) expect(reason).toContain(part);
  });

  test('a multipath device, each of its paths, and what lies on top: a path alone would miss the others’ writes', () => {
    const sysfs = fakeSysfs(root, {
      ...disks,
      'dm-0': {
        on: ['sda', 'sdb'],
        attributes: { 'dm/name': 'mpatha', 'dm/uuid': 'mpath-3600508b4' },
      },
      'dm-1': { bioBased: true, on: ['dm-0'], attributes: { 'dm/name': 'vg-data' } },
    });
    for (const name of ['dm-0', 'sda', 'sdb', 'dm-1']) {
      expect(why(sysfs, name)).toContain('the multipath device mpatha');
      expect(why(sysfs, name)).not.toContain('instead');
    }
  });
});
