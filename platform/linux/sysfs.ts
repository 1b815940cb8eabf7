/**
 * What sysfs says of block devices. Everything here is text from the kernel, read anew on every call.
 */
import { readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { BlockDeviceError } from '../deviceErrors.ts';
import { errorCode, errorMessage } from '../errors.ts';

export const SECTOR_SIZE = 512;
const SYS_BLOCK = '/sys/block';

/** A device number as files and mount tables have it. */
export interface DeviceNumber {
  major: number;
  minor: number;
}

/** The kernel's name (`sda`, `dm-0`, `sda1`) of a device node or of a symbolic link to one. */
export function kernelNameOf(devicePath: string): string {
  let rdev: number;
  try {
    const stat = statSync(devicePath);
    if (!stat.isBlockDevice())
      throw new BlockDeviceError(
        'DiskUnsupported',
        devicePath,
        `${devicePath} is not a block device. Name a whole disk, such as /dev/sda or /dev/disk/by-id/….`,
      );
    rdev = stat.rdev;
  } catch (cause) {
    if (cause instanceof BlockDeviceError) throw cause;
    throw new BlockDeviceError(
      'DiskNotFound',
      devicePath,
      `${devicePath} can't be found (${errorMessage(cause)}). Attach the disk, or correct its name in the ProtectedVM.`,
      { cause },
    );
  }
  const name = kernelNameOfNumber(splitDeviceNumber(rdev));
  if (name === undefined)
    throw new BlockDeviceError(
      'DiskVanished',
      devicePath,
      `${devicePath} is a device node without a device behind it. Attach the disk again.`,
    );
  return name;
}

export function kernelNameOfNumber(number: DeviceNumber): string | undefined {
  try {
    return path.basename(readlinkSync(`/sys/dev/block/${number.major}:${number.minor}`));
  } catch {
    return undefined;
  }
}

/** glibc's encoding of a device number. */
export function splitDeviceNumber(rdev: number): DeviceNumber {
  const high = Math.floor(rdev / 2 ** 32);
  const low = rdev >>> 0;
  return {
    major: ((low >>> 8) & 0xfff) | (high & ~0xfff),
    minor: ((low & 0xff) | ((low >>> 12) & 0xfff00)) >>> 0,
  };
}

/** One line of an attribute; undefined when the kernel has no such attribute, or the device is gone. */
export function attribute(name: string, file: string): string | undefined {
  try {
    return readFileSync(path.join('/sys/class/block', name, file), 'utf8').trim();
  } catch (error) {
    if (['ENOENT', 'ENODEV', 'ENXIO', 'EINVAL', 'ENOTDIR'].includes(errorCode(error)))
      return undefined;
    throw error;
  }
}

/** Names of the devices that this one is made of (`slaves`) or that are made of it (`holders`). */
export function neighbours(name: string, direction: 'slaves' | 'holders'): string[] {
  try {
    return readdirSync(path.join('/sys/class/block', name, direction)).sort();
  } catch {
    return [];
  }
}

/** The disk that a partition lies on and where; undefined for what is no partition. */
export function partitionOf(
  name: string,
): { disk: string; offset: number; length: number } | undefined {
  if (attribute(name, 'partition') === undefined) return undefined;
  const start = Number(attribute(name, 'start'));
  const size = Number(attribute(name, 'size'));
  const disk = path.basename(path.dirname(realpathSync(path.join('/sys/class/block', name))));
  return { disk, offset: start * SECTOR_SIZE, length: size * SECTOR_SIZE };
}

export function partitionsOf(disk: string): string[] {
  return readdirSync(path.join(SYS_BLOCK, disk))
    .filter((entry) => attribute(entry, 'partition') !== undefined)
    .filter((entry) => partitionOf(entry)?.disk === disk);
}

/** The whole disks at the bottom of a stack of partitions and mapped devices. */
export function disksBelow(name: string): string[] {
  const found = new Set<string>();
  const walk = (current: string, depth: number): void => {
    if (depth > 16) return;
    const disk = partitionOf(current)?.disk;
    if (disk !== undefined) {
      walk(disk, depth + 1);
      return;
    }
    const below = neighbours(current, 'slaves');
    if (below.length === 0) found.add(current);
    for (const slave of below) walk(slave, depth + 1);
  };
  walk(name, 0);
  return [...found].sort();
}

export function wholeDisks(): string[] {
  return readdirSync(SYS_BLOCK).sort();
}

export function devT(name: string): number | undefined {
  const [major, minor] = (attribute(name, 'dev') ?? '').split(':').map(Number);
  if (major === undefined || minor === undefined || Number.isNaN(major + minor)) return undefined;
  // The kernel's own encoding, as trace events and their filters have it.
  return major * 2 ** 20 + minor;
}

/** Why a device can't be protected as a disk, and what to protect instead; undefined when it can. */
export function refusal(devicePath: string, name: string): string | undefined {
  const instead = () =>
    `protect ${disksBelow(name)
      .map((disk) => `/dev/${disk}`)
      .join(' and ')} instead; what lies on top is protected with it`;
  const partition = partitionOf(name);
  if (partition !== undefined)
    return `${devicePath} is a partition: only whole disks are protected; protect /dev/${partition.disk} instead`;
  if (attribute(name, 'dm/name') !== undefined)
    return `${devicePath} is the mapped device ${attribute(name, 'dm/name')} (LVM, LUKS or multipath), whose writes can't be tracked: ${instead()}`;
  if (attribute(name, 'md/level') !== undefined)
    return `${devicePath} is a software RAID, whose writes can't be tracked: ${instead()}`;
  if (name.startsWith('zram'))
    return `${devicePath} is compressed memory and holds nothing that outlives the machine: leave it out`;
  if (attribute(name, 'bcache/state') !== undefined || name.startsWith('bcache'))
    return `${devicePath} is a bcache device, whose writes can't be tracked: ${instead()}`;
  if (name.startsWith('nvme') && !isRequestBased(name))
    return `${devicePath} is an NVMe namespace under native multipathing, whose writes can't be tracked: boot with nvme_core.multipath=N, or leave it out`;
  if (!isRequestBased(name))
    return `${devicePath} is not driven by requests (${name}), so its writes can't be tracked: leave it out`;
  const zoned = attribute(name, 'queue/zoned');
  if (zoned !== undefined && zoned !== 'none')
    return `${devicePath} is a ${zoned} zoned disk, which a managed disk can't stand in for: leave it out`;
  if (Number(attribute(name, 'size') ?? 0) === 0)
    return `${devicePath} has no medium: attach one, or leave it out`;
  if (attribute(name, 'queue/iostats') !== '1')
    return `the kernel does not count what is written to ${devicePath}: turn it on with "echo 1 > /sys/block/${name}/queue/iostats"`;
  return undefined;
}

/** Bio-based drivers have no hardware queues in sysfs. */
function isRequestBased(name: string): boolean {
  try {
    return readdirSync(path.join(SYS_BLOCK, name, 'mq')).length > 0;
  } catch {
    return false;
  }
}
