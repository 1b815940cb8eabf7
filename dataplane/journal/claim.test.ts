/** Process servers that claim a journal which others write, or that a failover has sealed. */
import { describe, expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { dataKey, JournalWorld, machineId, rootOf, until } from '../../test/fakes/journalWorld.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { protectedMachine } from '../../test/fixtures/protectedMachine.ts';
import { claimJournal, sealJournal } from './claim.ts';
import { inlineCodec } from './segmentCodec.ts';

const unreachable = new StoreError('VaultUnreachable', 'no answer');

describe('who may write a journal', () => {
  test('a process server that takes over fences the one before; the points of both are right', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    const fencedBy: unknown[] = [];
    first.journal.onFenced((fenced) => fencedBy.push(fenced));
    // The first one is cut off with a barrier on its way, and the machine moves.
    world.objects.fault = (operation, key) =>
      operation === 'putIfAbsent' && key.startsWith('journal/')
        ? { when: 'before', error: unreachable }
        : undefined;
    first.agent.scribble(3);
    await first.agent.barrier();
    await until(() => world.clock.sleeping > 0);
    world.objects.fault = undefined;
    const other = await world.open({ disk: new MemoryDisk() });
    const journal = await other.openMachine(world.machine({ writerEpoch: 2 }));
    expect(journal.resync()).toEqual({ required: false });
    first.agent.connect(journal);
    await first.agent.barrier();
    await first.agent.uploaded();
    await world.clock.advance(60_000);
    await until(() => first.journal.fenced() !== undefined);
    expect(fencedBy).toEqual([{ by: 'HigherEpoch' }]);
    const batch = { firstLsn: 99n, count: 1, records: new Uint8Array(48) };
    await expect(first.journal.append(batch)).rejects.toMatchObject({
      code: 'JournalFenced',
      fenced: { by: 'HigherEpoch' },
    });
    const replayed = await world.replayVault();
    expect(replayed.wrongBarriers).toEqual([]);
    expect(rootOf(replayed.disk)).toBe(first.agent.root());
    await expect(
      (await world.open({ disk: new MemoryDisk() })).openMachine(world.machine()),
    ).rejects.toMatchObject({ code: 'JournalFenced', fenced: { by: 'HigherEpoch' } });
    await first.cache.close();
    await other.close();
  });

  test('a segment of the former writer that arrives late is adopted, and the claim goes behind it', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    let claimed = false;
    // While the claim is on its way, the first writer's barrier gets in before it.
    world.objects.interleave = async (operation, key) => {
      if (operation !== 'putIfAbsent' || !key.startsWith('journal/') || claimed) return;
      claimed = true;
      first.agent.scribble(2);
      await first.agent.barrier();
      await first.agent.uploaded();
    };
    const claim = await claimJournal(
      { ...world, codec: inlineCodec },
      { machineId, dataKey, writerEpoch: 2, side: 'Source' },
    );
    expect(claim).toMatchObject({ outcome: 'claimed' });
    if (claim.outcome !== 'claimed') return;
    expect(claim.predecessor.lsn).toBe(first.journal.positions().journaledLsn);
    expect((await world.replayVault()).wrongBarriers).toEqual([]);
    await first.cache.close();
  });

  test('two that both believe they own the machine under the same epoch: one is fenced', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    const twin = await world.open({ disk: new MemoryDisk() });
    const journal = await twin.openMachine(world.machine());
    first.agent.scribble(2);
    await first.agent.barrier();
    await until(() => first.journal.fenced() !== undefined);
    first.agent.connect(journal);
    await first.agent.barrier();
    await first.agent.uploaded();
    const replayed = await world.replayVault();
    expect(replayed.wrongBarriers).toEqual([]);
    expect(rootOf(replayed.disk)).toBe(first.agent.root());
    await first.cache.close();
    await twin.close();
  });

  test('a sealed journal stops its writer by name of the failover; only a higher epoch opens it again', async () => {
    const world = new JournalWorld();
    const { cache, journal, agent } = await protectedMachine(world);
    const deps = { ...world, codec: inlineCodec };
    const request = { machineId, dataKey, failover: 'lost-site', side: 'Source' } as const;
    const seal = await sealJournal(deps, request);
    expect(await sealJournal(deps, { ...request, failover: 'another' })).toEqual(seal);
    expect(seal.failover).toBe('lost-site');
    agent.scribble(1);
    await agent.barrier();
    await until(() => journal.fenced() !== undefined);
    expect(journal.fenced()).toEqual({ by: 'Seal', failover: 'lost-site' });
    await cache.close();
    const lost = await world.open({ disk: new MemoryDisk() });
    await expect(lost.openMachine(world.machine())).rejects.toMatchObject({
      code: 'JournalFenced',
      fenced: { by: 'Seal', failover: 'lost-site' },
    });
    const again = await lost.openMachine(world.machine({ writerEpoch: 2 }));
    agent.connect(again);
    await agent.barrier();
    await agent.uploaded();
    expect((await world.replayVault()).wrongBarriers).toEqual([]);
    await lost.close();
  });

  test('there is nothing to seal of a machine that has no journal', async () => {
    const world = new JournalWorld();
    await expect(
      sealJournal(
        { ...world, codec: inlineCodec },
        { machineId, dataKey, failover: 'f', side: 'Source' },
      ),
    ).rejects.toMatchObject({ code: 'ChainEmpty' });
  });

  test('the same process server under a higher epoch keeps what it has journaled', async () => {
    const world = new JournalWorld();
    const { cache, journal, agent } = await protectedMachine(world);
    world.objects.fault = (operation) =>
      operation === 'putIfAbsent' ? { when: 'before', error: unreachable } : undefined;
    agent.scribble(2);
    await agent.barrier();
    const { journaledLsn } = journal.positions();
    await cache.close();
    world.objects.fault = undefined;
    const reopened = await world.open();
    const next = await reopened.openMachine(world.machine({ writerEpoch: 2 }));
    expect(next.positions().journaledLsn).toBe(journaledLsn);
    await until(() => next.positions().uploadedLsn === journaledLsn);
    const replayed = await world.replayVault();
    expect(replayed.wrongBarriers).toEqual([]);
    expect(rootOf(replayed.disk)).toBe(agent.root());
    await reopened.close();
  });
});
