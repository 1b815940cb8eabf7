import { describe, expect, test } from 'vitest';
import type { BlockDevice, BlockDeviceIdentity, BlockDevices } from '../../platform/ports.ts';
import { type DrivenDisk, eventually, mustBeStaged, type Pass } from './drivenDisk.ts';

const SECTOR = 512;
const PAGE = 4096;
/** Neither whole blocks nor whole leaves. */
export const DISK_SIZE = (1 << 20) + 3 * SECTOR;
/** What capture holds at one time of a size: a resync two for reading, and what a pass and the scrub hold. */
const BUFFERS = 6;

/** A machine to run the suite on, with a disk of DISK_SIZE zeros that nobody else writes to. */
export interface BlockDeviceSite {
  devices: BlockDevices;
  disk: DrivenDisk;
  /** Nothing has this name. */
  missing: string;
  pass: Pass;
  shrink(sizeBytes: number): Promise<void>;
  /** A disk whose medium can be exchanged for another while it is open. */
  exchangeable(): Promise<{ path: string; exchange(): Promise<void> }>;
  /** The disk goes, and nothing of it stays. */
  vanish?(): Promise<void>;
}

/** What every BlockDevice must do, and the BlockDevices that open it. `without`: what can't be staged there. */
export function blockDeviceConformance(
  open: () => Promise<BlockDeviceSite>,
  { without }: { without?: 'vanish' } = {},
): void {
  const opened = async (): Promise<{ site: BlockDeviceSite; device: BlockDevice }> => {
    const site = await open();
    return { site, device: await site.devices.open(site.disk.path) };
  };

  describe('reading', () => {
    test('gives what was written, where it was written, and nothing else', async () => {
      const { site, device } = await opened();
      await site.disk.write({ offset: 8 * SECTOR, length: 2 * SECTOR }, 7);
      const into = device.alignedBuffer(4 * SECTOR);
      expect(await device.read(into, 7 * SECTOR)).toBe(4 * SECTOR);
      expect(valuesOf(into)).toEqual([0, 7, 7, 0]);
      await device.close();
    });

    test('sees at once what was written after an earlier reading: nothing is cached', async () => {
      const { site, device } = await opened();
      const into = device.alignedBuffer(PAGE);
      for (const value of [1, 2, 3]) {
        await site.disk.write({ offset: 0, length: PAGE }, value);
        expect(await device.read(into, 0)).toBe(PAGE);
        expect(valuesOf(into)).toEqual(new Array(8).fill(value));
      }
      await device.close();
    });

    test('fills a part of a buffer and leaves the rest alone', async () => {
      const { site, device } = await opened();
      await site.disk.write({ offset: 0, length: PAGE }, 5);
      const into = device.alignedBuffer(4 * SECTOR).fill(9);
      expect(await device.read(into.subarray(SECTOR, 3 * SECTOR), 0)).toBe(2 * SECTOR);
      expect(valuesOf(into)).toEqual([9, 5, 5, 9]);
      await device.close();
    });

    test('is short at the end of the disk alone, where it leaves the rest of the buffer', async () => {
      const { site, device } = await opened();
      const end = DISK_SIZE - 2 * SECTOR;
      await site.disk.write({ offset: end, length: 2 * SECTOR }, 6);
      const into = device.alignedBuffer(PAGE).fill(9);
      expect(await device.read(into, end)).toBe(2 * SECTOR);
      expect(valuesOf(into)).toEqual([6, 6, 9, 9, 9, 9, 9, 9]);
      expect(await device.read(into, DISK_SIZE)).toBe(0);
      const whole = device.alignedBuffer(2 << 20);
      expect(await device.read(whole, 0)).toBe(DISK_SIZE);
      await device.close();
    });

    test('several at the same time do not disturb one another', async () => {
      const { site, device } = await opened();
      for (let index = 0; index < BUFFERS; index += 1)
        await site.disk.write({ offset: index * PAGE, length: PAGE }, index + 1);
      const buffers = Array.from({ length: BUFFERS }, () => device.alignedBuffer(PAGE));
      const read = await Promise.all(
        buffers.map((buffer, index) => device.read(buffer, index * PAGE)),
      );
      expect(read).toEqual(new Array(BUFFERS).fill(PAGE));
      expect(buffers.map((buffer) => new Set(buffer))).toEqual(
        buffers.map((_, index) => new Set([index + 1])),
      );
      await device.close();
    });

    test('refuses what are no whole sectors, and goes on with what are', async () => {
      const { site, device } = await opened();
      const buffer = device.alignedBuffer(PAGE);
      const refused = { code: 'DiskReadFailed', path: site.disk.path };
      await expect(device.read(buffer, 100)).rejects.toMatchObject(refused);
      await expect(device.read(buffer.subarray(0, 100), 0)).rejects.toMatchObject(refused);
      expect(await device.read(buffer, 0)).toBe(PAGE);
      await device.close();
    });
  });

  test('aligned buffers have the size that was asked for, and those in use are apart', async () => {
    const { device } = await opened();
    for (const size of [SECTOR, PAGE, 65536 + SECTOR])
      expect(device.alignedBuffer(size)).toHaveLength(size);
    const buffers = Array.from({ length: BUFFERS }, () => device.alignedBuffer(PAGE));
    for (const [index, buffer] of buffers.entries()) buffer.fill(index + 1);
    expect(buffers.map((buffer) => new Set(buffer))).toEqual(
      buffers.map((_, index) => new Set([index + 1])),
    );
    await device.close();
  });

  describe('the identity', () => {
    test('has the size to the last sector, and stays whatever is written', async () => {
      const { site, device } = await opened();
      const before = await device.identity();
      expect(before).toEqual({
        devT: expect.any(Number),
        diskSequence: expect.any(BigInt),
        sizeBytes: DISK_SIZE,
      } satisfies Record<keyof BlockDeviceIdentity, unknown>);
      await site.disk.write({ offset: 0, length: PAGE }, 1);
      expect(await device.identity()).toEqual(before);
      await device.close();
      const again = await site.devices.open(site.disk.path);
      expect(await again.identity()).toEqual(before);
      await again.close();
    });

    test('of a disk that was resized is another size of the same disk, read up to its new end', async () => {
      const { site, device } = await opened();
      const before = await device.identity();
      const sizeBytes = DISK_SIZE - PAGE;
      await site.shrink(sizeBytes);
      expect(await device.identity()).toEqual({ ...before, sizeBytes });
      const into = device.alignedBuffer(2 * PAGE);
      expect(await device.read(into, sizeBytes - SECTOR)).toBe(SECTOR);
      await device.close();
    });

    test('shows that the medium is another one, also of the same size', async () => {
      const site = await open();
      const { path, exchange } = await site.exchangeable();
      const device = await site.devices.open(path);
      const before = await device.identity();
      await exchange();
      const after = await device.identity();
      expect(after.diskSequence).toBeGreaterThan(before.diskSequence);
      expect(after).toMatchObject({ devT: before.devT, sizeBytes: before.sizeBytes });
      await device.close();
    });
  });

  describe('what the kernel counts', () => {
    const counts = async (
      site: BlockDeviceSite,
      device: BlockDevice,
      act: () => Promise<void>,
      grown: { written: number; discarded: number },
    ): Promise<void> => {
      const before = await device.writtenSectors();
      await act();
      const wanted = {
        written: before.written + grown.written,
        discarded: before.discarded + grown.discarded,
      };
      // A moment after the completion.
      await eventually(
        site.pass,
        async () => {
          const now = await device.writtenSectors();
          return now.written + now.discarded >= wanted.written + wanted.discarded;
        },
        'all is counted',
      );
      expect(await device.writtenSectors()).toEqual(wanted);
    };

    test('grows by the sectors that were written, once, and not by reading', async () => {
      const { site, device } = await opened();
      const write = () => site.disk.write({ offset: SECTOR, length: 3 * SECTOR }, 1);
      await counts(site, device, write, { written: 3, discarded: 0 });
      await counts(site, device, write, { written: 3, discarded: 0 });
      const read = () => site.disk.read({ offset: 0, length: 64 * SECTOR });
      await counts(site, device, read, { written: 0, discarded: 0 });
      await counts(site, device, write, { written: 3, discarded: 0 });
      await device.close();
    });

    test('tells discards from writes', async () => {
      const { site, device } = await opened();
      const discard = () => site.disk.discard({ offset: 2 * PAGE, length: 4 * PAGE });
      await counts(site, device, discard, { written: 0, discarded: 32 });
      const write = () => site.disk.write({ offset: 0, length: PAGE }, 1);
      await counts(site, device, write, { written: 8, discarded: 0 });
      await device.close();
    });

    test('has zeroes that are written without their bytes among the writes', async () => {
      const { site, device } = await opened();
      const zero = () => site.disk.writeZeroes({ offset: PAGE, length: 2 * PAGE });
      await counts(site, device, zero, { written: 16, discarded: 0 });
      await device.close();
    });

    test('a write in flight is told of until it has completed, and counted then', async () => {
      const { site, device } = await opened();
      expect(await device.writesInFlight()).toBe(0);
      const before = await device.writtenSectors();
      const complete = await site.disk.beginWrite({ offset: 0, length: PAGE }, 1);
      expect(await device.writesInFlight()).toBe(1);
      expect(await device.writtenSectors()).toEqual(before);
      await complete();
      await eventually(
        site.pass,
        async () => (await device.writesInFlight()) === 0,
        'nothing is in flight',
      );
      expect(await device.writtenSectors()).toEqual({ ...before, written: before.written + 8 });
      await device.close();
    });
  });

  describe('a disk that is not there', () => {
    test('to begin with is refused, with its name', async () => {
      const { devices, missing } = await open();
      await expect(devices.open(missing)).rejects.toMatchObject({
        code: 'DiskNotFound',
        path: missing,
      });
    });

    if (without === 'vanish') return;

    test('any more is said to have vanished, whatever is asked of it', async () => {
      const { site, device } = await opened();
      const into = device.alignedBuffer(PAGE);
      await (site.vanish ?? mustBeStaged)();
      const vanished = { code: 'DiskVanished', path: site.disk.path };
      await expect(device.identity()).rejects.toMatchObject(vanished);
      await expect(device.read(into, 0)).rejects.toMatchObject(vanished);
      await expect(device.writtenSectors()).rejects.toMatchObject(vanished);
      await expect(device.writesInFlight()).rejects.toMatchObject(vanished);
      await device.close();
      await expect(site.devices.open(site.disk.path)).rejects.toMatchObject({
        path: site.disk.path,
      });
    });
  });
}

/** The value of each sector; NaN where a sector holds several. */
function valuesOf(bytes: Uint8Array): number[] {
  return Array.from({ length: bytes.length / SECTOR }, (_, sector) => {
    const part = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    const [first = Number.NaN] = part;
    return part.every((value) => value === first) ? first : Number.NaN;
  });
}
