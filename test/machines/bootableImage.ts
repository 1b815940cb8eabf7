/**
 * A source machine's disk: an MBR with its boot loader (extlinux), Debian's cloud kernel, and a small Linux that starts from
 * it and says on the serial console what it finds (guest/init).
 *
 * Partition 1 (ext4, active) holds boot loader, kernel and system; partition 2 (ext4) is for data. Built once a version into a
 * cache and copied sparsely from there. Nothing is left mounted or attached, also when the build is killed: filesystems are
 * filled by mke2fs, and the boot loader, which needs a mounted one, is installed in a mount namespace of its own.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { cacheFolder } from '../../hack/cacheFolder.ts';
import { type CloudKernel, cloudKernel, modulesInOrder } from './cloudKernel.ts';
import { type InitramfsEntry, initramfs } from './cpio.ts';

export { attach, detach, type LoopDevice } from './loopDevice.ts';

const MIB = 1 << 20;
/** Room for boot loader, kernel and system. */
const SYSTEM_MIB = 96;
const FIRST_MIB = 1;
const DRIVERS = ['virtio_pci', 'sd_mod', 'virtio_blk', 'virtio_scsi', 'ata_piix'];
const SYSTEM_UUID = '5f0c1d6e-6f1b-4c0b-9c57-66617273686f';
const MBR_CODE = '/usr/lib/EXTLINUX/mbr.bin';

export interface BootableImage {
  /** Where the raw disk is written; a file that is there is replaced. */
  path: string;
  /** Of the whole disk: 192 at least; 384 by default. */
  sizeMiB?: number;
  /** Data disks to make besides: ext4 over the whole disk, no partition table. */
  extraDisks?: readonly { path: string; sizeMiB: number }[];
}

/** Writes the disk (and its data disks). Needs root for the boot loader. A few seconds when the cache holds this size already. */
export async function buildBootableImage(image: BootableImage): Promise<void> {
  const sizeMiB = image.sizeMiB ?? 384;
  if (sizeMiB < SYSTEM_MIB * 2)
    throw new Error(`a bootable disk needs ${SYSTEM_MIB * 2} MiB at least, not ${sizeMiB}`);
  const kernel = cloudKernel();
  const template = path.join(
    cacheFolder('machines'),
    `${kernel.version}-${sizeMiB}-${recipeDigest()}.raw`,
  );
  if (!existsSync(template)) buildTemplate({ template, sizeMiB, kernel });
  copySparsely(template, image.path);
  for (const disk of image.extraDisks ?? []) makeDataDisk(disk);
}

/** One ext4 filesystem over the whole disk. */
export function makeDataDisk(disk: { path: string; sizeMiB: number }): void {
  rmSync(disk.path, { force: true });
  makeSparse(disk.path, disk.sizeMiB);
  run('mkfs.ext4', '-q', '-F', '-b', '4096', disk.path);
}

function buildTemplate(options: { template: string; sizeMiB: number; kernel: CloudKernel }): void {
  const working = mkdtempSync(path.join(path.dirname(options.template), '.building-'));
  try {
    const disk = path.join(working, 'disk.raw');
    makeSparse(disk, options.sizeMiB);
    partition(disk, options.sizeMiB);
    const system = path.join(working, 'system');
    layOutSystem(system, options.kernel);
    makeFilesystem(disk, {
      startMiB: FIRST_MIB,
      sizeMiB: SYSTEM_MIB,
      options: ['-U', SYSTEM_UUID, '-d', system],
    });
    makeFilesystem(disk, {
      startMiB: FIRST_MIB + SYSTEM_MIB,
      sizeMiB: options.sizeMiB - FIRST_MIB - SYSTEM_MIB,
      options: [],
    });
    installBootLoader(disk, { mountPoint: path.join(working, 'mount'), sizeMiB: SYSTEM_MIB });
    renameSync(disk, options.template);
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
}

function partition(disk: string, sizeMiB: number): void {
  const data = FIRST_MIB + SYSTEM_MIB;
  writeBootRecord(disk, [
    `start=${FIRST_MIB}MiB, size=${SYSTEM_MIB}MiB, type=83, bootable`,
    `start=${data}MiB, size=${sizeMiB - data}MiB, type=83`,
  ]);
}

/** An MBR with these partitions (sfdisk's lines) and the code that starts the active one. */
export function writeBootRecord(disk: string, partitions: readonly string[]): void {
  const table = ['label: dos', ...partitions];
  execFileSync('sfdisk', ['-q', '--no-reread', '--no-tell-kernel', disk], {
    input: `${table.join('\n')}\n`,
  });
  const code = readFileSync(MBR_CODE).subarray(0, 440);
  const file = openSync(disk, 'r+');
  try {
    writeSync(file, code, 0, code.length, 0);
  } finally {
    closeSync(file);
  }
}

/** ext4 that the boot loader can read. */
export function makeFilesystem(
  disk: string,
  filesystem: { startMiB: number; sizeMiB: number; options: string[] },
): void {
  // extlinux reads no 64-bit ext4.
  const features = ['-q', '-F', '-b', '4096', '-O', '^64bit'];
  const place = ['-E', `offset=${filesystem.startMiB * MIB}`];
  run('mkfs.ext4', ...features, ...place, ...filesystem.options, disk, `${filesystem.sizeMiB}M`);
}

/** Into /boot of the filesystem that starts at 1 MiB. Needs root. */
export function installBootLoader(
  disk: string,
  options: { mountPoint: string; sizeMiB: number },
): void {
  const { mountPoint, sizeMiB } = options;
  mkdirSync(mountPoint);
  const script = `set -e
mount -t ext4 -o loop,offset=${FIRST_MIB * MIB},sizelimit=${sizeMiB * MIB} "$1" "$2"
trap 'umount "$2"' EXIT
extlinux --install "$2/boot"`;
  run('unshare', '--mount', 'sh', '-c', script, 'sh', disk, mountPoint);
}

/** The root directory of the machine, as mke2fs copies it. */
function layOutSystem(system: string, kernel: CloudKernel): void {
  for (const name of ['bin', 'sbin', 'boot', 'proc', 'sys', 'dev', 'run', 'etc', 'tmp'])
    mkdirSync(path.join(system, name), { recursive: true });
  layOutBoot(path.join(system, 'boot'), { kernel, drivers: [], rootUuid: SYSTEM_UUID });
  copyFileSync('/usr/bin/busybox', path.join(system, 'bin/busybox'));
  run(path.join(system, 'bin/busybox'), 'sh', '-c', installApplets, 'sh', path.join(system, 'bin'));
  copyFileSync(guestFile('init'), path.join(system, 'sbin/init'));
  chmodSync(path.join(system, 'sbin/init'), 0o755);
  for (const file of programWithLibraries('/usr/sbin/e2fsck')) {
    const target = path.join(system, file.inGuest);
    mkdirSync(path.dirname(target), { recursive: true });
    copyFileSync(file.source, target);
  }
}

/** Kernel, first filesystem with these drivers besides those every disk needs, and what the boot loader is to do with them. */
export function layOutBoot(
  directory: string,
  options: { kernel: CloudKernel; drivers: readonly string[]; rootUuid: string },
): void {
  const { kernel, drivers, rootUuid } = options;
  copyFileSync(kernel.vmlinuz, path.join(directory, 'vmlinuz'));
  writeFileSync(path.join(directory, 'initrd.img'), machineInitramfs(kernel, drivers));
  // Emulated code is translated anew wherever else it lies: where a program lies at random, each start of it costs seven times as much.
  const cheap = 'norandmaps tsc=reliable mitigations=off';
  const configuration = [
    'SERIAL 0 115200',
    'DEFAULT linux',
    'LABEL linux',
    '  LINUX vmlinuz',
    '  INITRD initrd.img',
    `  APPEND console=ttyS0 root=UUID=${rootUuid} loglevel=5 panic=-1 scsi_mod.scan=sync ${cheap}`,
    '',
  ];
  writeFileSync(path.join(directory, 'extlinux.conf'), configuration.join('\n'));
}

const installApplets = `for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$1/$applet"; done`;

function machineInitramfs(kernel: CloudKernel, drivers: readonly string[]): Buffer {
  const modules = modulesInOrder(kernel, [...DRIVERS, ...drivers]);
  const order = modules.map((file) => `${path.basename(file)}\n`).join('');
  const entries: InitramfsEntry[] = [
    ...['bin', 'sbin', 'proc', 'sys', 'dev', 'modules'].map(directory),
    ...['lib', 'lib/x86_64-linux-gnu', 'lib64'].map(directory),
    { path: 'init', file: guestFile('initramfs-init'), executable: true },
    { path: 'bin/busybox', file: '/usr/bin/busybox', executable: true },
    { path: 'modules/order', file: Buffer.from(order) },
    ...modules.map((file) => ({ path: `modules/${path.basename(file)}`, file })),
    ...programWithLibraries('/usr/sbin/e2fsck').map((file) => ({
      path: file.inGuest,
      file: file.source,
      executable: true,
    })),
  ];
  return initramfs(entries);
}

function directory(name: string): InitramfsEntry {
  return { path: name, directory: true };
}

/** A dynamic program, to lie in /sbin, and its loader and libraries, which are looked for at the paths they have here. */
export function programWithLibraries(program: string): { source: string; inGuest: string }[] {
  const libraries = [
    ...execFileSync('ldd', [program], { encoding: 'utf8' }).matchAll(/(\/\S+\.so\S*) \(0x/g),
  ].map((match) => match[1] ?? '');
  return [
    { source: program, inGuest: `sbin/${path.basename(program)}` },
    ...libraries.map((source) => ({ source, inGuest: source.slice(1) })),
  ];
}

/** Whatever shapes the image besides kernel and size; another recipe is another image in the cache. */
function recipeDigest(): string {
  const hash = createHash('sha256');
  const guest = path.join(import.meta.dirname, 'guest');
  for (const file of readdirSync(guest).sort()) hash.update(readFileSync(path.join(guest, file)));
  for (const source of ['bootableImage.ts', 'cpio.ts'])
    hash.update(readFileSync(path.join(import.meta.dirname, source)));
  return hash.digest('hex').slice(0, 12);
}

function guestFile(name: string): string {
  return path.join(import.meta.dirname, 'guest', name);
}

export function makeSparse(file: string, sizeMiB: number): void {
  const descriptor = openSync(file, 'w');
  try {
    ftruncateSync(descriptor, sizeMiB * MIB);
  } finally {
    closeSync(descriptor);
  }
}

export function copySparsely(from: string, to: string): void {
  rmSync(to, { force: true });
  run('cp', '--sparse=always', from, to);
}

function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: 'pipe' });
}
