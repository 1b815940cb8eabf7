/**
 * Which filesystems lie on which disks, and in what order they stack.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import path from 'node:path';
import { errorCode } from '../errors.ts';
import { type DeviceNumber, splitDeviceNumber, sysfs } from './sysfs.ts';

export interface Mount {
  number: DeviceNumber;
  mountPoint: string;
  filesystem: string;
  source: string;
  readOnly: boolean;
}

export interface StackedMount extends Mount {
  /** Kernel names of the devices the filesystem is on; several for a btrfs of several devices. */
  devices: string[];
  /** Whole disks at the bottom, also those below a loop device's backing file. */
  disks: string[];
  /** Levels above the disks: what is higher must be frozen earlier. */
  level: number;
}

const freezable = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'f2fs',
  'jfs',
  'nilfs2',
  'gfs2',
]);
const LEVELS_MAX = 16;

export function isFreezable(filesystem: string): boolean {
  return freezable.has(filesystem);
}

/** Reads a mountinfo file (proc(5)). */
export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ');
    if (left === undefined || right === undefined) continue;
    const fields = left.split(' ');
    const [major, minor] = (fields[2] ?? '').split(':').map(Number);
    const [filesystem, source, options] = right.split(' ');
    const mountPoint = fields[4];
    if (major === undefined || minor === undefined || mountPoint === undefined) continue;
    mounts.push({
      number: { major, minor },
      mountPoint: unescapeOctal(mountPoint),
      filesystem: filesystem ?? '',
      source: unescapeOctal(source ?? ''),
      readOnly: (options ?? '').split(',').includes('ro'),
    });
  }
  return mounts;
}

/** Every mounted filesystem once, from all mount namespaces, those of ours first, that can be written and lies on a device. */
export function mountedFilesystems(): StackedMount[] {
  const seen = new Map<string, StackedMount>();
  const backing = new Map<string, string[]>();
  for (const mount of everyMount()) {
    if (mount.readOnly) continue;
    const key = `${mount.number.major}:${mount.number.minor}`;
    if (seen.has(key)) continue;
    const devices = devicesOf(mount);
    if (devices.length === 0 || !leadsToFilesystem(mount, devices)) continue;
    backing.set(key, devices);
    seen.set(key, { ...mount, devices, disks: [], level: 0 });
  }
  const all = [...seen.values()];
  for (const mount of all) {
    const found = mount.devices.map((device) => stackBelow(device, backing, 0));
    mount.disks = [...new Set(found.flatMap(({ disks }) => disks))].sort();
    mount.level = Math.max(...found.map(({ level }) => level));
  }
  return all;
}

/** Those on the given disks (kernel names), the top of a stack first. */
export function freezeOrder(
  mounts: readonly StackedMount[],
  disks: readonly string[],
): StackedMount[] {
  return mounts
    .filter((mount) => mount.disks.some((disk) => disks.includes(disk)))
    .sort((a, b) => b.level - a.level || (a.mountPoint < b.mountPoint ? 1 : -1));
}

function* everyMount(): Generator<Mount> {
  yield* parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  const namespaces = new Set([readlinkSync('/proc/self/ns/mnt')]);
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const namespace = readlinkSync(`/proc/${pid}/ns/mnt`);
      if (namespaces.has(namespace)) continue;
      namespaces.add(namespace);
      for (const mount of parseMountInfo(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')))
        yield { ...mount, mountPoint: path.join(`/proc/${pid}/root`, mount.mountPoint) };
    } catch (error) {
      // The process ended, or is a kernel thread's.
      if (!['ENOENT', 'ESRCH', 'EACCES', 'EINVAL'].includes(errorCode(error))) throw error;
    }
  }
}

function devicesOf(mount: Mount): string[] {
  if (mount.number.major !== 0) {
    const name = sysfs.kernelNameOfNumber(mount.number);
    return name === undefined ? [] : [name];
  }
  if (!mount.source.startsWith('/dev/')) return [];
  try {
    const stat = statSync(mount.source);
    const name = stat.isBlockDevice()
      ? sysfs.kernelNameOfNumber(splitDeviceNumber(stat.rdev))
      : undefined;
    if (name === undefined) return [];
    return mount.filesystem === 'btrfs' ? btrfsDevices(name) : [name];
  } catch {
    return [];
  }
}

function btrfsDevices(name: string): string[] {
  const root = '/sys/fs/btrfs';
  try {
    for (const entry of readdirSync(root)) {
      const devices = path.join(root, entry, 'devices');
      let members: string[] = [];
      try {
        members = readdirSync(devices);
      } catch {
        continue;
      }
      if (members.includes(name)) return members.sort();
    }
  } catch {
    // No btrfs in sysfs: an old kernel.
  }
  return [name];
}

/** The mount point is a directory and is not covered by a later mount. */
function leadsToFilesystem(mount: Mount, devices: readonly string[]): boolean {
  try {
    const stat = statSync(mount.mountPoint);
    if (!stat.isDirectory()) return false;
    const number = splitDeviceNumber(stat.dev);
    // btrfs gives each subvolume a number of its own.
    if (mount.filesystem === 'btrfs') return devices.length > 0 && number.major === 0;
    return number.major === mount.number.major && number.minor === mount.number.minor;
  } catch {
    return false;
  }
}

function stackBelow(
  device: string,
  filesystems: ReadonlyMap<string, string[]>,
  depth: number,
): { disks: string[]; level: number } {
  if (depth > LEVELS_MAX) return { disks: [], level: depth };
  const disk = sysfs.partitionOf(device)?.disk;
  const own = disk ?? device;
  const file = sysfs.attribute(own, 'loop/backing_file');
  const below =
    file === undefined ? sysfs.neighbours(own, 'slaves') : devicesUnderFile(file, filesystems);
  const results = below.map((next) => stackBelow(next, filesystems, depth + 1));
  // A loop device is a disk of its own, and lies on others as well.
  const disks = results.flatMap((result) => result.disks);
  if (file !== undefined || below.length === 0) disks.push(...sysfs.disksBelow(own));
  return { disks, level: 1 + Math.max(0, ...results.map((result) => result.level)) };
}

function devicesUnderFile(file: string, filesystems: ReadonlyMap<string, string[]>): string[] {
  try {
    const { major, minor } = splitDeviceNumber(statSync(file).dev);
    return filesystems.get(`${major}:${minor}`) ?? [];
  } catch {
    return [];
  }
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
