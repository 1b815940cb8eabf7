/** A machine with one disk in memory, the agents that follow one another on it, and the process server that they talk to. */
import { IdentityStore } from '../../dataplane/agent/identity.ts';
import { QuietLog } from '../../dataplane/agent/quietLog.ts';
import { Replication, type ReplicationDeps } from '../../dataplane/agent/replication.ts';
import { Session } from '../../dataplane/agent/session.ts';
import { AgentStateStore } from '../../dataplane/agent/state.ts';
import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { Connection, framesFrom } from '../../dataplane/wire/connection.ts';
import type { Configuration } from '../../dataplane/wire/messages.ts';
import { channelPair, verified } from './channel.ts';
import { ManualClock } from './manualClock.ts';
import { MemoryDisk } from './memoryDisk.ts';
import { ScriptedProcessServer, type ServerMemory } from './scriptedProcessServer.ts';
import { recordingLogger } from './silentLogger.ts';
import { FakeDisk, FakeFreezer, FakeTracer, fakeBlockDevices } from './sourceMachine.ts';

export const machineId = '0123456789abcdef0123456789abcdef';
/** What a process server wants of it: its disk, and nothing special. */
export const plain: Configuration = {
  disks: [{ index: 0, name: 'sda', device: '/dev/fake' }],
  paused: false,
};

export interface Connected extends ScriptedProcessServer {
  disconnect(): Promise<void>;
}

export class AgentWorld {
  readonly clock = new ManualClock();
  readonly device: FakeDisk;
  readonly tracer: FakeTracer;
  readonly freezer = new FakeFreezer(this.clock);
  readonly log = recordingLogger();
  readonly stateDisk = new MemoryDisk();
  readonly memory: ServerMemory = {
    journaledLsn: 0n,
    uploadedBarrierLsn: 0n,
    resyncRequired: true,
  };
  runDisk = new MemoryDisk();
  powerOffs = 0;
  readonly givingWay: { on: boolean; resyncing: boolean }[] = [];
  agents: Replication[] = [];
  readonly #changes: Partial<ReplicationDeps>;

  /** `changes`: to what every agent here is made of. */
  constructor(changes: Partial<ReplicationDeps> = {}, leaves = 16) {
    this.#changes = changes;
    this.device = new FakeDisk({ sizeBytes: leaves * LEAF_SIZE });
    this.device.bytes.fill(3);
    this.tracer = new FakeTracer([this.device]);
  }

  agent(): Replication {
    const { clock, device, tracer, freezer, stateDisk } = this;
    const replication = new Replication({
      machineId,
      devices: fakeBlockDevices([device]),
      tracer,
      freezer,
      hooks: { run: async () => ({ failures: [] }) },
      machine: {
        facts: async () => ({ hostname: 'db1', kernel: 'test', bootId: 'boot' }),
        disks: async () => [],
        powerOff: async () => {
          this.powerOffs += 1;
        },
        giveWay: (on) => {
          this.givingWay.push({ on, resyncing: this.memory.resyncRequired });
        },
      },
      clock,
      store: new AgentStateStore(this.runDisk),
      identities: new IdentityStore(stateDisk),
      quietLog: new QuietLog(this.log),
      limits: { deadlineMs: 2_000, finalDeadlineMs: 20_000 },
      ...this.#changes,
    });
    this.agents.push(replication);
    return replication;
  }

  async passing(condition: () => boolean, seconds = 120): Promise<void> {
    for (let round = 0; round < seconds * 20; round += 1) {
      if (condition()) return;
      await this.clock.advance(50);
    }
    throw new Error('the condition never came true');
  }

  async connect(replication: Replication, configuration: Configuration): Promise<Connected> {
    const { clock, memory } = this;
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
        await this.passing(() => over);
        await served;
        await listening;
      },
    });
  }

  /** Resynced, with one ordinary barrier in the vault. */
  async protectedMachine(): Promise<{ replication: Replication; server: Connected }> {
    const replication = this.agent();
    await replication.start();
    const server = await this.connect(replication, plain);
    await this.passing(
      () => !this.memory.resyncRequired && replication.status().lastResync !== undefined,
    );
    await server.prepare();
    await this.passing(() => server.barriers.length === 1);
    await server.upload();
    return { replication, server };
  }

  /** The next agent of the same boot; the last one does nothing more. */
  async successor(): Promise<Replication> {
    const files = await copyOf(this.runDisk);
    await this.end();
    this.runDisk = files;
    const next = this.agent();
    await next.start();
    return next;
  }

  async end(): Promise<void> {
    let over = false;
    const stopped = Promise.all(this.agents.splice(0).map((one) => one.stop())).finally(() => {
      over = true;
    });
    await this.passing(() => over);
    await stopped;
  }
}

export async function copyOf(disk: MemoryDisk): Promise<MemoryDisk> {
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
