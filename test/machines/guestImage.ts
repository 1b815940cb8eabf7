/**
 * A disk of a machine that protects itself: it boots from its own boot loader into an ext4 root filesystem that holds Node, the
 * agent (bundled) and the programs that the agent runs, taken from this machine; then a swap partition.
 *
 * All but the agent is built once a version into the cache; the agent of this working tree is put into each copy.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { rolldown } from 'rolldown';
import { cacheFolder } from '../../hack/cacheFolder.ts';
import {
  copySparsely,
  installBootLoader,
  layOutBoot,
  makeFilesystem,
  makeSparse,
  writeBootRecord,
} from './bootableImage.ts';
import { type CloudKernel, cloudKernel } from './cloudKernel.ts';

const ROOT_UUID = '5f0c1d6e-6f1b-4c0b-9c57-67756573740a';
const MIB = 1 << 20;
const FIRST_MIB = 1;
const ROOT_MIB = 320;
const SWAP_MIB = 32;
/** Bytes of the disk that hold swap. */
export const GUEST_SWAP = {
  offset: (FIRST_MIB + ROOT_MIB) * MIB,
  length: SWAP_MIB * MIB,
} as const;
const REPOSITORY = path.resolve(import.meta.dirname, '../..');
const RECIPE = [
  'guestImage.ts',
  'bootableImage.ts',
  'cpio.ts',
  'protected/init',
  'protected/control',
];
const DRIVERS = [
  ...['virtio_net', 'nvme', 'loop', 'dm_mod', 'raid1'],
  ...['vfat', 'nls_ascii', 'nls_cp437', 'nls_utf8', 'nls_iso8859_1'],
];
const PROGRAMS = [
  ...['dash', 'base64', 'cat', 'cp', 'date', 'dd', 'head', 'ln', 'ls', 'mkdir', 'mv', 'rm', 'sh'],
  ...['sha256sum', 'sleep', 'stat', 'stty', 'sync', 'tail', 'tr', 'truncate', 'grep', 'cut', 'seq'],
  ...['mount', 'umount', 'fsfreeze', 'fstrim', 'losetup', 'blockdev', 'swapon', 'flock', 'findmnt'],
  ...['mkfs.ext4', 'e2fsck', 'filefrag', 'dmsetup', 'mdadm', 'dmesg', 'perl'],
];
/** In Debian's essential packages or not: what to fetch when this machine has not got it. */
const PACKAGES: Record<string, string[]> = {
  dmsetup: ['dmsetup', 'libdevmapper1.02.1'],
  mdadm: ['mdadm', 'libudev1'],
};
const APPLETS = [
  'awk',
  'chmod',
  'cmp',
  'df',
  'find',
  'hostname',
  'ip',
  'mkdosfs',
  'ps',
  'sed',
  'sort',
];

/** Writes the disk; a file that is there is replaced. Needs root for the boot loader. */
export async function buildGuestImage(file: string, agent: { passphrase: string }): Promise<void> {
  const kernel = cloudKernel();
  const template = path.join(cacheFolder('machines'), `guest-${kernel.version}-${digest()}.raw`);
  if (!existsSync(template)) buildTemplate(template, kernel);
  copySparsely(template, file);
  const working = mkdtempSync(path.join(path.dirname(file), '.agent-'));
  try {
    writeFileSync(path.join(working, 'passphrase'), `${agent.passphrase}\n`);
    await bundle('dataplane/agent/main.ts', path.join(working, 'main.mjs'));
    await bundle('platform/linux/traceWorker.ts', path.join(working, 'traceWorker.mjs'));
    putInto(file, working, ['passphrase', 'main.mjs', 'traceWorker.mjs']);
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
}

function buildTemplate(template: string, kernel: CloudKernel): void {
  const working = mkdtempSync(path.join(path.dirname(template), '.building-'));
  try {
    const disk = path.join(working, 'disk.raw');
    const system = path.join(working, 'system');
    mkdirSync(system);
    layOutSystem(system, kernel);
    makeSparse(disk, FIRST_MIB + ROOT_MIB + SWAP_MIB);
    writeBootRecord(disk, [
      `start=${FIRST_MIB}MiB, size=${ROOT_MIB}MiB, type=83, bootable`,
      `start=${FIRST_MIB + ROOT_MIB}MiB, size=${SWAP_MIB}MiB, type=82`,
    ]);
    makeFilesystem(disk, {
      startMiB: FIRST_MIB,
      sizeMiB: ROOT_MIB,
      options: ['-U', ROOT_UUID, '-d', system],
    });
    makeSwap(disk, working);
    installBootLoader(disk, { mountPoint: path.join(working, 'mount'), sizeMiB: ROOT_MIB });
    renameSync(disk, template);
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
}

/** The first page of the second partition. */
function makeSwap(disk: string, working: string): void {
  const area = path.join(working, 'swap');
  makeSparse(area, SWAP_MIB);
  chmodSync(area, 0o600);
  run('mkswap', '-q', area);
  const seek = String(GUEST_SWAP.offset / 4096);
  run('dd', `if=${area}`, `of=${disk}`, 'bs=4096', 'count=1', `seek=${seek}`, 'conv=notrunc');
}

function layOutSystem(system: string, kernel: CloudKernel): void {
  for (const name of ['usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'boot', 'proc', 'sys', 'dev'])
    mkdirSync(path.join(system, name), { recursive: true });
  for (const name of ['run', 'etc', 'tmp', 'root', 'opt/farshore', 'var/lib', 'var/log', 'data'])
    mkdirSync(path.join(system, name), { recursive: true });
  for (const name of ['bin', 'sbin', 'lib', 'lib64'])
    symlinkSync(`usr/${name}`, path.join(system, name));
  layOutBoot(path.join(system, 'boot'), { kernel, drivers: DRIVERS, rootUuid: ROOT_UUID });
  copyFileSync('/usr/bin/busybox', path.join(system, 'usr/bin/busybox'));
  for (const applet of APPLETS) symlinkSync('busybox', path.join(system, 'usr/bin', applet));
  for (const program of PROGRAMS) {
    if (program === 'sh') symlinkSync('dash', path.join(system, 'usr/bin/sh'));
    else copyProgram(system, program);
  }
  copyWithLibraries(system, path.join(REPOSITORY, 'node_modules/node/bin/node'), 'usr/bin/node');
  for (const name of ['init', 'control'])
    cpSync(path.join(import.meta.dirname, 'protected', name), path.join(system, 'usr/sbin', name));
}

/** From this machine, else from Debian's package. */
function copyProgram(system: string, program: string): void {
  const found = globSync(`/usr/{sbin,bin}/${program}`)[0];
  const packages = PACKAGES[program];
  if (found !== undefined) copyWithLibraries(system, realpathSync(found), found.slice(1));
  else if (packages !== undefined) fetchProgram(system, program, packages);
  else if (!['echo'].includes(program))
    throw new Error(`this machine has no ${program} for the guest: install it`);
}

function fetchProgram(system: string, program: string, packages: readonly string[]): void {
  const working = mkdtempSync(path.join(cacheFolder('machines'), '.fetching-'));
  try {
    execFileSync('apt-get', ['download', ...packages], { cwd: working, stdio: 'pipe' });
    const root = path.join(working, 'root');
    for (const deb of globSync('*.deb', { cwd: working }))
      execFileSync('dpkg-deb', ['-x', path.join(working, deb), root]);
    const file = globSync(`{usr/,}{sbin,bin}/${program}`, { cwd: root })[0];
    if (file === undefined) throw new Error(`${packages.join(', ')} hold no ${program}`);
    const libraries = globSync(`${root}/{usr/,}lib/x86_64-linux-gnu`).join(':');
    copyWithLibraries(system, path.join(root, file), `usr/sbin/${program}`, libraries);
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
}

function copyWithLibraries(system: string, source: string, target: string, searched = ''): void {
  copyFileSync(source, path.join(system, target));
  const listed = execFileSync('sh', ['-c', 'ldd "$1" || true', 'sh', source], {
    encoding: 'utf8',
    env: { ...process.env, LD_LIBRARY_PATH: searched },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  for (const [, library = ''] of listed.matchAll(/(\/\S+\.so\S*) \(0x/g)) {
    const inGuest = library.replace(/^.*?\/(lib(64)?\/)/, '/$1');
    const to = path.join(system, inGuest);
    mkdirSync(path.dirname(to), { recursive: true });
    if (!existsSync(to)) copyFileSync(library, to);
  }
}

async function bundle(source: string, file: string): Promise<void> {
  const build = await rolldown({
    input: path.join(REPOSITORY, source),
    platform: 'node',
    logLevel: 'silent',
  });
  await build.write({ file, format: 'esm', codeSplitting: false });
  await build.close();
}

/** Into /opt/farshore, without mounting the filesystem. */
function putInto(disk: string, directory: string, files: readonly string[]): void {
  const commands = files.map((name) => `write ${path.join(directory, name)} opt/farshore/${name}`);
  const said = execFileSync('debugfs', ['-w', '-f', '-', `${disk}?offset=${FIRST_MIB * MIB}`], {
    input: `${commands.join('\n')}\n`,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const written = [...said.matchAll(/Allocated inode/g)].length;
  if (written !== files.length)
    throw new Error(`debugfs wrote ${written} of ${files.length} files: ${said}`);
}

/** Whatever shapes the image besides kernel and agent; another recipe is another image in the cache. */
function digest(): string {
  const hash = createHash('sha256').update(process.version);
  for (const file of RECIPE) hash.update(readFileSync(path.join(import.meta.dirname, file)));
  for (const file of readdirSync(path.join(import.meta.dirname, 'guest')).sort())
    hash.update(readFileSync(path.join(import.meta.dirname, 'guest', file)));
  return hash.digest('hex').slice(0, 12);
}

function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: 'pipe' });
}
