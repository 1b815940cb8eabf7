import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { channelPair, verified } from '../../test/fakes/channel.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import {
  ScriptedProcessServer,
  type ServerMemory,
} from '../../test/fakes/scriptedProcessServer.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { FakeDisk, FakeFreezer, FakeTracer } from '../../test/fakes/sourceMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { Connection, framesFrom } from '../wire/connection.ts';
import type { Configuration } from '../wire/messages.ts';
import { IdentityStore } from './identity.ts';
import { QuietLog } from './quietLog.ts';
import { Replication } from './replication.ts';
import { Session } from './session.ts';
import { AgentStateStore } from './state.ts';

const machineId = '0123456789abcdef0123456789abcdef';
const disks = [{ index: 0, name: 'sda', device: '/dev/fake' }];
const move = { failover: 'move', powerOff: false };

/** A machine whose filesystems stay frozen when its agent holds them, whoever that is. */
class HoldingFreezer extends FakeFreezer {
  heldMounts: string[] = [];

  override async hold() {
    this.heldMounts = ['/data'];
    return await super.hold();
  }

  override async thaw() {
    this.heldMounts = [];
    return await super.thaw();
  }

  override held(): string[] {
    return this.heldMounts;
  }
}

class KeptTracer extends FakeTracer {
  adopt = false;

  override async start() {
    return { adopted: this.adopt };
  }
}

let clock: ManualClock;
let device: FakeDisk;
let tracer: KeptTracer;
let freezer: HoldingFreezer;
let runDisk: MemoryDisk;
let stateDisk: MemoryDisk;
let memory: ServerMemory;
let powerOffs: number;
let givingWay: { on: boolean; resyncing: boolean }[];
let agents: Replication[];

function agent(): Replication {
  const replication = new Replication({
    machineId,
    devices: { open: async () => device },
    tracer,
    freezer,
    hooks: { run: async () => ({ failures: [] }) },
    machine: {
      facts: async () => ({ hostname: 'db1', kernel: 'test', bootId: 'boot' }),
      disks: async () => [],
      powerOff: async () => {
        powerOffs += 1;
      },
      giveWay: (on) => {
        givingWay.push({ on, resyncing: memory.resyncRequired });
      },
    },
    clock,
    store: new AgentStateStore(runDisk),
    identities: new IdentityStore(stateDisk),
    quietLog: new QuietLog(silentLogger),
    limits: { deadlineMs: 2_000, finalDeadlineMs: 20_000 },
  });
  agents.push(replication);
  return replication;
}

async function passing(condition: () => boolean, seconds = 120): Promise<void> {
  for (let round = 0; round < seconds * 20; round += 1) {
    if (condition()) return;
    await clock.advance(50);
  }
  throw new Error('the condition never came true');
}

async function connect(replication: Replication, configuration: Configuration) {
  const { a, b } = channelPair({ peerOfA: verified('ps'), peerOfB: verified('agent') });
  const server = new ScriptedProcessServer({ channel: b, clock, memory });
  const listening = server.listen();
  const session = new Session({
    connection: new Connection({ channel: a, clock, accepts: framesFrom.processServer }),
    welcome: server.welcome(configuration),
    saveCaptured: (lsn) => replication.saveCaptured(lsn),
  });
  let over = false;
  const served = replication.serve(session).finally(() => {
    over = true;
  });
  return Object.assign(server, {
    disconnect: async () => {
      await server.close();
      await passing(() => over);
      await served;
      await listening;
    },
  });
}

const plain: Configuration = { disks, paused: false };

/** Resynced, with one ordinary barrier in the vault. */
async function protectedMachine() {
  const replication = agent();
  await replication.start();
  const server = await connect(replication, plain);
  await passing(() => !memory.resyncRequired && replication.status().lastResync !== undefined);
  await server.prepare();
  await passing(() => server.barriers.length === 1);
  await server.upload();
  return { replication, server };
}

async function heldMachine(final = move) {
  const { replication, server } = await protectedMachine();
  await server.configure({ ...plain, final });
  device.write(0, 4096, 5);
  await server.prepare(final);
  await passing(() => server.barriers.length === 2);
  await server.upload();
  await passing(() => server.final !== undefined);
  return { replication, server };
}

beforeEach(() => {
  clock = new ManualClock();
  device = new FakeDisk({ sizeBytes: 16 * LEAF_SIZE });
  device.bytes.fill(3);
  tracer = new KeptTracer([device]);
  freezer = new HoldingFreezer(clock);
  runDisk = new MemoryDisk();
  stateDisk = new MemoryDisk();
  memory = { journaledLsn: 0n, uploadedBarrierLsn: 0n, resyncRequired: true };
  powerOffs = 0;
  givingWay = [];
  agents = [];
});

afterEach(async () => {
  let over = false;
  const stopped = Promise.all(agents.map((one) => one.stop())).finally(() => {
    over = true;
  });
  await passing(() => over);
  await stopped;
});

test('a resync leaves the processors to the machine’s programs; a barrier, for which they wait, does not', async () => {
  await protectedMachine();
  expect(givingWay.map(({ on }) => on)).toEqual([true, false]);
  expect(givingWay[0]?.resyncing).toBe(true);
});

describe('a planned failover', () => {
  test('keeps the machine frozen behind its last barrier, and says so', async () => {
    const { server } = await heldMachine();
    expect(freezer.frozen).toBe(true);
    expect(freezer.calls).toContain('hold');
    expect(server.final).toEqual({ failover: 'move', poweredOff: false });
    await clock.advance(60_000);
    expect(freezer.frozen).toBe(true);
    expect(server.final).toBeDefined();
  });

  test('does not vouch for a machine that somebody thawed: lets it go, and takes another last barrier', async () => {
    const { server } = await heldMachine();
    device.write(LEAF_SIZE, 4096, 6);
    await passing(() => server.final === undefined);
    await passing(() => !freezer.frozen);
    await server.prepare(move);
    await passing(() => server.barriers.length === 3);
    await server.upload();
    await passing(() => server.final !== undefined);
    expect(freezer.frozen).toBe(true);
  });

  test('that is cancelled, or replaced by another, lets the machine go', async () => {
    const { server } = await heldMachine();
    await server.configure({ ...plain, final: { failover: 'another', powerOff: false } });
    await passing(() => !freezer.frozen);
    await passing(() => server.final === undefined);
  });

  test('that is cancelled while its last barrier is uploaded turns nothing off', async () => {
    const { server } = await protectedMachine();
    const final = { failover: 'move', powerOff: true };
    await server.configure({ ...plain, final });
    await server.prepare(final);
    await passing(() => server.barriers.length === 2);
    await server.configure(plain);
    await clock.advance(500);
    await server.upload();
    await passing(() => server.voided.includes('FinalCancelled'));
    expect(freezer.frozen).toBe(false);
    await clock.advance(10_000);
    expect(powerOffs).toBe(0);
  });

  test('turns the machine off also when the connection broke before it could say so', async () => {
    const final = { failover: 'move', powerOff: true };
    const { replication, server } = await protectedMachine();
    await server.configure({ ...plain, final });
    await server.prepare(final);
    await passing(() => server.barriers.length === 2);
    const hold = freezer.hold.bind(freezer);
    freezer.hold = async () => {
      await server.close();
      return await hold();
    };
    await server.upload();
    await passing(() => freezer.heldMounts.length > 0);
    await server.disconnect();
    expect(powerOffs).toBe(0);
    const again = await connect(replication, { ...plain, final });
    await passing(() => powerOffs === 1);
    expect(again.final).toEqual({ failover: 'move', poweredOff: true });
  });

  test('goes on holding the machine after its agent was killed', async () => {
    const { server } = await heldMachine();
    await server.disconnect();
    const next = await successor();
    const again = await connect(next, { ...plain, final: move });
    await passing(() => again.final !== undefined);
    await again.configure(plain);
    await passing(() => freezer.heldMounts.length === 0 && again.final === undefined);
  });

  test('thaws the machine when its agent was killed while it called the watchdogs off', async () => {
    const { server } = await protectedMachine();
    await server.configure({ ...plain, final: move });
    await server.prepare(move);
    await passing(() => server.barriers.length === 2);
    let saved: MemoryDisk | undefined;
    const hold = freezer.hold.bind(freezer);
    freezer.hold = async () => {
      const held = await hold();
      saved = await copyOf(runDisk);
      return held;
    };
    await server.upload();
    await passing(() => server.final !== undefined);
    await server.disconnect();
    if (saved === undefined) throw new Error('nothing was held');
    runDisk = saved;
    const next = await successor();
    expect(freezer.heldMounts).toEqual([]);
    const again = await connect(next, { ...plain, final: move });
    await passing(() => again.statuses.length > 0);
    expect(again.final).toBeUndefined();
  });
});

describe('a resync that was interrupted', () => {
  async function interrupted() {
    const { replication, server } = await protectedMachine();
    server.answers = false;
    await server.configure({ ...plain, resyncToken: 'again' });
    await passing(() => server.asks > 0 && server.resyncs.length > 0);
    const beginLsn = server.resyncs.at(-1) ?? 0n;
    await server.disconnect();
    return { replication, beginLsn };
  }

  test('goes on where it was when the journal is inside of it', async () => {
    const { replication, beginLsn } = await interrupted();
    memory.resync = { required: true, reason: 'Manual', beginLsn };
    const again = await connect(replication, { ...plain, resyncToken: 'again' });
    await passing(() => again.asks > 0);
    expect(again.resyncs).toEqual([]);
  });

  test.each([
    ['the machine went back in time since', { required: true, reason: 'SourceReverted' } as const],
    ['the journal lost its hashes', { required: true, reason: 'VaultGap' } as const],
    ['another one was begun since', { required: true, reason: 'Manual', beginLsn: 1n } as const],
  ])('begins anew when %s: nothing that it compared counts', async (_, resync) => {
    const { replication } = await interrupted();
    memory.resync = resync;
    const again = await connect(replication, { ...plain, resyncToken: 'again' });
    await passing(() => again.asks > 0);
    expect(again.resyncs).toHaveLength(1);
  });
});

/** The next agent of the same boot; the last one does nothing more. */
async function successor(): Promise<Replication> {
  const files = await copyOf(runDisk);
  for (const dead of agents.splice(0)) {
    let over = false;
    const stopped = dead.stop().finally(() => {
      over = true;
    });
    await passing(() => over);
    await stopped;
  }
  runDisk = files;
  tracer.adopt = true;
  const next = agent();
  await next.start();
  return next;
}

async function copyOf(disk: MemoryDisk): Promise<MemoryDisk> {
  const copy = new MemoryDisk();
  for (const name of await disk.list('.')) {
    const from = await disk.open(name, 'read');
    const bytes = new Uint8Array(await from.size());
    await from.read(bytes, 0);
    const to = await copy.open(name, 'create');
    await to.write(bytes, 0);
    await from.close();
    await to.close();
  }
  return copy;
}
