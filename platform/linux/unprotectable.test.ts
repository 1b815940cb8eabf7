import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Sysfs } from './sysfs.ts';
import { whyUnprotectable } from './unprotectable.ts';

interface FakeDevice {
  /** Of what it is made. */
  on?: string[];
  /** Driven by requests, unless said otherwise. */
  bioBased?: boolean;
  attributes?: Record<string, string>;
  partitions?: string[];
}

let root: string;

beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'farshore-sysfs-'));
  for (const folder of ['block', 'class/block', 'devices'])
    mkdirSync(path.join(root, folder), { recursive: true });
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(directory: string, attributes: Record<string, string>): void {
  for (const [name, value] of Object.entries(attributes)) {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    writeFileSync(path.join(directory, name), `${value}\n`);
  }
}

/** As the kernel lays it out: partitions inside of their disk, everything by name under class/block, links both ways of a stack. */
function machine(devices: Record<string, FakeDevice>): Sysfs {
  const link = (target: string, name: string) => symlinkSync(target, path.join(root, name));
  for (const [name, { bioBased, attributes, partitions = [] }] of Object.entries(devices)) {
    const directory = path.join(root, 'devices', name);
    const plain = { size: '2048', ro: '0', hidden: '0', 'queue/zoned': 'none' };
    put(directory, { ...plain, 'queue/iostats': '1', ...attributes });
    for (const folder of ['holders', 'slaves', ...(bioBased === true ? [] : ['mq/0'])])
      mkdirSync(path.join(directory, folder), { recursive: true });
    link(directory, `block/${name}`);
    link(directory, `class/block/${name}`);
    for (const [index, partition] of partitions.entries()) {
      const inside = path.join(directory, partition);
      put(inside, { partition: String(index + 1), start: '0', size: '1024' });
      mkdirSync(path.join(inside, 'holders'));
      link(inside, `class/block/${partition}`);
    }
  }
  for (const [name, { on = [] }] of Object.entries(devices))
    for (const below of on) {
      link(path.join(root, 'class/block', below), `class/block/${name}/slaves/${below}`);
      link(path.join(root, 'class/block', name), `class/block/${below}/holders/${name}`);
    }
  return new Sysfs(root);
}

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
    expect(why(machine({ ...devices, [name]: device }), name)).toBe('fine');
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
    const reason = why(machine({ ...disks, ...devices }), name);
    expect(reason).toContain(`/dev/${name}`);
    for (const part of said) expect(reason).toContain(part);
  });

  test('a multipath device, each of its paths, and what lies on top: a path alone would miss the others’ writes', () => {
    const sysfs = machine({
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
