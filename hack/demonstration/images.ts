/** Raw images of somebody else's disks: looked at before anything is started, and copied, so that the originals stay as they are. */
import { execFileSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import path from 'node:path';
import { mostDisks } from './targetSize.ts';

const SECTOR = 512;
/** Beginnings of files that hold a disk, but not as its bytes. */
const FORMATS: readonly { name: string; magic: string }[] = [
  { name: 'qcow2', magic: 'QFI\xfb' },
  { name: 'VMDK', magic: 'KDMV' },
  { name: 'VHDX', magic: 'vhdxfile' },
];

/** Throws, with what to do, when these can't be a machine's disks. Returns what somebody should know of them. */
export function checkImages(images: readonly string[]): string[] {
  if (images.length > mostDisks())
    throw new Error(
      `${images.length} disks are more than any size of machine here takes: ${mostDisks()} at most`,
    );
  return images.flatMap((image) => {
    const size = sizeOf(image);
    if (size < SECTOR)
      throw new Error(`${image} is empty: a disk has one sector of ${SECTOR} bytes at least`);
    const format = FORMATS.find(({ magic }) => begins(image, magic));
    if (format !== undefined)
      throw new Error(
        `${image} is a ${format.name} file, not a raw image: qemu-img convert -O raw makes one of it`,
      );
    const left = size % SECTOR;
    return left === 0
      ? []
      : [`the last ${left} bytes of ${image} are no whole sector: no disk has them`];
  });
}

/** Throws when this can't be run. */
export function checkWorkload(file: string): void {
  try {
    accessSync(file, constants.X_OK);
  } catch {
    throw new Error(`the workload ${file} is not executable: chmod +x it`);
  }
}

export function copyImages(images: readonly string[], folder: string): string[] {
  return images.map((given, index) => {
    const image = path.join(folder, `disk${index}.raw`);
    execFileSync('cp', ['--sparse=always', given, image], { stdio: 'pipe' });
    return image;
  });
}

function sizeOf(image: string): number {
  if (!statSync(image).isBlockDevice()) return statSync(image).size;
  return Number(execFileSync('blockdev', ['--getsize64', image], { encoding: 'utf8' }));
}

function begins(image: string, magic: string): boolean {
  const bytes = Buffer.alloc(magic.length);
  const file = openSync(image, 'r');
  try {
    readSync(file, bytes, 0, bytes.length, 0);
  } finally {
    closeSync(file);
  }
  return bytes.toString('latin1') === magic;
}
