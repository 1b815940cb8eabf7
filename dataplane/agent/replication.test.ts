import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AgentWorld, copyOf, plain } from '../../test/fakes/agentWorld.ts';
import type { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { LEAF_SIZE } from '../journal/record.ts';

const move = { failover: 'move', powerOff: false };

let world: AgentWorld;

async function heldMachine(final = move) {
  const { replication, server } = await world.protectedMachine();
  await server.configure({ ...plain, final });
  world.device.write(0, 4096, 5);
  await server.prepare(final);
  await world.passing(() => server.barriers.length === 2);
  await server.upload();
  await world.passing(() => server.final !== undefined);
  return { replication, server };
}

beforeEach(() => {
  world = new AgentWorld();
});

afterEach(async () => {
  await world.end();
});

test('a resync leaves the processors to the machine’s programs; a barrier, for which they wait, does not', async () => {
  await world.protectedMachine();
  expect(world.givingWay.map(({ on }) => on)).toEqual([true, false]);
  expect(world.givingWay[0]?.resyncing).toBe(true);
});

describe('a planned failover', () => {
  test('keeps the machine frozen behind its last barrier, and says so', async () => {
    const { server } = await heldMachine();
    expect(world.freezer.frozen).toBe(true);
    expect(world.freezer.calls).toContain('hold');
    expect(server.final).toEqual({ failover: 'move', poweredOff: false });
    await world.clock.advance(60_000);
    expect(world.freezer.frozen).toBe(true);
    expect(server.final).toBeDefined();
  });

  test('does not vouch for a machine that somebody thawed: lets it go, and takes another last barrier', async () => {
    const { server } = await heldMachine();
    world.device.write(LEAF_SIZE, 4096, 6);
    await world.passing(() => server.final === undefined);
    await world.passing(() => !world.freezer.frozen);
    await server.prepare(move);
    await world.passing(() => server.barriers.length === 3);
    await server.upload();
    await world.passing(() => server.final !== undefined);
    expect(world.freezer.frozen).toBe(true);
  });

  test('that is cancelled, or replaced by another, lets the machine go', async () => {
    const { server } = await heldMachine();
    await server.configure({ ...plain, final: { failover: 'another', powerOff: false } });
    await world.passing(() => !world.freezer.frozen);
    await world.passing(() => server.final === undefined);
  });

  test('that is cancelled while its last barrier is uploaded turns nothing off', async () => {
    const { server } = await world.protectedMachine();
    const final = { failover: 'move', powerOff: true };
    await server.configure({ ...plain, final });
    await server.prepare(final);
    await world.passing(() => server.barriers.length === 2);
    await server.configure(plain);
    await world.clock.advance(500);
    await server.upload();
    await world.passing(() => server.voided.includes('FinalCancelled'));
    expect(world.freezer.frozen).toBe(false);
    await world.clock.advance(10_000);
    expect(world.powerOffs).toBe(0);
  });

  test('turns the machine off also when the connection broke before it could say so', async () => {
    const final = { failover: 'move', powerOff: true };
    const { replication, server } = await world.protectedMachine();
    await server.configure({ ...plain, final });
    await server.prepare(final);
    await world.passing(() => server.barriers.length === 2);
    const hold = world.freezer.hold.bind(world.freezer);
    world.freezer.hold = async () => {
      await server.close();
      return await hold();
    };
    await server.upload();
    await world.passing(() => world.freezer.heldMounts.length > 0);
    await server.disconnect();
    expect(world.powerOffs).toBe(0);
    const again = await world.connect(replication, { ...plain, final });
    await world.passing(() => world.powerOffs === 1);
    expect(again.final).toEqual({ failover: 'move', poweredOff: true });
  });

  test('goes on holding the machine after its agent was killed', async () => {
    const { server } = await heldMachine();
    await server.disconnect();
    const next = await world.successor();
    const again = await world.connect(next, { ...plain, final: move });
    await world.passing(() => again.final !== undefined);
    await again.configure(plain);
    await world.passing(() => world.freezer.heldMounts.length === 0 && again.final === undefined);
  });

  test('thaws the machine when its agent was killed while it called the watchdogs off', async () => {
    const { server } = await world.protectedMachine();
    await server.configure({ ...plain, final: move });
    await server.prepare(move);
    await world.passing(() => server.barriers.length === 2);
    let saved: MemoryDisk | undefined;
    const hold = world.freezer.hold.bind(world.freezer);
    world.freezer.hold = async () => {
      const held = await hold();
      saved = await copyOf(world.runDisk);
      return held;
    };
    await server.upload();
    await world.passing(() => server.final !== undefined);
    await server.disconnect();
    if (saved === undefined) throw new Error('nothing was held');
    world.runDisk = saved;
    const next = await world.successor();
    expect(world.freezer.heldMounts).toEqual([]);
    const again = await world.connect(next, { ...plain, final: move });
    await world.passing(() => again.statuses.length > 0);
    expect(again.final).toBeUndefined();
  });
});

describe('a resync that was interrupted', () => {
  async function interrupted() {
    const { replication, server } = await world.protectedMachine();
    server.answers = false;
    await server.configure({ ...plain, resyncToken: 'again' });
    await world.passing(() => server.asks > 0 && server.resyncs.length > 0);
    const beginLsn = server.resyncs.at(-1) ?? 0n;
    await server.disconnect();
    return { replication, beginLsn };
  }

  test('goes on where it was when the journal is inside of it', async () => {
    const { replication, beginLsn } = await interrupted();
    world.memory.resync = { required: true, reason: 'Manual', beginLsn };
    const again = await world.connect(replication, { ...plain, resyncToken: 'again' });
    await world.passing(() => again.asks > 0);
    expect(again.resyncs).toEqual([]);
  });

  test.each([
    ['the machine went back in time since', { required: true, reason: 'SourceReverted' } as const],
    ['the journal lost its hashes', { required: true, reason: 'VaultGap' } as const],
    ['another one was begun since', { required: true, reason: 'Manual', beginLsn: 1n } as const],
  ])('begins anew when %s: nothing that it compared counts', async (_, resync) => {
    const { replication } = await interrupted();
    world.memory.resync = resync;
    const again = await world.connect(replication, { ...plain, resyncToken: 'again' });
    await world.passing(() => again.asks > 0);
    expect(again.resyncs).toHaveLength(1);
  });
});
