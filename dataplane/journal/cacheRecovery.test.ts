/** The cache's log: what was appended comes back, whatever a crash, a bad disk or somebody else made of its files. */
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { cut, damage, flip } from '../../test/fixtures/fileDamage.ts';
import { ENTRY_HEADER_SIZE, encodeEntryHeader, entrySize, LOG_HEADER_SIZE } from './cacheEntry.ts';
import { CacheLog, logFileName, readEntries } from './cacheLog.ts';
import { decideRecovery, type LogFileState, recoverLog, recoveryTable } from './cacheRecovery.ts';

const cacheId = 'c'.repeat(32);
const machineId = 'a'.repeat(32);
const other = 'b'.repeat(32);

async function openLog(disk: MemoryDisk, fileBytes = 1 << 20) {
  await disk.makeDirectory('log');
  await disk.syncDirectory('.');
  const recovered = await recoverLog(disk, { cacheId, logger: silentLogger });
  const failures: Error[] = [];
  const log = new CacheLog({
    ...{ disk, cacheId, fileBytes, ...recovered },
    onFailed: (error) => failures.push(error),
  });
  return { log, recovered, failures };
}

const entry = (lsn: number, length = 100, owner = machineId) => ({
  machineId: owner,
  incarnation: 1n,
  firstLsn: BigInt(lsn),
  count: 1,
  payload: new Uint8Array(length).fill(lsn),
});

/** LSNs of a machine that the log gives back, each payload checked. */
async function lsnsOf(disk: MemoryDisk, owner = machineId): Promise<number[]> {
  const { runs } = await recoverLog(disk, { cacheId, logger: silentLogger });
  const lsns: number[] = [];
  for (const run of runs.filter((candidate) => candidate.machineId === owner))
    for await (const { header, payload } of readEntries(disk, run.place, run)) {
      expect(payload.every((byte) => byte === Number(header.firstLsn) % 256)).toBe(true);
      lsns.push(Number(header.firstLsn));
    }
  return lsns;
}

test('exactly one row of the recovery table matches every state of a log file', () => {
  const used = new Set<string>();
  for (const found of ['yes', 'no'] as const)
    for (const header of ['whole', 'cut', 'damaged', 'foreign', 'newer'] as const)
      for (const body of ['none', 'some'] as const)
        for (const end of ['clean', 'torn', 'damaged'] as const)
          for (const position of ['last', 'earlier'] as const) {
            const state: LogFileState = { found, header, body, end, position };
            expect(recoveryTable.filter((row) => row.matches(state))).toHaveLength(1);
            used.add(decideRecovery(state).label);
          }
  expect(used.size).toBe(recoveryTable.length);
});

describe('the log', () => {
  test('gives back what was appended, machine by machine, over many files', async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk, 5000);
    const appends = [];
    for (let lsn = 1; lsn <= 100; lsn++) {
      appends.push(log.append(entry(lsn, 1 + lsn * 3)));
      if (lsn % 3 === 0) appends.push(log.append(entry(lsn, 10, other)));
      if (lsn % 10 === 0) await appends.at(-1);
    }
    await Promise.all(appends);
    await log.close();
    expect(log.numbers().length).toBeGreaterThan(3);
    expect(await lsnsOf(disk)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
    expect(await lsnsOf(disk, other)).toHaveLength(33);
  });

  test('many appends at the same time share a sync', async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    await log.append(entry(1));
    const before = disk.counts.sync;
    await Promise.all(Array.from({ length: 200 }, (_, i) => log.append(entry(2 + i))));
    expect(disk.counts.sync - before).toBeLessThanOrEqual(2);
    await log.close();
  });

  test('large and small payloads come back alike', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.nat(2000), fc.nat(900_000)), { minLength: 1, maxLength: 8 }),
        async (lengths) => {
          const disk = new MemoryDisk();
          const { log } = await openLog(disk);
          await Promise.all(lengths.map((length, i) => log.append(entry(i + 1, length))));
          await log.close();
          expect(await lsnsOf(disk)).toEqual(lengths.map((_, i) => i + 1));
        },
      ),
      { numRuns: 20 },
    );
  });

  test('what a killed process had written and not synced is durable before anybody hears of it', async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    await log.append(entry(1));
    const unsynced = new Uint8Array(entrySize(100));
    unsynced.fill(2, ENTRY_HEADER_SIZE, ENTRY_HEADER_SIZE + 100);
    const payload = unsynced.subarray(ENTRY_HEADER_SIZE, ENTRY_HEADER_SIZE + 100);
    const { firstLsn, count, incarnation } = entry(2);
    const payloadCrc = crc32(payload);
    encodeEntryHeader(unsynced, 0, {
      ...{ machineId, incarnation, firstLsn, count, payloadCrc, payloadLength: 100, durable: 0 },
    });
    const file = await disk.open(logFileName(1), 'readWrite');
    await file.write(unsynced, await file.size());
    expect(await lsnsOf(disk)).toEqual([1, 2]);
    disk.crash();
    expect(await lsnsOf(disk)).toEqual([1, 2]);
  });

  test('after a failed sync nothing is acknowledged any more, until it is opened again', async () => {
    const disk = new MemoryDisk();
    const { log, failures } = await openLog(disk);
    await log.append(entry(1));
    disk.fault = (operation) => (operation === 'sync' ? new Error('EIO') : undefined);
    await expect(log.append(entry(2))).rejects.toMatchObject({ code: 'CacheFailed' });
    disk.fault = undefined;
    await expect(log.append(entry(3))).rejects.toMatchObject({ code: 'CacheFailed' });
    expect(failures).toHaveLength(1);
    disk.crash();
    const again = await openLog(disk);
    await again.log.append(entry(2));
    await again.log.close();
    expect(await lsnsOf(disk)).toEqual([1, 2]);
  });
});

describe('recovery', () => {
  /** Three synced groups in file 1; the offset where the last one begins. */
  async function threeEntries(disk: MemoryDisk) {
    const { log } = await openLog(disk);
    const places = [];
    for (let lsn = 1; lsn <= 3; lsn++) places.push(await log.append(entry(lsn)));
    await log.close();
    return places.map(({ offset }) => offset) as [number, number, number];
  }

  test.each([
    ['cut in its payload', (_: number) => cut(80)],
    ['cut in its header', (_: number) => cut(190)],
    ['flipped in its header', (at: number) => flip(at + 20)],
    ['flipped in its payload', (at: number) => flip(at + 70)],
    [
      'followed by zeros',
      (_: number) => (bytes: Uint8Array) => new Uint8Array([...bytes, ...new Uint8Array(700)]),
    ],
  ])(
    'a tail that was being written and is %s is cut off, kept aside, and appended behind',
    async (name, change) => {
      const disk = new MemoryDisk();
      const [, , last] = await threeEntries(disk);
      await damage(disk, logFileName(1), change(last));
      const { log, recovered } = await openLog(disk);
      expect(recovered.holes).toEqual([]);
      expect(await disk.list('log')).toContain('000000000001.log.broken');
      const kept = name.startsWith('followed') ? 3 : 2;
      await log.append(entry(kept + 1));
      await log.close();
      expect(await lsnsOf(disk)).toEqual(Array.from({ length: kept + 1 }, (_, i) => i + 1));
    },
  );

  test('bytes that a later entry proves to have been synced are damage, and what follows is still found', async () => {
    const disk = new MemoryDisk();
    const [, second] = await threeEntries(disk);
    await damage(disk, logFileName(1), flip(second + 70));
    const { recovered } = await openLog(disk);
    expect(recovered.holes).toEqual([{ file: 1, offset: second }]);
    expect(await lsnsOf(disk)).toEqual([1, 3]);
  });

  test('a file cut short, a lost header and a lost file are damage when a later file exists', async () => {
    for (const harm of [
      (disk: MemoryDisk) => damage(disk, logFileName(1), cut(192)),
      (disk: MemoryDisk) => damage(disk, logFileName(1), cut(10)),
      (disk: MemoryDisk) => damage(disk, logFileName(1), flip(3)),
      (disk: MemoryDisk) => damage(disk, logFileName(1), () => new Uint8Array(0)),
      async (disk: MemoryDisk) => {
        await disk.remove(logFileName(2));
        await disk.syncDirectory('log');
      },
    ]) {
      const disk = new MemoryDisk();
      await threeEntries(disk);
      for (const lsn of [4, 5]) {
        const { log } = await openLog(disk);
        await log.append(entry(lsn));
        await log.close();
      }
      await harm(disk);
      const { recovered } = await openLog(disk);
      expect(recovered.holes).toHaveLength(1);
      expect((await lsnsOf(disk)).at(-1)).toBe(5);
    }
  });

  test('an empty file, and one whose header was never finished, never counted', async () => {
    for (const size of [0, 10, LOG_HEADER_SIZE]) {
      const disk = new MemoryDisk();
      await threeEntries(disk);
      await damage(disk, logFileName(2), () => new Uint8Array(size));
      const { log, recovered } = await openLog(disk);
      expect(recovered.holes).toEqual([]);
      await log.append(entry(4));
      await log.close();
      expect(await lsnsOf(disk)).toEqual([1, 2, 3, 4]);
    }
  });

  test('a file of another cache or of a newer version stops everything and touches nothing', async () => {
    const disk = new MemoryDisk();
    await threeEntries(disk);
    const refused = recoverLog(disk, { cacheId: 'd'.repeat(32), logger: silentLogger });
    await expect(refused).rejects.toMatchObject({ code: 'CacheUnreadable' });
    expect(await lsnsOf(disk)).toEqual([1, 2, 3]);
  });

  test('no file of any bytes crashes it or invents an entry', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), fc.boolean(), async (bytes, behind) => {
        const disk = new MemoryDisk();
        if (behind) await threeEntries(disk);
        const lsns = behind ? [1, 2, 3] : [];
        await disk.makeDirectory('log');
        await damage(disk, logFileName(1), (before) => new Uint8Array([...before, ...bytes]));
        expect(await lsnsOf(disk)).toEqual(lsns);
      }),
      { numRuns: 60 },
    );
  });
});
