import { describe, expect, test } from 'vitest';
import type { BlockDevice, Tracer, WriteEvent } from '../../platform/ports.ts';
import { type ByteRange, type DrivenDisk, eventually, type Pass } from './drivenDisk.ts';

const SECTOR = 512;
const PAGE = 4096;
/** Longer than a tracer leaves the kernel's buffers alone. */
const LONG_MS = 400;

export interface TracedDisk extends DrivenDisk {
  device: BlockDevice;
}

/** A machine to run the suite on, with two disks of at least 1 MiB that nobody else writes to. */
export interface TracerSite {
  disk: TracedDisk;
  other: TracedDisk;
  /** Of one machine identity: each call is what its next agent would have, when the one before does nothing more. */
  tracer(): Tracer;
  pass: Pass;
  /** What may be done to tracing behind our back, by its name. */
  tampering: Readonly<Record<string, () => Promise<void>>>;
  /** Writes more to the disk than the kernel's buffers hold of it. */
  overrun(disk: TracedDisk): Promise<void>;
}

/** What every Tracer must do. A fresh site for each test. */
export function tracerConformance(open: () => Promise<TracerSite>): void {
  const started = async (): Promise<{ site: TracerSite; tracer: Tracer }> => {
    const site = await open();
    const tracer = site.tracer();
    await start(tracer, [site.disk]);
    return { site, tracer };
  };

  describe('an event', () => {
    test('is there for every write that completed before the drain, once, with its place', async () => {
      const { site, tracer } = await started();
      expect(await drained(tracer)).toEqual({ ranges: [], counted: 0, lost: 0 });
      const { disk } = site;
      await disk.write({ offset: 16 * PAGE, length: 2 * PAGE }, 1);
      await disk.write({ offset: SECTOR, length: SECTOR }, 2);
      await disk.write({ offset: 64 * PAGE, length: PAGE }, 3);
      expect(await drained(tracer)).toEqual({
        ranges: await rangesOf(disk, 'write', [
          { offset: SECTOR, length: SECTOR },
          { offset: 16 * PAGE, length: 2 * PAGE },
          { offset: 64 * PAGE, length: PAGE },
        ]),
        counted: 25,
        lost: 0,
      });
      expect(await drained(tracer)).toEqual({ ranges: [], counted: 0, lost: 0 });
      await tracer.stop();
    });

    test('is counted again for every time that the same place was written', async () => {
      const { site, tracer } = await started();
      for (const value of [1, 2, 3])
        await site.disk.write({ offset: 8 * PAGE, length: PAGE }, value);
      const { ranges, counted } = await drained(tracer);
      expect(counted).toBe(24);
      expect(ranges).toEqual(
        await rangesOf(site.disk, 'write', [{ offset: 8 * PAGE, length: PAGE }]),
      );
      await tracer.stop();
    });

    test('of a discard says so', async () => {
      const { site, tracer } = await started();
      const range = { offset: 4 * PAGE, length: 8 * PAGE };
      await site.disk.discard(range);
      const { ranges, counted } = await drained(tracer);
      expect(ranges).toEqual(await rangesOf(site.disk, 'discard', [range]));
      expect(counted).toBe(64);
      await tracer.stop();
    });

    test('of zeroes that are written without their bytes is there, and does not pass for a discard', async () => {
      const { site, tracer } = await started();
      const range = { offset: 4 * PAGE, length: 8 * PAGE };
      await site.disk.writeZeroes(range);
      const events = await eventsOf(tracer);
      for (const { kind } of events) expect(['write', 'other']).toContain(kind);
      const [place] = await rangesOf(site.disk, 'other', [range]);
      expect(mergedOf(events.map((event) => ({ ...event, kind: 'other' as const })))).toEqual([
        place,
      ]);
      expect(countedOf(events)).toBe(64);
      await tracer.stop();
    });

    test('is not there for a reading', async () => {
      const { site, tracer } = await started();
      await site.disk.read({ offset: 0, length: 64 * PAGE });
      await site.disk.write({ offset: 0, length: PAGE }, 1);
      const { counted } = await drained(tracer);
      expect(counted).toBe(8);
      await tracer.stop();
    });

    test('is not there before the write has completed', async () => {
      const { site, tracer } = await started();
      const range = { offset: 32 * PAGE, length: PAGE };
      const complete = await site.disk.beginWrite(range, 1);
      try {
        expect((await drained(tracer)).counted).toBe(0);
      } finally {
        await complete();
      }
      expect(await drained(tracer)).toEqual({
        ranges: await rangesOf(site.disk, 'write', [range]),
        counted: 8,
        lost: 0,
      });
      await tracer.stop();
    });

    test('is there for as many sectors as the kernel counts, whatever was done', async () => {
      const { site, tracer } = await started();
      const { disk } = site;
      const sectors = async () => {
        const { written, discarded } = await disk.device.writtenSectors();
        return written + discarded;
      };
      const before = await sectors();
      await disk.write({ offset: 0, length: 16 * PAGE }, 1);
      await disk.discard({ offset: 8 * PAGE, length: 16 * PAGE });
      await disk.read({ offset: 0, length: 16 * PAGE });
      await disk.writeZeroes({ offset: 4 * PAGE, length: 2 * PAGE });
      await disk.write({ offset: PAGE, length: SECTOR }, 2);
      const { counted } = await drained(tracer);
      expect(counted).toBe(273);
      await eventually(site.pass, async () => (await sectors()) >= before + 273, 'all is counted');
      expect(await sectors()).toBe(before + counted);
      await tracer.stop();
    });
  });

  describe('of several disks', () => {
    test('those alone are tracked that it was started with', async () => {
      const { site, tracer } = await started();
      await site.other.write({ offset: 0, length: PAGE }, 1);
      await site.disk.write({ offset: PAGE, length: PAGE }, 1);
      await site.other.discard({ offset: 0, length: PAGE });
      expect(await drained(tracer)).toEqual({
        ranges: await rangesOf(site.disk, 'write', [{ offset: PAGE, length: PAGE }]),
        counted: 8,
        lost: 0,
      });
      await tracer.stop();
    });

    test('each event says whose it is', async () => {
      const site = await open();
      const tracer = site.tracer();
      await start(tracer, [site.disk, site.other]);
      await site.other.write({ offset: 0, length: PAGE }, 1);
      await site.disk.write({ offset: PAGE, length: PAGE }, 1);
      const { ranges } = await drained(tracer);
      const both = [
        ...(await rangesOf(site.disk, 'write', [{ offset: PAGE, length: PAGE }])),
        ...(await rangesOf(site.other, 'write', [{ offset: 0, length: PAGE }])),
      ];
      expect(ranges).toEqual(both.sort(byPlace));
      await tracer.stop();
    });
  });

  describe('an agent that comes back', () => {
    test('adopts what was kept for it, with what happened meanwhile', async () => {
      const { site, tracer } = await started();
      await site.disk.write({ offset: 0, length: PAGE }, 1);
      expect((await drained(tracer, { last: true })).counted).toBe(8);
      await tracer.stop({ keep: true });
      await site.disk.write({ offset: 2 * PAGE, length: PAGE }, 2);
      const next = site.tracer();
      expect(await start(next, [site.disk])).toEqual({ adopted: true });
      expect(await drained(next)).toEqual({
        ranges: await rangesOf(site.disk, 'write', [{ offset: 2 * PAGE, length: PAGE }]),
        counted: 8,
        lost: 0,
      });
      await next.stop();
    });

    test('finds what completed after the last drain of the former one, however long that went on', async () => {
      const { site, tracer } = await started();
      await drained(tracer, { last: true });
      await site.disk.write({ offset: 2 * PAGE, length: PAGE }, 2);
      // Not for luck: whoever goes on emptying the kernel's buffers does so now.
      await site.pass(LONG_MS);
      await tracer.stop({ keep: true });
      const next = site.tracer();
      await start(next, [site.disk]);
      expect((await drained(next)).counted).toBe(8);
      await next.stop();
    });

    test('adopts nothing when the former one did not keep it, and hears nothing of before', async () => {
      const { site, tracer } = await started();
      await site.disk.write({ offset: 0, length: PAGE }, 1);
      await tracer.stop();
      await site.disk.write({ offset: PAGE, length: PAGE }, 1);
      const next = site.tracer();
      expect(await start(next, [site.disk])).toEqual({ adopted: false });
      expect(await drained(next)).toEqual({ ranges: [], counted: 0, lost: 0 });
      await site.disk.write({ offset: 0, length: PAGE }, 1);
      expect((await drained(next)).counted).toBe(8);
      await next.stop();
    });

    test('adopts nothing when other disks were tracked', async () => {
      const { site, tracer } = await started();
      await drained(tracer, { last: true });
      await tracer.stop({ keep: true });
      await site.disk.write({ offset: 0, length: PAGE }, 1);
      await site.other.write({ offset: 0, length: PAGE }, 1);
      const next = site.tracer();
      expect(await start(next, [site.disk, site.other])).toEqual({ adopted: false });
      expect(await drained(next)).toEqual({ ranges: [], counted: 0, lost: 0 });
      await site.other.write({ offset: 0, length: PAGE }, 1);
      expect((await drained(next)).counted).toBe(8);
      await next.stop();
    });

    test('adopts nothing when tracing was tampered with meanwhile', async () => {
      const site = await open();
      for (const [name, tamper] of Object.entries(site.tampering)) {
        const former = site.tracer();
        await start(former, [site.disk]);
        await drained(former, { last: true });
        await former.stop({ keep: true });
        await tamper();
        const next = site.tracer();
        expect(await start(next, [site.disk]), name).toEqual({ adopted: false });
        expect(await next.intact(), name).toEqual({ intact: true });
        await next.stop();
      }
    });
  });

  describe('what may have been missed is told of', () => {
    test('when tracing was tampered with: it is not intact, until it is started anew', async () => {
      const site = await open();
      for (const [name, tamper] of Object.entries(site.tampering)) {
        const tracer = site.tracer();
        await start(tracer, [site.disk]);
        expect(await tracer.intact(), name).toEqual({ intact: true });
        await tamper();
        expect(await tracer.intact(), name).toEqual({
          intact: false,
          problem: expect.stringMatching(/./),
        });
        await tracer.stop();
      }
    });

    test('when the kernel dropped events, at every drain until it is started anew', async () => {
      const { site, tracer } = await started();
      // Nobody empties the buffers now.
      await drained(tracer, { last: true });
      await site.overrun(site.disk);
      expect((await drained(tracer)).lost).toBeGreaterThan(0);
      expect((await drained(tracer)).lost).toBeGreaterThan(0);
      await tracer.stop();
      const next = site.tracer();
      await start(next, [site.disk]);
      expect((await drained(next)).lost).toBe(0);
      await next.stop();
    });

    test('when the kernel dropped events while no agent was there', async () => {
      const { site, tracer } = await started();
      await drained(tracer, { last: true });
      await tracer.stop({ keep: true });
      await site.overrun(site.disk);
      const next = site.tracer();
      if ((await start(next, [site.disk])).adopted)
        expect((await drained(next)).lost).toBeGreaterThan(0);
      await next.stop();
    });

    test('when it was stopped: it is not intact, and a drain is no silence', async () => {
      const { tracer } = await started();
      await tracer.stop();
      expect(await tracer.intact()).toMatchObject({ intact: false });
      await expect(tracer.drain(() => undefined)).rejects.toMatchObject({
        code: 'TracingUnavailable',
      });
    });
  });

  test('stopping what was never started, or twice, does nothing', async () => {
    const site = await open();
    const tracer = site.tracer();
    await tracer.stop();
    await start(tracer, [site.disk]);
    await tracer.stop();
    await tracer.stop();
  });

  test('starting again tracks the disks of then', async () => {
    const { site, tracer } = await started();
    await start(tracer, [site.other]);
    await site.disk.write({ offset: 0, length: PAGE }, 1);
    await site.other.write({ offset: PAGE, length: PAGE }, 1);
    expect((await drained(tracer)).ranges).toEqual(
      await rangesOf(site.other, 'write', [{ offset: PAGE, length: PAGE }]),
    );
    await tracer.stop();
  });
}

type Range = Pick<WriteEvent, 'devT' | 'kind' | 'sector' | 'sectorCount'>;

async function start(tracer: Tracer, disks: readonly TracedDisk[]): Promise<{ adopted: boolean }> {
  const devices: Parameters<Tracer['start']>[0][number][] = [];
  for (const { device } of disks)
    devices.push({ ...(await device.identity()), multiRangeDiscards: device.multiRangeDiscards });
  return await tracer.start(devices);
}

/** What a drain brought: places in order, neighbours and overlaps together, and the sectors in all. */
async function drained(
  tracer: Tracer,
  options?: { last: boolean },
): Promise<{ ranges: Range[]; counted: number; lost: number }> {
  const events: WriteEvent[] = [];
  const { lost } = await tracer.drain((event) => events.push({ ...event }), options);
  return { ranges: mergedOf(events), counted: countedOf(events), lost };
}

async function eventsOf(tracer: Tracer): Promise<WriteEvent[]> {
  const events: WriteEvent[] = [];
  await tracer.drain((event) => events.push({ ...event }));
  return events;
}

function countedOf(events: readonly WriteEvent[]): number {
  return events.reduce((sum, event) => sum + (event.counted ? event.sectorCount : 0), 0);
}

/** How many events tell of it is the kernel's and the tracer's own affair. */
function mergedOf(events: readonly WriteEvent[]): Range[] {
  const merged: Range[] = [];
  for (const { devT, kind, sector, sectorCount } of [...events].sort(byPlace)) {
    const last = merged.at(-1);
    const follows =
      last?.devT === devT && last.kind === kind && sector <= last.sector + last.sectorCount;
    if (last !== undefined && follows)
      last.sectorCount = Math.max(last.sectorCount, sector + sectorCount - last.sector);
    else merged.push({ devT, kind, sector, sectorCount });
  }
  return merged;
}

async function rangesOf(
  disk: TracedDisk,
  kind: WriteEvent['kind'],
  ranges: readonly ByteRange[],
): Promise<Range[]> {
  const { devT } = await disk.device.identity();
  return ranges.map(({ offset, length }) => ({
    devT,
    kind,
    sector: offset / SECTOR,
    sectorCount: length / SECTOR,
  }));
}

function byPlace(a: Range, b: Range): number {
  return a.devT - b.devT || a.sector - b.sector;
}
