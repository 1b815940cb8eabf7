import { describe, expect, test } from 'vitest';
import { JournalWorld, machineId, until } from '../../test/fakes/journalWorld.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import type { SourceAgent } from '../../test/fakes/sourceAgent.ts';
import { damage, flip } from '../../test/fixtures/fileDamage.ts';
import { protectedMachine } from '../../test/fixtures/protectedMachine.ts';
import type { Cache } from './cache.ts';
import { logFileName, readEntries } from './cacheLog.ts';
import { recoverLog } from './cacheRecovery.ts';

describe('a machine whose cache was damaged', () => {
  const limits = { logFileBytes: 100_000 };

  /** A barrier is journaled and can't be uploaded; then the process dies. */
  async function unfinished() {
    const world = new JournalWorld({ limits });
    const { cache, journal, agent } = await protectedMachine(world);
    world.objects.fault = (operation) =>
      operation === 'putIfAbsent' ? { when: 'before', error: new Error('no link') } : undefined;
    agent.scribble(10);
    await agent.barrier();
    await until(() => world.clock.sleeping > 0);
    const { cacheId } = cache;
    const { uploadedLsn, lastBarrierLsn } = journal.positions();
    await cache.close();
    world.objects.fault = undefined;
    return { world, agent, cacheId, uploadedLsn, lastBarrierLsn };
  }

  /** Time passes until it is open. */
  async function opened(world: JournalWorld, cache: Cache) {
    let settled = false;
    const opening = cache.openMachine(world.machine()).finally(() => {
      settled = true;
    });
    while (!settled) await world.clock.advance(100);
    return await opening;
  }

  async function expectResync(world: JournalWorld, agent: SourceAgent) {
    const cache = await world.open();
    const journal = await opened(world, cache);
    expect(journal.resync()).toEqual({ required: true, reason: 'VaultGap' });
    expect(journal.positions().journaledLsn).toBe(journal.positions().uploadedLsn);
    expect(world.logger.lines.some(({ level }) => level === 'error')).toBe(true);
    agent.connect(journal);
    await agent.resyncIfRequired();
    const barrier = await agent.barrier();
    expect(barrier.disks[0]?.root).toBe(agent.root());
    await agent.uploaded();
    const replayed = await world.replayVault();
    expect(replayed.wrongBarriers).toEqual([]);
    expect(Buffer.compare(replayed.disk, agent.source.bytes)).toBe(0);
    await cache.close();
  }

  test('in its log begins again from the vault, with a resync, and says so', async () => {
    const { world, agent, cacheId, uploadedLsn } = await unfinished();
    const { runs } = await recoverLog(world.disk, { cacheId, logger: silentLogger });
    for (const run of runs)
      for await (const { header, place } of readEntries(world.disk, run.place, run))
        if (header.firstLsn === uploadedLsn + 2n)
          await damage(world.disk, logFileName(place.file), flip(place.offset + 200));
    await expectResync(world, agent);
  });

  test.each([
    ['empty', () => new Uint8Array(0)],
    ['cut', (bytes: Uint8Array) => bytes.slice(0, bytes.length / 2)],
    ['zeros', (bytes: Uint8Array) => new Uint8Array(bytes.length)],
    ['no text', (bytes: Uint8Array) => bytes.map((byte) => byte ^ 0xff)],
    ['too long', () => new Uint8Array(3 << 20)],
    [
      'of another machine',
      (bytes: Uint8Array) =>
        new TextEncoder().encode(
          new TextDecoder().decode(bytes).replace(machineId, 'b'.repeat(32)),
        ),
    ],
    [
      'of another version',
      (bytes: Uint8Array) =>
        new TextEncoder().encode(
          new TextDecoder().decode(bytes).replace('"version":1', '"version":9'),
        ),
    ],
  ])('in its state file, which is %s, begins again too', async (_, change) => {
    const { world, agent } = await unfinished();
    await damage(world.disk, `machines/${machineId}/state.json`, change);
    await expectResync(world, agent);
  });

  test.each(['state.json', '.leaves', '.seg'])(
    'in sectors under its %s that can not be read any more begins again too',
    async (name) => {
      const { world, agent } = await unfinished();
      // Until the file is made anew.
      let bad = true;
      world.disk.fault = (operation, path) => {
        if (!path.startsWith('machines/') || !path.includes(name)) return undefined;
        if (operation === 'rename' || operation === 'remove') bad = false;
        if (operation !== 'read' || !bad) return undefined;
        return Object.assign(new Error('i/o error'), { code: 'EIO' });
      };
      await expectResync(world, agent);
    },
  );

  test.each(['state.json', '.leaves', '.seg', '.log'])(
    'in sectors under its %s that can not be read for a moment has all that was acknowledged',
    async (name) => {
      const { world, lastBarrierLsn } = await unfinished();
      const cache = await world.open();
      let failures = 2;
      world.disk.fault = (operation, path) => {
        if (operation !== 'read' || !path.includes(name) || failures === 0) return undefined;
        failures -= 1;
        return Object.assign(new Error('i/o error'), { code: 'EIO' });
      };
      const journal = await opened(world, cache);
      expect(failures).toBe(0);
      expect(journal.resync()).toEqual({ required: false });
      expect(journal.positions().lastBarrierLsn).toBe(lastBarrierLsn);
      await cache.close();
    },
  );

  test('in its tables, its sealed segment or its whole log too', async () => {
    for (const harm of ['leaves', 'seg', 'log'] as const) {
      const { world, agent } = await unfinished();
      const directory = `machines/${machineId}`;
      const names = await world.disk.list(directory);
      const name = names.find((candidate) => candidate.endsWith(`.${harm}`));
      if (harm === 'leaves') await world.disk.remove(`${directory}/${name}`);
      else if (harm === 'seg') {
        const file = await world.disk.open(`${directory}/${name}`, 'readWrite');
        await file.write(Uint8Array.of(0xee), 900);
        await file.close();
      } else
        for (const file of await world.disk.list('log')) await world.disk.remove(`log/${file}`);
      await expectResync(world, agent);
    }
  });
});
