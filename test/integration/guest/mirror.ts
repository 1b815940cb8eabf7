/**
 * A software RAID of two of the guest's disks, with a filesystem on it: how it comes to be there, and what its members hold. They
 * keep all but the kernel's own records alike (docs/design/0007).
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { onAndOn } from './writing.ts';

/** What of a member is the array's data, in bytes; and by what its kernel knows it. */
export interface Member {
  file: string;
  offset: number;
  length: number;
  array: string;
  /** How often the array's records changed; members of a working array differ by one at most. */
  events: number;
}

const DISKS = '/dev/vdd /dev/vde';
const MOUNT_POINT = '/run/mnt/mirror';

/** Both disks are zero, so they are alike from the start. The bitmap is one more record that the kernel writes late. */
export const CREATE_MIRROR = `set -e
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --bitmap-chunk=1M --assume-clean ${DISKS}
mkfs.ext4 -q -F /dev/md0
`;

/** Assembles it where that has not been done yet, and writes to it. */
export const USE_MIRROR = `set -e
[ -e /sys/block/md0/md/level ] || mdadm --assemble --run /dev/md0 ${DISKS}
mkdir -p ${MOUNT_POINT}
mount -t ext4 /dev/md0 ${MOUNT_POINT}
${onAndOn(`put(">", "${MOUNT_POINT}/f" . $i % 20, noise(30000), 1); pause(0.3);`)}
`;

const SECTOR = 512;
const SUPERBLOCK = 4096;
const MAGIC = 0xa92b4efc;

/**
 * Reads a member's superblock, of version 1.2 (4 KiB into the disk, little-endian):
 *   0 magic · 16 set UUID (16 bytes) · 128 data offset, 136 data size (u64, sectors) · 200 events (u64)
 */
export function readMember(file: string): Member {
  const bytes = Buffer.alloc(256);
  const descriptor = openSync(file, 'r');
  try {
    readSync(descriptor, bytes, 0, bytes.length, SUPERBLOCK);
  } finally {
    closeSync(descriptor);
  }
  if (bytes.readUInt32LE(0) !== MAGIC) throw new Error(`${file} is no member of an array`);
  return {
    file,
    offset: Number(bytes.readBigUInt64LE(128)) * SECTOR,
    length: Number(bytes.readBigUInt64LE(136)) * SECTOR,
    array: bytes.toString('hex', 16, 32),
    events: Number(bytes.readBigUInt64LE(200)),
  };
}

/** Throws, with what cmp says, when they hold other data. */
export function compareData(one: Member, other: Member): void {
  const skip = `--ignore-initial=${one.offset}:${other.offset}`;
  execFileSync('cmp', [skip, `--bytes=${one.length}`, one.file, other.file], { stdio: 'pipe' });
}

/** Throws, with what e2fsck says, when the filesystem on the array is not whole. */
export function checkFilesystem({ file, offset }: Member): void {
  execFileSync('e2fsck', ['-f', '-n', `${file}?offset=${offset}`], { stdio: 'pipe' });
}
