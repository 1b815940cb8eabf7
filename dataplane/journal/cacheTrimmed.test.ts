/** Process servers that read or continue a journal while it is trimmed. */
import { expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { atEveryCall } from '../../test/fakes/atEveryCall.ts';
import {
  dataKey,
  JournalWorld,
  machineId,
  rootOf,
  sda,
  until,
} from '../../test/fakes/journalWorld.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { applyRecord } from '../../test/fakes/records.ts';
import { SourceAgent } from '../../test/fakes/sourceAgent.ts';
import { trimJournal } from './journalRetention.ts';
import { retirePoints } from './pointRetention.ts';
import { newestPoint } from './points.ts';
import { decodeRecord, LEAF_SIZE } from './record.ts';
import { Replica } from './replica.ts';

const all = { retentionMs: 0, nowMs: 9e12 };

/** What an applier does with the journal of a JournalWorld. */
async function applyAndTrim(
  world: JournalWorld,
  retention: { retire: boolean; trim: boolean },
): Promise<void> {
  const deps = { objects: world.objects, pages: world.pages, clock: world.clock };
  const replica = await Replica.open(
    { ...deps, logger: world.logger },
    { machineId, dataKey, disks: [{ ...sda, device: '/dev/sda' }], holder: 'applier:test' },
  );
  await replica.applyTo('end', { makePoints: true });
  const { applied } = replica.state;
  await replica.close();
  const options = { ...all, machineId, limit: 1000 };
  if (retention.retire) await retirePoints({ ...deps, logger: world.logger }, options);
  if (retention.trim) await trimJournal({ ...deps, logger: world.logger }, { ...options, applied });
}

/** A machine with a point in the middle of its journal; `bodies` are its disk at every LSN of a barrier. */
async function replicatedWorld() {
  const world = new JournalWorld();
  const cache = await world.open();
  const journal = await cache.openMachine(world.machine());
  const agent = new SourceAgent(1, sda.sizeBytes);
  agent.connect(journal);
  await agent.resyncIfRequired();
  const barriers = async (count: number) => {
    for (let round = 0; round < count; round += 1) {
      await world.clock.advance(60_000);
      agent.scribble(1);
      await agent.barrier('Crash', { timeMs: world.clock.now() });
      await agent.uploaded();
    }
  };
  await barriers(1);
  await applyAndTrim(world, { retire: false, trim: false });
  await barriers(2);
  return Object.assign(world, { agent, journal, cache, barriers });
}

/** The disk that the newest point and the journal behind it give. */
async function diskOfVault(world: JournalWorld): Promise<Uint8Array> {
  const point = await newestPoint(world.objects, machineId);
  if (point === undefined) throw new Error('no point');
  const [found] = point.disks;
  if (found === undefined) throw new Error('no disk');
  const { key, snapshot } = found.replica;
  const range = { offset: 0, length: sda.sizeBytes };
  const disk = await world.pages.read(key, range, { snapshot });
  for await (const segment of world.chain().segments({ ...point.segment, lsn: point.lsn }))
    for await (const { records } of segment.batches())
      for (let offset = 0; offset < records.length; ) {
        const { record, next } = decodeRecord(records, offset);
        offset = next;
        applyRecord(record, new Map([[0, disk]]));
      }
  return disk;
}

test('a process server without its cache gets its hashes from the vault, whatever is made, retired and trimmed while it reads', async () => {
  const calls = await atEveryCall({
    world: replicatedWorld,
    meanwhile: (world) => applyAndTrim(world, { retire: true, trim: true }),
    act: async (world) => {
      await world.cache.close();
      const cache = await world.open({ disk: new MemoryDisk() });
      return { cache, journal: await cache.openMachine(world.machine({ writerEpoch: 2 })) };
    },
    check: async ({ cache, journal }, world) => {
      const { agent } = world;
      expect(journal.resync()).toEqual({ required: false });
      agent.connect(journal);
      expect(await agent.sameLeaves()).toHaveLength(sda.sizeBytes / LEAF_SIZE);
      const barrier = await agent.barrier('Crash', { timeMs: world.clock.now() + 60_000 });
      expect(barrier.disks[0]?.root).toBe(agent.root());
      await agent.uploaded();
      expect(rootOf(await diskOfVault(world))).toBe(agent.root());
      await cache.close();
    },
  });
  expect(calls).toBeGreaterThan(15);
});

test('nor does it matter when the hashes that it began with are retired under its hands', async () => {
  const world = await replicatedWorld();
  const { agent } = world;
  await world.cache.close();
  const { ranges } = world.pages;
  world.pages.ranges = async function* (...args) {
    world.pages.ranges = ranges;
    await applyAndTrim(world, { retire: true, trim: true });
    yield* world.pages.ranges(...args);
  };
  const cache = await world.open({ disk: new MemoryDisk() });
  const journal = await cache.openMachine(world.machine({ writerEpoch: 2 }));
  const warned = world.logger.lines.filter(({ level }) => level === 'warn');
  expect(warned).toMatchObject([{ fields: { code: 'StoreObjectMissing' } }]);
  expect(journal.resync()).toEqual({ required: false });
  agent.connect(journal);
  expect(await agent.sameLeaves()).toHaveLength(sda.sizeBytes / LEAF_SIZE);
  await cache.close();
});

test('a writer whose number was taken, trimmed and is free again is fenced, and nothing of it counts', async () => {
  for (const lostAnswer of [false, true]) {
    const world = await replicatedWorld();
    const { agent: first, journal } = world;
    const { uploadedLsn } = journal.positions();
    let others: Promise<{ agent: SourceAgent; cache: { close(): Promise<void> } }> | undefined;
    const takeOver = async () => {
      const cache = await world.open({ disk: new MemoryDisk() });
      const second = await cache.openMachine(world.machine({ writerEpoch: 2 }));
      const agent = new SourceAgent(1, sda.sizeBytes);
      agent.source.bytes.set(first.source.bytes);
      agent.connect(second);
      for (let round = 0; round < 3; round += 1) {
        await world.clock.advance(60_000);
        agent.scribble(1);
        await agent.barrier('Crash', { timeMs: world.clock.now() });
        await agent.uploaded();
      }
      await applyAndTrim(world, { retire: true, trim: true });
      return { agent, cache };
    };
    // It sleeps right before its put, until others are long past its number.
    world.objects.interleave = async (operation, key) => {
      if (operation !== 'putIfAbsent' || !key.endsWith('.seg')) return;
      world.objects.interleave = undefined;
      others = takeOver();
      await others;
    };
    let lost = 0;
    world.objects.fault = (operation, key) =>
      lostAnswer && others !== undefined && operation === 'get' && key.endsWith('trim.json')
        ? lost++ === 0
          ? { when: 'before', error: new StoreError('VaultUnreachable', 'no answer') }
          : undefined
        : undefined;
    await first.barrier('Crash', { timeMs: world.clock.now() + 1 });
    for (let turn = 0; journal.fenced() === undefined && turn < 1000; turn += 1)
      await world.clock.advance(1000);
    expect(journal.fenced()).toEqual({ by: 'HigherEpoch' });
    expect(journal.positions().uploadedLsn).toBe(uploadedLsn);
    const { agent, cache } = await (others ?? takeOver());
    agent.scribble(2);
    await agent.barrier('Crash', { timeMs: world.clock.now() });
    await agent.uploaded();
    expect(rootOf(await diskOfVault(world))).toBe(agent.root());
    // What it had put is gone again.
    const numbers = world.objects.keys().filter((key) => key.endsWith('.seg'));
    expect(numbers).toHaveLength(2);
    await world.cache.close();
    await cache.close();
  }
});

test('a segment that was put in time stays committed, also when its answer is lost and the journal is trimmed up to it', async () => {
  const world = await replicatedWorld();
  const { agent, journal } = world;
  let lost = 0;
  world.objects.fault = (operation, key) =>
    operation === 'putIfAbsent' && key.endsWith('.seg') && lost++ === 0
      ? { when: 'after', error: new StoreError('VaultUnreachable', 'no answer') }
      : undefined;
  agent.scribble(1);
  await agent.barrier('Crash', { timeMs: world.clock.now() + 60_000 });
  await until(() => world.clock.sleeping > 0);
  await applyAndTrim(world, { retire: true, trim: true });
  expect(world.objects.keys().filter((key) => key.endsWith('.seg'))).toHaveLength(1);
  await world.clock.advance(1000);
  await agent.uploaded();
  expect(journal.fenced()).toBeUndefined();
  expect(rootOf(await diskOfVault(world))).toBe(agent.root());
  await world.cache.close();
});
