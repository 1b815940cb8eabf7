/** A raw image as a block device with partitions, the way a source machine's disk is stood in for. */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, globSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import path from 'node:path';

export interface LoopDevice {
  /** /dev/loopN */
  device: string;
  /** The image, as the kernel names it: once detached, the device may be another's. */
  backing: string;
  /** /dev/loopNp1, …, by number; empty when the disk has no partition table, or one that says nothing. */
  partitions: string[];
  /** What is wrong with what looks like a partition table; undefined when nothing is. */
  complaint: string | undefined;
}

/**
 * Attaches with direct I/O to the backing file where its filesystem knows that. `sectorSize` is the device's logical sector, 512 by
 * default.
 */
export async function attach(
  image: string,
  options: { sectorSize?: number } = {},
): Promise<LoopDevice> {
  const device = execFileSync(
    'losetup',
    ['-b', String(options.sectorSize ?? 512), '-f', '--show', image],
    { encoding: 'utf8' },
  ).trim();
  const backing = backingOf(device) ?? '';
  try {
    useDirectIo(device);
    return { device, backing, ...(await addPartitions(device, image)) };
  } catch (error) {
    await detach({ device, backing });
    throw error;
  }
}

/** Succeeds when the image is no longer attached there. Its partitions must not be mounted. */
export async function detach({
  device,
  backing,
}: Pick<LoopDevice, 'device' | 'backing'>): Promise<void> {
  const isOurs = () => backingOf(device) === backing;
  if (!isOurs()) return;
  // Partitions that stay behind would be the next user's: this kernel does not drop them with the loop device.
  if (partitionNames(device).length > 0) execFileSync('partx', ['-d', device], { stdio: 'pipe' });
  execFileSync('losetup', ['-d', device], { stdio: 'pipe' });
  await until(() => !isOurs(), `${device} stays attached: something still holds it open`);
}

/** What a loop device holds now; undefined for nothing. */
function backingOf(device: string): string | undefined {
  try {
    const file = readFileSync(`/sys/block/${path.basename(device)}/loop/backing_file`, 'utf8');
    return file.trim().replace(/ \(deleted\)$/, '');
  } catch {
    return undefined;
  }
}

/** Else the image's pages are cached twice. Some filesystems (a tmpfs of older kernels) have none: it works without, too. */
function useDirectIo(device: string): void {
  try {
    execFileSync('losetup', ['--direct-io=on', device], { stdio: 'pipe' });
  } catch {
    // A step of its own, for it leaves the device attached when it fails.
  }
}

async function addPartitions(
  device: string,
  image: string,
): Promise<Pick<LoopDevice, 'partitions' | 'complaint'>> {
  if (!hasPartitionTable(image)) return { partitions: [], complaint: undefined };
  // losetup -P may return without the nodes, and some kernels parse no partition tables: partx reads the table itself.
  const complaint = partitionNames(device).length === 0 ? complaintOfPartx(device) : undefined;
  const partitions = partitionNames(device).map((name) => `/dev/${name}`);
  for (const node of partitions) await until(() => isBlockDevice(node), `${node} did not appear`);
  return { partitions, complaint };
}

/** A filesystem's own boot sector may look like a partition table, and a table may reach past the disk's end. */
function complaintOfPartx(device: string): string | undefined {
  const { status, stderr } = spawnSync('partx', ['-a', device], { encoding: 'utf8' });
  return status === 0 ? undefined : stderr.trim();
}

function partitionNames(device: string): string[] {
  const name = path.basename(device);
  return globSync(`/sys/block/${name}/${name}p*`)
    .map((entry) => path.basename(entry))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

/** A boot signature with a partition entry in use: a filesystem that starts at sector 0 has neither. */
function hasPartitionTable(image: string): boolean {
  const sector = Buffer.alloc(512);
  const file = openSync(image, 'r');
  try {
    readSync(file, sector, 0, sector.length, 0);
  } finally {
    closeSync(file);
  }
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) return false;
  return [446, 462, 478, 494].some((entry) => sector[entry + 4] !== 0);
}

function isBlockDevice(node: string): boolean {
  return statSync(node, { throwIfNoEntry: false })?.isBlockDevice() ?? false;
}

async function until(condition: () => boolean, otherwise: string): Promise<void> {
  for (const deadline = Date.now() + 5_000; Date.now() < deadline; ) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(otherwise);
}
