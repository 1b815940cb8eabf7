/**
 * What sysfs says of block devices. Everything here is text from the kernel, read anew on every call.
 */
import { readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { BlockDeviceError } from '../deviceErrors.ts';
import { errorCode, errorMessage } from '../errors.ts';

export const SECTOR_SIZE = 512;

/** A device number as files and mount tables have it. */
export interface DeviceNumber {
  major: number;
  minor: number;
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

export class Sysfs {
  readonly #root: string;

  constructor(root = '/sys') {
    this.#root = root;
  }

  /** The kernel's name (`sda`, `dm-0`, `sda1`) of a device node or of a symbolic link to one. */
  kernelNameOf(devicePath: string): string {
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
    const name = this.kernelNameOfNumber(splitDeviceNumber(rdev));
    if (name === undefined)
      throw new BlockDeviceError(
        'DiskVanished',
        devicePath,
        `${devicePath} is a device node without a device behind it. Attach the disk again.`,
      );
    return name;
  }

  kernelNameOfNumber(number: DeviceNumber): string | undefined {
    try {
      const link = path.join(this.#root, 'dev/block', `${number.major}:${number.minor}`);
      return path.basename(readlinkSync(link));
    } catch {
      return undefined;
    }
  }

  /** One line of an attribute; undefined when the kernel has no such attribute, or the device is gone. */
  attribute(name: string, file: string): string | undefined {
    try {
      return readFileSync(path.join(this.#device(name), file), 'utf8').trim();
    } catch (error) {
      if (['ENOENT', 'ENODEV', 'ENXIO', 'EINVAL', 'ENOTDIR'].includes(errorCode(error)))
        return undefined;
      throw error;
    }
  }

  /** Names of the devices that this one is made of (`slaves`) or that are made of it (`holders`). */
  neighbours(name: string, direction: 'slaves' | 'holders'): string[] {
    return this.entries(name, direction).sort();
  }

  /** What a directory of a device holds; nothing when there is none. */
  entries(name: string, directory: string): string[] {
    try {
      return readdirSync(path.join(this.#device(name), directory));
    } catch {
      return [];
    }
  }

  /** The disk that a partition lies on and where; undefined for what is no partition. */
  partitionOf(name: string): { disk: string; offset: number; length: number } | undefined {
    if (this.attribute(name, 'partition') === undefined) return undefined;
    const start = Number(this.attribute(name, 'start'));
    const size = Number(this.attribute(name, 'size'));
    const disk = path.basename(path.dirname(realpathSync(this.#device(name))));
    return { disk, offset: start * SECTOR_SIZE, length: size * SECTOR_SIZE };
  }

  partitionsOf(disk: string): { name: string; offset: number; length: number }[] {
    return this.entries(disk, '.').flatMap((name) => {
      const place = this.partitionOf(name);
      return place?.disk === disk ? [{ name, offset: place.offset, length: place.length }] : [];
    });
  }

  /** The whole disks at the bottom of a stack of partitions and mapped devices. */
  disksBelow(name: string): string[] {
    const found = new Set<string>();
    const walk = (current: string, depth: number): void => {
      if (depth > 16) return;
      const disk = this.partitionOf(current)?.disk;
      if (disk !== undefined) {
        walk(disk, depth + 1);
        return;
      }
      const below = this.neighbours(current, 'slaves');
      if (below.length === 0) found.add(current);
      for (const slave of below) walk(slave, depth + 1);
    };
    walk(name, 0);
    return [...found].sort();
  }

  wholeDisks(): string[] {
    return readdirSync(path.join(this.#root, 'block')).sort();
  }

  devT(name: string): number | undefined {
    const [major, minor] = (this.attribute(name, 'dev') ?? '').split(':').map(Number);
    if (major === undefined || minor === undefined || Number.isNaN(major + minor)) return undefined;
    // The kernel's own encoding, as trace events and their filters have it.
    return major * 2 ** 20 + minor;
  }

  /** Bio-based drivers have no hardware queues in sysfs. */
  isRequestBased(name: string): boolean {
    return this.entries(name, 'mq').length > 0;
  }

  #device(name: string): string {
    return path.join(this.#root, 'class/block', name);
  }
}

/** This machine's. */
export const sysfs = new Sysfs();
