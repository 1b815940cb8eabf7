import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  attach,
  buildBootableImage,
  detach,
  type LoopDevice,
  makeDataDisk,
} from '../machines/bootableImage.ts';
import { bootMachine } from '../machines/qemu.ts';
import { lastDurableRecord } from '../machines/workload.ts';

const BOOT_MS = 60_000;
const RECOVERED = /FARSHORE-RECOVERED record=(\S+) intact=(\S+)/;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'farshore-machines-'));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

/** Runs the workload in the machine's data partition until `records` are durable; the frozen disk is copied meanwhile. */
async function workedImage(records: number): Promise<{ frozen: string; promised: number }> {
  const image = path.join(directory, 'machine.raw');
  const frozen = path.join(directory, 'frozen.raw');
  const log = path.join(directory, 'workload.log');
  await buildBootableImage({ path: image, sizeMiB: 256 });
  const loop = await attach(image);
  const mountPoint = path.join(directory, 'mount');
  mkdirSync(mountPoint);
  try {
    execFileSync('mount', [dataPartition(loop), mountPoint]);
    const workload = spawn(
      process.execPath,
      [path.resolve(import.meta.dirname, '../machines/workload.ts'), mountPoint],
      {
        env: { ...process.env, FARSHORE_WORKLOAD_LOG: log, FARSHORE_WORKLOAD_RATE: '200' },
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    );
    try {
      await until(() => existsSync(log) && lastDurableRecord(log, Date.now()) >= records);
      const promised = lastDurableRecord(log, Date.now());
      execFileSync('fsfreeze', ['--freeze', mountPoint]);
      try {
        execFileSync('dd', [`if=${loop.device}`, `of=${frozen}`, 'bs=4M', 'iflag=direct'], {
          stdio: 'pipe',
        });
      } finally {
        execFileSync('fsfreeze', ['--unfreeze', mountPoint]);
      }
      return { frozen, promised };
    } finally {
      const ended = once(workload, 'exit');
      workload.kill('SIGKILL');
      await ended;
    }
  } finally {
    execFileSync('sh', ['-c', 'mountpoint -q "$1" && umount "$1"; true', 'sh', mountPoint]);
    await detach(loop);
  }
}

test('a disk that was frozen under load boots and says the record that was promised', async () => {
  const { frozen, promised } = await workedImage(200);
  const said = await bootAndListen(frozen, 'frozen');
  expect(said.intact).toBe('yes');
  expect(said.record).toBeGreaterThanOrEqual(promised);
  expect(said.serial).toMatch(/churn=[1-8]\b/);

  // One bit in one record: the machine must notice.
  const spoiled = path.join(directory, 'spoiled.raw');
  copyFileSync(frozen, spoiled);
  await spoilRecord(spoiled, 100);
  const spoilt = await bootAndListen(spoiled, 'spoiled');
  expect(spoilt).toMatchObject({ record: 99, intact: 'no' });
}, 180_000);

test('an image is attached with its partitions and detached without a trace', async () => {
  const image = path.join(directory, 'attached.raw');
  const data = path.join(directory, 'data.raw');
  const started = performance.now();
  await buildBootableImage({
    path: image,
    sizeMiB: 256,
    extraDisks: [{ path: data, sizeMiB: 32 }],
  });
  expect(performance.now() - started).toBeLessThan(20_000);
  const [disk, dataDisk] = [await attach(image), await attach(data)];
  try {
    expect(disk.partitions).toEqual([`${disk.device}p1`, `${disk.device}p2`]);
    expect(dataDisk.partitions).toEqual([]);
    const backing = `/sys/block/${path.basename(disk.device)}/loop/dio`;
    expect(readFileSync(backing, 'utf8').trim()).toBe('1');
  } finally {
    await detach(disk);
    await detach(dataDisk);
  }
  for (const partition of disk.partitions)
    expect(existsSync(`/sys/class/block/${path.basename(partition)}`)).toBe(false);
  await detach(disk);
});

test('a device that holds another image by now is left alone', async () => {
  const [ours, theirs] = [path.join(directory, 'ours.raw'), path.join(directory, 'theirs.raw')];
  for (const image of [ours, theirs]) makeDataDisk({ path: image, sizeMiB: 8 });
  const loop = await attach(ours);
  await detach(loop);
  execFileSync('losetup', [loop.device, theirs]);
  await detach(loop);
  expect(readFileSync(`/sys/block/${path.basename(loop.device)}/loop/backing_file`, 'utf8')).toBe(
    `${theirs}\n`,
  );
  execFileSync('losetup', ['-d', loop.device]);
});

test('a disk whose boot sector only looks like a partition table is attached without partitions, and it is said', async () => {
  const image = path.join(directory, 'superfloppy.raw');
  makeDataDisk({ path: image, sizeMiB: 16 });
  const bootSector = Buffer.alloc(512, 0x5a);
  bootSector.writeUInt16BE(0x55aa, 510);
  await overwrite(image, bootSector, 0);
  const disk = await attach(image);
  try {
    expect(disk.partitions).toEqual([]);
    expect(disk.complaint).toMatch(/partition table/);
  } finally {
    await detach(disk);
  }
});

test('an image on a filesystem without direct I/O is attached all the same', async () => {
  const place = path.join(directory, 'no-direct-io');
  mkdirSync(place);
  execFileSync('mount', ['-t', 'ramfs', 'none', place]);
  try {
    const image = path.join(place, 'disk.raw');
    makeDataDisk({ path: image, sizeMiB: 8 });
    const disk = await attach(image);
    await detach(disk);
  } finally {
    execFileSync('umount', [place]);
  }
});

async function bootAndListen(
  image: string,
  name: string,
): Promise<{ record: number; intact: string | undefined; serial: string }> {
  const serialFile = path.join(directory, `${name}.log`);
  const machine = bootMachine({ name, disks: [{ path: image, bus: 'ide' }], serialFile });
  try {
    const match = await machine.waitFor(RECOVERED, BOOT_MS);
    return { record: Number(match[1]), intact: match[2], serial: machine.serial() };
  } finally {
    await machine.kill();
  }
}

async function spoilRecord(image: string, number: number): Promise<void> {
  const bytes = readFileSync(image);
  const place = bytes.indexOf(`R ${100_000_000_000 + number} `);
  expect(place).toBeGreaterThan(0);
  // A digit of the first word becomes its neighbour.
  const digit = bytes[place + 16] ?? 0;
  await overwrite(image, Buffer.from([digit ^ 1]), place + 16);
}

async function overwrite(image: string, bytes: Buffer, position: number): Promise<void> {
  const file = await open(image, 'r+');
  try {
    await file.write(bytes, 0, bytes.length, position);
  } finally {
    await file.close();
  }
}

function dataPartition(loop: LoopDevice): string {
  const partition = loop.partitions[1];
  if (partition === undefined) throw new Error('the image has no data partition');
  return partition;
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 60_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error('it did not come to pass within 60 s');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
