import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AgentWorld, copyOf, plain } from '../../test/fakes/agentWorld.ts';
import { LeafKnowledge } from '../../test/fakes/leafKnowledge.ts';
import type { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { decodeRecord, LEAF_SIZE, RecordKind } from '../journal/record.ts';
import type { Replication } from './replication.ts';

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

test('a resync leaves the processors to the machine’s programs, and so does what comes before a freeze', async () => {
  await world.protectedMachine();
  expect(world.givingWay.map(({ on }) => on)).toEqual([true, false, true, false]);
  expect(world.givingWay[0]?.resyncing).toBe(true);
  expect(world.givingWay[2]?.resyncing).toBe(false);
});

test('a barrier that the process server gave up does not keep the machine from the next one', async () => {
  const { server } = await world.protectedMachine();
  const made = server.barriers.length;
  server.letsFreeze = false;
  const ready = server.readies.length;
  await server.prepare();
  await world.passing(() => server.readies.length > ready);
  server.letsFreeze = true;
  await server.prepare();
  await world.passing(() => server.barriers.length > made);
  expect(server.voided).toContain('NotAsked');
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

describe('a resync that can wait', () => {
  const waiting = { ...plain, resyncWaits: ['DiskResized' as const, 'VaultGap' as const] };

  async function resized() {
    const { server } = await world.protectedMachine();
    await server.configure(waiting);
    const { device } = world;
    device.identityNow = { ...device.identityNow, sizeBytes: 8 * LEAF_SIZE };
    await world.passing(() => server.statuses.at(-1)?.loss?.reason === 'DiskResized');
    await world.clock.advance(60_000);
    expect(server.resyncs).toHaveLength(1);
    return server;
  }

  test('begins when the window opens', async () => {
    const server = await resized();
    await server.configure(plain);
    await world.passing(() => server.resyncs.length === 2);
    await world.passing(() => server.statuses.at(-1)?.lastResync?.reason === 'DiskResized');
    expect(server.statuses.at(-1)?.loss).toBeUndefined();
  });

  test('begins at once when somebody asks for it', async () => {
    const server = await resized();
    await server.configure({ ...waiting, resyncToken: 'now' });
    await world.passing(() => server.resyncs.length === 2);
    await world.passing(() => server.statuses.at(-1)?.resyncToken === 'now');
  });

  test('for an urgent reason does not wait', async () => {
    const { server } = await world.protectedMachine();
    await server.configure(waiting);
    world.tracer.problem = 'somebody turned it off';
    await world.passing(() => server.statuses.at(-1)?.loss !== undefined);
    world.tracer.problem = undefined;
    await world.passing(() => server.resyncs.length === 2);
    expect(server.statuses.at(-1)?.resync?.reason ?? 'TrackingLost').toBe('TrackingLost');
  });
});

test('a disk that was shrunk is not protected on: what to do is said, until it has its size back', async () => {
  const { replication, server } = await world.protectedMachine();
  const { device } = world;
  const whole = device.identityNow;
  await server.configure({
    ...plain,
    disks: plain.disks.map((disk) => ({ ...disk, sizeBytes: whole.sizeBytes })),
  });
  device.identityNow = { ...whole, sizeBytes: whole.sizeBytes - LEAF_SIZE };
  await world.passing(() => server.statuses.at(-1)?.disks[0]?.error?.code === 'DiskShrunk');
  await world.clock.advance(60_000);
  expect(server.resyncs).toHaveLength(1);
  expect(replication.status().disks[0]?.error?.message).toMatch(/Give it its size back, or/);
  device.identityNow = whole;
  await world.passing(() => server.resyncs.length === 2);
  await world.passing(() => server.statuses.at(-1)?.disks[0]?.error === undefined);
});

describe('leaves that the vault lost', () => {
  const repair = [{ disk: 0, leaf: 5 }];

  /** A machine whose process server knows what it was sent, all of it uploaded. */
  async function settled() {
    const { server } = await world.protectedMachine();
    const knowledge = await LeafKnowledge.of(world.device.bytes);
    world.memory.knowledge = knowledge;
    const whole: number[] = [];
    const take = knowledge.take.bind(knowledge);
    knowledge.take = (records) => {
      for (let offset = 0; offset < records.length; ) {
        const { record, next } = decodeRecord(records, offset);
        offset = next;
        if (record.kind === RecordKind.Data && record.blockMask === 0xffff) whole.push(record.leaf);
      }
      take(records);
    };
    return { server, whole };
  }

  test('are sent again whole, and no other, though nobody wrote there', async () => {
    const { server, whole } = await settled();
    await server.configure({ ...plain, repair });
    await world.passing(() => whole.length > 0);
    expect(whole).toEqual([5]);
    // Told again with something else, or still: they are on their way.
    await server.configure({ ...plain, repair, resyncToken: undefined });
    await world.clock.advance(300_000);
    expect(whole).toEqual([5]);
    expect(server.resyncs).toHaveLength(1);
  });

  test('are sent once more when they are asked for still, and no more when they are not', async () => {
    const { server, whole } = await settled();
    await server.configure({ ...plain, repair });
    await world.passing(() => whole.length === 1);
    await world.clock.advance(600_000);
    await server.prepare();
    await world.passing(() => whole.length === 2);
    await server.configure(plain);
    await world.clock.advance(1_200_000);
    expect(whole).toEqual([5, 5]);
  });

  test('are sent whole, also where one of their blocks is written again and again', async () => {
    const { server, whole } = await settled();
    const interval = async (meanwhile: () => Promise<void> = async () => {}) => {
      const made = server.barriers.length;
      await server.prepare();
      await world.passing(() => server.barriers.length > made);
      await server.upload();
      for (let second = 0; second < 60; second += 10) {
        world.device.write(5 * LEAF_SIZE, 4096, (world.clock.monotonic() % 250) + 1);
        await world.clock.advance(10_000);
        if (second === 20) await meanwhile();
      }
    };
    await interval();
    await interval(() => server.configure({ ...plain, repair }));
    for (let minute = 0; minute < 3; minute += 1) await interval();
    expect(whole).toContain(5);
  });

  test('are sent after a resync that took them for known', async () => {
    const { server, whole } = await settled();
    await server.configure({ ...plain, repair, resyncToken: 'again' });
    await world.passing(() => server.resyncs.length === 2);
    await world.passing(() => whole.length === 1);
    expect(whole).toEqual([5]);
  });
});

describe('a machine whose process server was lost', () => {
  const written = [3, 4, 5];

  /** Its last barrier carried those leaves, and nobody told the agent that it was uploaded. */
  async function unheard() {
    const { replication, server } = await world.protectedMachine();
    for (const leaf of written) world.device.write(leaf * LEAF_SIZE, 4096, leaf);
    await server.prepare();
    await world.passing(() => server.barriers.length === 2);
    await server.disconnect();
    // As the vault has it: another cache knows no more.
    world.memory.cacheId = 'cb'.repeat(16);
    return { replication };
  }

  /** Leaves that the next barrier carries. */
  async function sentTo(replication: Replication): Promise<number[]> {
    const knowledge = await LeafKnowledge.of(world.device.bytes);
    world.memory.knowledge = knowledge;
    const leaves: number[] = [];
    knowledge.take = (records) => {
      for (let offset = 0; offset < records.length; ) {
        const { record, next } = decodeRecord(records, offset);
        offset = next;
        if (record.kind === RecordKind.Data) leaves.push(record.leaf);
      }
    };
    const next = await world.connect(replication, plain);
    world.device.write(9 * LEAF_SIZE, 4096, 9);
    await next.prepare();
    await world.passing(() => next.barriers.length === 1);
    return leaves;
  }

  test('sends again what was not uploaded', async () => {
    const { replication } = await unheard();
    world.memory.journaledLsn = world.memory.uploadedBarrierLsn;
    expect(await sentTo(replication)).toEqual([...written, 9]);
  });

  test('sends again what another took whose LSNs were given once more by now', async () => {
    const { replication } = await unheard();
    // That many records, and a barrier, came into the vault from somebody else under these LSNs.
    world.memory.uploadedBarrierLsn = world.memory.journaledLsn;
    expect(await sentTo(replication)).toEqual([...written, 9]);
  });

  test('sends all of that again to the same cache too, where it began again under another epoch', async () => {
    const { replication } = await unheard();
    world.memory.cacheId = 'ca'.repeat(16);
    world.memory.writerEpoch = 2;
    world.memory.uploadedBarrierLsn = world.memory.journaledLsn;
    expect(await sentTo(replication)).toEqual([...written, 9]);
  });

  test('nor does the agent that follows it take them for uploaded', async () => {
    await unheard();
    world.memory.cacheId = 'ca'.repeat(16);
    world.memory.writerEpoch = 2;
    world.memory.uploadedBarrierLsn = world.memory.journaledLsn;
    expect(await sentTo(await world.successor())).toEqual([...written, 9]);
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
