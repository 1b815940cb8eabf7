import { describe, expect, test } from 'vitest';
import { JournalWorld, sda, until } from '../../test/fakes/journalWorld.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { Mortality } from '../../test/fakes/mortal.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { SourceAgent } from '../../test/fakes/sourceAgent.ts';
import type { MachineJournal } from './machineJournal.ts';
import { LEAF_SIZE } from './record.ts';

const limits = { logFileBytes: 300_000, segmentBytes: 200_000, minFreeBytes: 0 };

/** What a process server lives through: initial replication, passes, barriers, a cache reopened in between. */
async function live(world: JournalWorld, life: Mortality, agent: SourceAgent, disk: MemoryDisk) {
  const work = async () => {
    const cache = await world.open({ disk: life.wrap(disk), objects: life.wrap(world.objects) });
    agent.connect(await cache.openMachine(world.machine()));
    await agent.resyncIfRequired();
    await agent.barrier();
    for (let round = 0; round < 3; round++) {
      agent.scribble(2);
      await agent.sendDirty();
      await agent.barrier();
      await agent.uploaded();
    }
    await cache.close();
  };
  await life.outlive(work());
}

/** How many steps an undisturbed life takes, so that each can be the last one. */
async function stepsOfALife(): Promise<number> {
  const world = new JournalWorld({ limits });
  const life = new Mortality();
  await live(world, life, new SourceAgent(1, sda.sizeBytes), new MemoryDisk());
  return life.steps;
}

/** Everything journaled reaches the vault, so that a replay shows what the answers were about. */
async function journalOfNow(journal: MachineJournal, world: JournalWorld): Promise<void> {
  const { journaledLsn } = journal.positions();
  for (let i = 0; journal.positions().uploadedLsn < journaledLsn && i < 20; i++) {
    await until(() => world.clock.sleeping > 0 || journal.positions().uploadedLsn >= journaledLsn);
    await world.clock.advance(30_000);
  }
  expect(journal.positions().uploadedLsn).toBe(journaledLsn);
}

function leafOf(disk: Uint8Array, leaf: number): Uint8Array {
  return disk.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE);
}

/** All of them take minutes; each test takes its own tenth unless told otherwise. */
const stride = process.env.FARSHORE_EXHAUSTIVE === undefined ? 10 : 1;
const deaths = [
  { name: 'kill -9: what was written stays', first: 0, crash: undefined },
  { name: 'power loss: what was not synced is gone', first: 3 % stride, crash: () => ({}) },
  {
    name: 'power loss that tears what was not synced',
    first: 6 % stride,
    crash: (seed: number) => ({ torn: new SeededRandom(seed) }),
  },
];

describe.each(deaths)('a process server that dies at any step ($name)', ({ first, crash }) => {
  test('has everything it acknowledged when it comes back, and goes on to a right barrier', async () => {
    const steps = await stepsOfALife();
    expect(steps).toBeGreaterThan(300);
    for (let fatal = first; fatal < steps; fatal += stride) {
      const world = new JournalWorld({ limits });
      const disk = new MemoryDisk();
      const agent = new SourceAgent(fatal, sda.sizeBytes);
      const life = new Mortality(fatal);
      await live(world, life, agent, disk).catch((error: Error) => {
        if (error.message !== 'the process died') throw error;
      });
      if (crash !== undefined) disk.crash(crash(fatal));
      const cache = await world.open({ disk });
      const journal = await cache.openMachine(world.machine());
      const where = `after death at step ${fatal}`;
      const { journaledLsn, lastBarrierLsn } = journal.positions();
      expect(journaledLsn >= agent.acknowledgedLsn, where).toBe(true);
      expect(lastBarrierLsn >= agent.acknowledgedBarrierLsn, where).toBe(true);
      if (agent.resyncAcknowledged) expect(journal.resync(), where).toEqual({ required: false });
      agent.connect(journal);
      const same = await agent.sameLeaves();
      await journalOfNow(journal, world);
      const held = (await world.replayVault()).disk;
      for (const leaf of same)
        expect(Buffer.compare(leafOf(held, leaf), agent.source.leaf(leaf)), where).toBe(0);
      await agent.resyncIfRequired();
      agent.scribble(2);
      await agent.sendDirty();
      const barrier = await agent.barrier();
      expect(barrier.disks[0]?.root, where).toBe(agent.root());
      await agent.uploaded();
      const replayed = await world.replayVault();
      expect(Buffer.compare(replayed.disk, agent.source.bytes), where).toBe(0);
      expect(replayed.wrongBarriers, where).toEqual([]);
      await cache.close();
    }
  });
});
