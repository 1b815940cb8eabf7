import { afterEach, describe, expect, test } from 'vitest';
import { AgentWorld, plain } from '../../test/fakes/agentWorld.ts';
import { LeafKnowledge } from '../../test/fakes/leafKnowledge.ts';
import { LEAF_SIZE } from '../journal/record.ts';

const GROUP_LEAVES = 16;
const ENDED = 'The scrub found no write unseen';

let world: AgentWorld;

/** With a vault that has all of the machine's disk. */
async function idleMachine(options: { scrubPassMs?: number; groups?: number } = {}) {
  const { groups = 1, scrubPassMs = 10_000 } = options;
  world = new AgentWorld({ scrubPassMs }, groups * GROUP_LEAVES);
  const sizeBytes = groups * GROUP_LEAVES * LEAF_SIZE;
  world.memory.knowledge = await LeafKnowledge.open([{ index: 0, sizeBytes }]);
  const made = await world.protectedMachine();
  made.server.questions.length = 0;
  return made;
}

/** How many reads the disk has seen since. */
function countReads(): () => number {
  let reads = 0;
  world.device.beforeRead = () => {
    reads += 1;
  };
  return () => reads;
}

function passesEnded() {
  return world.log.lines.filter(({ message }) => message === ENDED);
}

afterEach(async () => {
  await world.end();
});

describe('an idle agent', () => {
  test('finds a write that nothing else shows: the resync names the leaf for as long as it runs, and mends it', async () => {
    const { server, replication } = await idleMachine();
    world.device.writeUnseen(5 * LEAF_SIZE, 4096, 99);
    await world.passing(() => replication.status().lastResync?.reason === 'TrackingLost');
    expect(server.resyncs).toHaveLength(2);
    const told = server.statuses.filter(({ resync }) => resync?.reason === 'TrackingLost');
    expect(told).not.toHaveLength(0);
    for (const { errors } of told)
      expect(errors).toContainEqual(
        expect.objectContaining({
          code: 'TrackingLost',
          message: expect.stringContaining('leaf 5 of /dev/fake (disk 0'),
        }),
      );
    expect(replication.status().errors).toEqual([]);
    await server.prepare();
    await world.passing(() => server.barriers.length === 2);
    await server.upload();
    await world.passing(() => passesEnded().length === 1);
    expect(passesEnded()[0]?.fields).toMatchObject({ leavesCompared: GROUP_LEAVES });
    expect(server.resyncs).toHaveLength(2);
  });

  test('makes a barrier at once, whatever the scrub waits for', async () => {
    const { server } = await idleMachine();
    server.answers = false;
    await world.passing(() => server.asks === 1);
    const askedMs = world.clock.monotonic();
    await server.prepare();
    await world.passing(() => server.barriers.length === 2);
    expect(world.clock.monotonic() - askedMs).toBeLessThan(500);
  });

  test('sends what is dirty although its question is never answered, and asks no other meanwhile', async () => {
    const { server } = await idleMachine();
    server.answers = false;
    await world.passing(() => server.asks === 1);
    const { journaledLsn } = world.memory;
    world.device.write(0, 4096, 8);
    await world.passing(() => world.memory.journaledLsn > journaledLsn, 25);
    await world.clock.advance(60_000);
    expect(server.asks).toBe(1);
  });

  test('reads at the pace that it is given, and says what it compared', async () => {
    const { server } = await idleMachine({ scrubPassMs: 80_000, groups: 8 });
    const reads = countReads();
    await world.clock.advance(41_000);
    expect(reads()).toBeGreaterThanOrEqual(3);
    expect(reads()).toBeLessThanOrEqual(4);
    expect(server.asks).toBe(reads());
    await world.clock.advance(60_000);
    expect(passesEnded()).toHaveLength(1);
    expect(passesEnded()[0]?.fields).toMatchObject({
      leavesCompared: 8 * GROUP_LEAVES,
      leavesPassedOver: 0,
      seconds: expect.closeTo(80, 0),
    });
  });

  test('reads no more than 8 MiB a second, and a small disk once a minute at least', async () => {
    await idleMachine({ scrubPassMs: 1, groups: 4 });
    const fast = countReads();
    await world.clock.advance(4_000);
    expect(fast()).toBeLessThanOrEqual(32);
    expect(fast()).toBeGreaterThan(8);
    await world.end();
    await idleMachine({ scrubPassMs: 7 * 86_400_000 });
    const slow = countReads();
    await world.clock.advance(600_000);
    expect(slow()).toBeGreaterThanOrEqual(9);
    expect(slow()).toBeLessThanOrEqual(10);
  });

  test('leaves a disk alone that became slow', async () => {
    await idleMachine({ scrubPassMs: 4_000, groups: 4 });
    await world.clock.advance(5_000);
    let reads = 0;
    const read = world.device.read.bind(world.device);
    world.device.read = async (...args) => {
      reads += 1;
      await world.clock.sleep(400);
      return await read(...args);
    };
    await world.clock.advance(22_000);
    expect(reads).toBeGreaterThanOrEqual(4);
    expect(reads).toBeLessThanOrEqual(6);
  });

  test('does not scrub when it is told never to', async () => {
    await idleMachine({ scrubPassMs: Number.POSITIVE_INFINITY });
    const reads = countReads();
    await world.clock.advance(600_000);
    expect(reads()).toBe(0);
  });
});

describe('an agent that is not idle', () => {
  test('does not scrub while it is paused', async () => {
    const { server } = await idleMachine();
    await server.configure({ ...plain, paused: true });
    await world.clock.advance(1_000);
    const reads = countReads();
    await world.clock.advance(60_000);
    expect(reads()).toBe(0);
    await server.configure(plain);
    await world.passing(() => reads() > 0);
  });

  test('does not scrub a machine that is held frozen', async () => {
    const { server } = await idleMachine();
    const final = { failover: 'move', powerOff: false };
    await server.configure({ ...plain, final });
    await server.prepare(final);
    await world.passing(() => server.barriers.length === 2);
    await server.upload();
    await world.passing(() => server.final !== undefined);
    const reads = countReads();
    await world.clock.advance(60_000);
    expect(server.final).toBeDefined();
    expect(reads()).toBe(0);
  });

  test('does not scrub without a session: there is nobody to ask', async () => {
    const { server } = await idleMachine();
    await server.disconnect();
    const reads = countReads();
    await world.clock.advance(60_000);
    expect(reads()).toBe(0);
  });
});

describe('another session or agent', () => {
  test('after a restart the scrub goes on where it was', async () => {
    const { server } = await idleMachine({ scrubPassMs: 80_000, groups: 8 });
    await world.passing(() => server.asks === 3);
    // Saved with the rest of the agent's state.
    await world.clock.advance(11_000);
    const asked = server.asks;
    await server.disconnect();
    const again = await world.connect(await world.successor(), plain);
    await world.passing(() => again.asks > 0);
    expect(again.questions[0]?.firstLeaf).toBe(asked * GROUP_LEAVES);
    expect(again.resyncs).toEqual([]);
  });

  test('another cache, which knows only what is in the vault, is no reason for an alarm', async () => {
    const { server, replication } = await idleMachine();
    const inVault = world.device.bytes.slice();
    world.device.write(2 * LEAF_SIZE, 4096, 8);
    const { journaledLsn } = world.memory;
    await world.passing(() => world.memory.journaledLsn > journaledLsn);
    server.answers = false;
    const asked = server.asks;
    await world.passing(() => server.asks > asked);
    await server.disconnect();
    Object.assign(world.memory, {
      cacheId: 'cb'.repeat(16),
      journaledLsn: world.memory.uploadedBarrierLsn,
      knowledge: await LeafKnowledge.of(inVault),
    });
    const again = await world.connect(replication, plain);
    await world.clock.advance(60_000);
    expect(again.asks).toBeGreaterThan(3);
    await again.prepare();
    await world.passing(() => again.barriers.length === 1);
    await again.upload();
    const before = passesEnded().length;
    await world.passing(() => passesEnded().length > before + 1);
    expect(passesEnded().at(-1)?.fields).toMatchObject({ leavesCompared: GROUP_LEAVES });
    expect(again.resyncs).toEqual([]);
    expect(replication.status().errors).toEqual([]);
  });
});
