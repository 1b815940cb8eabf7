/** The machine at the source site: loop devices, a mounted filesystem, a workload that writes to it. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { attach, buildBootableImage, detach } from '../../test/machines/bootableImage.ts';
import { type Running, start } from './process.ts';
import type { Undo } from './undo.ts';

export interface SourceDisk {
  name: string;
  device: string;
  image: string;
}

export interface SourceMachine {
  disks: SourceDisk[];
  mountPoint: string;
  workload: Running;
  /** Our own workload's record of which record was durable when; undefined with a foreign workload. */
  durableLog: string | undefined;
  /** Takes the disks away for ever: unmounts, detaches, removes the images. The workload must have ended. */
  destroy(): Promise<void>;
}

const DISK_MIB = 384;

/** Builds or copies the disks, attaches them, mounts the largest filesystem that can be, and starts the workload there. */
export async function startSource(options: {
  folder: string;
  logs: string;
  images: readonly string[];
  workload: string | undefined;
  undo: Undo;
}): Promise<SourceMachine> {
  mkdirSync(options.folder, { recursive: true });
  const images = await diskImages(options);
  const disks: SourceDisk[] = [];
  const candidates: string[] = [];
  for (const [index, image] of images.entries()) {
    const loop = await attach(image);
    options.undo.add(`detach ${loop.device}`, () => detach(loop.device));
    disks.push({ name: index === 0 ? 'system' : `data${index}`, device: loop.device, image });
    candidates.push(...(loop.partitions.length > 0 ? loop.partitions : [loop.device]));
  }
  const mountPoint = path.join(options.folder, 'mnt');
  mountLargest(candidates, mountPoint);
  options.undo.add(`unmount ${mountPoint}`, () => unmount(mountPoint));
  const ours = options.workload === undefined;
  const durableLog = ours ? path.join(options.folder, 'durable-records') : undefined;
  const program =
    options.workload ?? path.join(import.meta.dirname, '../../test/machines/workload.ts');
  const workload = start({
    name: 'workload',
    command: ours ? [process.execPath, program, mountPoint] : [program, mountPoint],
    logs: options.logs,
    env: durableLog === undefined ? {} : { FARSHORE_WORKLOAD_LOG: durableLog },
  });
  options.undo.add('stop the workload', () => workload.kill());
  const destroy = async () => {
    unmount(mountPoint);
    for (const { device, image } of disks) {
      await detach(device);
      rmSync(image);
    }
  };
  return { disks, mountPoint, workload, durableLog, destroy };
}

async function diskImages(options: {
  folder: string;
  images: readonly string[];
}): Promise<string[]> {
  if (options.images.length === 0) {
    const image = path.join(options.folder, 'system.raw');
    const data = path.join(options.folder, 'data1.raw');
    await buildBootableImage({
      path: image,
      sizeMiB: DISK_MIB,
      extraDisks: [{ path: data, sizeMiB: 64 }],
    });
    return [image, data];
  }
  return options.images.map((given, index) => {
    const image = path.join(options.folder, `disk${index}.raw`);
    execFileSync('cp', ['--sparse=always', given, image]);
    return image;
  });
}

/** Mounts whichever of the devices holds the largest filesystem that this kernel knows. */
function mountLargest(devices: readonly string[], mountPoint: string): void {
  mkdirSync(mountPoint, { recursive: true });
  const bySize = devices
    .map((device) => ({ device, size: Number(execFileSync('blockdev', ['--getsize64', device])) }))
    .sort((a, b) => b.size - a.size);
  for (const { device } of bySize)
    try {
      execFileSync('mount', [device, mountPoint], { stdio: 'pipe' });
      return;
    } catch {
      // No filesystem, or one this kernel has no driver for: the next one may do.
    }
  throw new Error(`none of ${devices.join(', ')} can be mounted`);
}

/** Succeeds when nothing is mounted there. Ends whatever still uses it. */
function unmount(mountPoint: string): void {
  if (!readFileSync('/proc/self/mounts', 'utf8').includes(` ${mountPoint} `)) return;
  try {
    execFileSync('fsfreeze', ['-u', mountPoint], { stdio: 'pipe' });
  } catch {
    // It was not frozen.
  }
  execFileSync(
    'sh',
    [
      '-c',
      `fuser -k -9 -m "$0" >/dev/null 2>&1; umount "$0" || { sleep 1; umount "$0"; }`,
      mountPoint,
    ],
    {
      stdio: 'pipe',
    },
  );
}
