/** The machine at the source site: loop devices, a mounted filesystem, a workload that writes to it. */
import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import {
  attach,
  buildBootableImage,
  detach,
  type LoopDevice,
} from '../../test/machines/bootableImage.ts';
import { copyImages } from './images.ts';
import { endUsers, mountLargest, unmount } from './mounting.ts';
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
  /** Undefined when none was asked for and no filesystem could be mounted for our own. */
  workload: Running | undefined;
  /** Our own workload's record of which record was durable when; undefined with a foreign workload. */
  durableLog: string | undefined;
  /** Kills the workload, and whatever of it still has the filesystem open: the machine writes no more. */
  halt(): Promise<void>;
  /** Takes the disks away for ever: unmounts, detaches, removes the images. The workload must have ended. */
  destroy(): Promise<void>;
}

const DISK_MIB = 384;

/**
 * Builds or copies the disks, attaches them, mounts the largest filesystem that can be written to, and starts the workload there.
 * `say` is told what is unusual.
 */
export async function startSource(options: {
  folder: string;
  logs: string;
  images: readonly string[];
  workload: string | undefined;
  undo: Undo;
  say?: (line: string) => void;
}): Promise<SourceMachine> {
  const { folder, undo, say = () => undefined } = options;
  mkdirSync(folder, { recursive: true });
  const images =
    options.images.length > 0 ? copyImages(options.images, folder) : await ourDisks(folder);
  const disks: SourceDisk[] = [];
  const attached: LoopDevice[] = [];
  const candidates: string[] = [];
  for (const [index, image] of images.entries()) {
    const loop = await attach(image);
    attached.push(loop);
    undo.add(`detach ${loop.device}`, () => detach(loop));
    const name = index === 0 ? 'system' : `data${index}`;
    if (loop.complaint !== undefined) say(`the partition table of ${name}: ${loop.complaint}`);
    disks.push({ name, device: loop.device, image });
    candidates.push(...(loop.partitions.length > 0 ? loop.partitions : [loop.device]));
  }
  const mountPoint = path.join(folder, 'mnt');
  undo.add(`unmount ${mountPoint}`, () => unmount(mountPoint));
  const mounted = mountLargest(candidates, mountPoint);
  if (mounted === undefined && options.workload !== undefined)
    throw new Error(
      `the workload has nowhere to write: none of ${candidates.join(', ')} holds a filesystem that this kernel can mount for writing`,
    );
  if (mounted === undefined)
    say('no filesystem of it can be mounted for writing: no workload runs');
  const { workload, durableLog } =
    mounted === undefined ? {} : startWorkload({ ...options, mountPoint });
  const halt = async () => {
    await workload?.kill();
    endUsers(mountPoint);
  };
  const destroy = async () => {
    unmount(mountPoint);
    for (const loop of attached) await detach(loop);
    for (const { image } of disks) rmSync(image);
  };
  return { disks, mountPoint, workload, durableLog, halt, destroy };
}

function startWorkload(options: {
  folder: string;
  logs: string;
  workload: string | undefined;
  mountPoint: string;
  undo: Undo;
}): { workload: Running; durableLog: string | undefined } {
  const { mountPoint } = options;
  const ours = options.workload === undefined;
  const durableLog = ours ? path.join(options.folder, 'durable-records') : undefined;
  const program =
    options.workload ?? path.join(import.meta.dirname, '../../test/machines/workload.ts');
  const workload = start({
    name: 'workload',
    command: ours
      ? ['setpriv', '--pdeathsig', 'KILL', process.execPath, program, mountPoint]
      : [program, mountPoint],
    logs: options.logs,
    env: durableLog === undefined ? {} : { FARSHORE_WORKLOAD_LOG: durableLog },
  });
  options.undo.add('stop the workload', () => workload.kill());
  return { workload, durableLog };
}

/** A disk that boots, and one for data. */
async function ourDisks(folder: string): Promise<string[]> {
  const system = path.join(folder, 'system.raw');
  const data = path.join(folder, 'data1.raw');
  await buildBootableImage({
    path: system,
    sizeMiB: DISK_MIB,
    extraDisks: [{ path: data, sizeMiB: 64 }],
  });
  return [system, data];
}
