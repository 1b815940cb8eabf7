/** How machines share one way to the vault, and the cache's room while it is slow: through the whole cache, in virtual time. */
import { describe, expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { JournalWorld, machineId, sda, until } from '../../test/fakes/journalWorld.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { SourceAgent } from '../../test/fakes/sourceAgent.ts';
import { protectedMachine } from '../../test/fixtures/protectedMachine.ts';
import { limitInForce } from '../../vault/documents/bandwidth.ts';
import type { Cache } from './cache.ts';
import type { MachineJournal } from './machineJournal.ts';

const KIB = 1 << 10;

interface Machine {
  id: string;
  agent: SourceAgent;
  journal: MachineJournal;
}

/** Machines that are all in the vault, and then journal more. */
async function machinesIn(world: JournalWorld, cache: Cache, count: number): Promise<Machine[]> {
  const machines: Machine[] = [];
  for (let number = 0; number < count; number += 1) {
    const id = machineId.slice(0, -1) + String(number);
    const journal = await cache.openMachine({ ...world.machine(), machineId: id });
    const agent = new SourceAgent(number + 1, sda.sizeBytes);
    agent.connect(journal);
    await agent.resyncIfRequired();
    await agent.barrier();
    await agent.uploaded();
    machines.push({ id, agent, journal });
  }
  return machines;
}

/** Whose segments took effect, in order. */
function watchSegments(world: JournalWorld): { machineId: string; atMs: number; bytes: number }[] {
  const seen: { machineId: string; atMs: number; bytes: number }[] = [];
  const { objects } = world;
  const put = objects.putIfAbsent.bind(objects);
  objects.putIfAbsent = async (key, body, options) => {
    const result = await put(key, body, options);
    const id = /^journal\/([0-9a-f]{32})\//.exec(key)?.[1];
    if (id !== undefined)
      seen.push({
        machineId: id,
        atMs: world.clock.monotonic(),
        bytes: body instanceof Uint8Array ? body.length : body.size,
      });
    return result;
  };
  return seen;
}

/** Noise, which does not compress. */
async function change(machine: Machine, options: { leaves: number; timeMs: number }) {
  const { bytes } = machine.agent.source;
  bytes.set(new SeededRandom(options.timeMs).bytes(options.leaves * 65536));
  const writes = options.leaves * 16;
  for (let block = 0; block < writes; block += 1)
    machine.agent.mark(Math.floor(block / 16), 1 << (block % 16));
  await machine.agent.barrier('Crash', { timeMs: options.timeMs });
}

describe('when several machines are behind', () => {
  test('the one with the oldest barrier comes first, and each journal stays whole', async () => {
    const world = new JournalWorld();
    const cache = await world.open();
    const machines = await machinesIn(world, cache, 3);
    const now = world.clock.now();
    // Nothing goes until all of them wait; then a segment every 4 seconds or so.
    let limit = 1;
    cache.limitUploads(() => limit);
    const seen = watchSegments(world);
    const [a, b, c] = machines as [Machine, Machine, Machine];
    for (const [machine, ageMinutes] of [
      [a, 5],
      [b, 30],
      [c, 60],
    ] as const)
      for (let barrier = 0; barrier < 2; barrier += 1)
        await change(machine, { leaves: 1, timeMs: now - ageMinutes * 60_000 + barrier * 1000 });
    expect(seen).toEqual([]);
    limit = 16 * KIB;
    for (let waited = 0; seen.length < 6; waited += 1) {
      if (waited > 600) throw new Error('nothing goes');
      await world.clock.advance(500);
    }
    // The first came before the others were there. Then the furthest behind, one of the others in four.
    expect(seen.map(({ machineId: id }) => id).slice(1, 3)).toEqual([c.id, c.id]);
    for (const { agent } of machines) await agent.uploaded();
    await cache.close();
  });

  test('the limit changes at the border of its window, without anything being opened again', async () => {
    const world = new JournalWorld();
    const cache = await world.open();
    const [machine] = (await machinesIn(world, cache, 1)) as [Machine];
    // It is 00:00 UTC: the first two minutes at 8 KiB/s, then 64.
    const windows = [{ from: '00:00', to: '00:02', timeZone: 'UTC', bytesPerSecond: 8 * KIB }];
    const bandwidth = { bytesPerSecond: 64 * KIB, windows };
    cache.limitUploads(() => limitInForce(bandwidth, world.clock.now()));
    const seen = watchSegments(world);
    for (let barrier = 0; barrier < 60; barrier += 1)
      await change(machine, { leaves: 1, timeMs: world.clock.now() + barrier });
    const sent = () => seen.reduce((sum, { bytes }) => sum + bytes, 0);
    const within = async (ms: number) => {
      const before = sent();
      for (let passed = 0; passed < ms; passed += 500) await world.clock.advance(500);
      return (sent() - before) / (ms / 1000);
    };
    // Its burst and the segment on its way do not count.
    await within(20_000);
    const slow = await within(90_000);
    await within(15_000);
    const fast = await within(15_000);
    expect(slow / (8 * KIB)).toBeGreaterThan(0.8);
    expect(slow / (8 * KIB)).toBeLessThan(1.2);
    expect(fast / (64 * KIB)).toBeGreaterThan(0.8);
    expect(fast / (64 * KIB)).toBeLessThan(1.2);
    cache.limitUploads(() => undefined);
    await world.clock.advance(2_000);
    await machine.agent.uploaded();
    await cache.close();
  });

  test('closing the cache does not wait for a slow link', async () => {
    const world = new JournalWorld();
    const cache = await world.open();
    const machines = await machinesIn(world, cache, 2);
    cache.limitUploads(() => 1);
    for (const machine of machines) await change(machine, { leaves: 2, timeMs: world.clock.now() });
    let closed = false;
    const closing = cache.close().then(() => {
      closed = true;
    });
    for (let second = 0; second < 10 && !closed; second += 1) await world.clock.advance(1000);
    await until(() => closed);
    await closing;
  });
});

test('a full cache makes appends wait until uploads have freed it, and drops nothing', async () => {
  const world = new JournalWorld({ limits: { logFileBytes: 60_000, maxBytes: 200_000 } });
  const { cache, journal, agent } = await protectedMachine(world, { seed: 3 });
  world.objects.fault = (operation) =>
    operation === 'putIfAbsent' ? { when: 'before', error: new Error('no link') } : undefined;
  agent.scribble(60);
  const sending = agent.barrier();
  await until(() => journal.waitingForSpace());
  expect(cache.usage().freeBytes).toBe(0);
  await world.clock.advance(10_000);
  expect(journal.waitingForSpace()).toBe(true);
  world.objects.fault = undefined;
  let done = false;
  void sending.then(() => {
    done = true;
  });
  for (let i = 0; i < 200 && !done; i++) await world.clock.advance(5000);
  await sending;
  await agent.uploaded();
  const replayed = await world.replayVault();
  expect(replayed.wrongBarriers).toEqual([]);
  expect(Buffer.compare(replayed.disk, agent.source.bytes)).toBe(0);
  await cache.close();
});

test('a machine that fills the cache leaves room to those that hold less, until they hold as much', async () => {
  const world = new JournalWorld({ limits: { maxBytes: 2 << 20, logFileBytes: 256 * KIB } });
  const cache = await world.open();
  const [greedy, small] = (await machinesIn(world, cache, 2)) as [Machine, Machine];
  world.objects.fault = () => ({
    when: 'before',
    error: new StoreError('VaultUnreachable', 'no answer'),
  });
  await change(small, { leaves: 1, timeMs: world.clock.now() + 1 });
  // More than the cache holds: it waits, and drops nothing.
  const filling = change(greedy, { leaves: 40, timeMs: world.clock.now() + 1 });
  await until(() => greedy.journal.waitingForSpace());
  const free = cache.usage().freeBytes;
  expect(free).toBeGreaterThan(128 * KIB);
  await change(small, { leaves: 1, timeMs: world.clock.now() + 2 });
  expect(greedy.journal.waitingForSpace()).toBe(true);
  expect(cache.usage().freeBytes).toBeLessThan(free);
  world.objects.fault = undefined;
  let filled = false;
  const done = filling.then(() => {
    filled = true;
  });
  for (let second = 0; second < 120 && !filled; second += 1) await world.clock.advance(1000);
  await done;
  for (const { agent } of [greedy, small]) await agent.uploaded();
  await cache.close();
});
