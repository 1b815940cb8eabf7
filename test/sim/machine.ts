/** A source machine: its disks and kernel, the programs that write to them, and the agent, which its service manager restarts. */
import { type AgentDeps, keepSession } from '../../dataplane/agent/agent.ts';
import { Endpoints } from '../../dataplane/agent/endpoints.ts';
import { type AgentIdentity, IdentityStore } from '../../dataplane/agent/identity.ts';
import { QuietLog } from '../../dataplane/agent/quietLog.ts';
import { Replication } from '../../dataplane/agent/replication.ts';
import { AgentStateStore } from '../../dataplane/agent/state.ts';
import type { BarrierLimits } from '../../dataplane/capture/barrier.ts';
import { WrittenUnseenError } from '../../dataplane/capture/scrub.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { HookRunner, Logger, SourceMachine } from '../../platform/ports.ts';
import { machineIdentity } from '../../vault/identity.ts';
import type { Chance } from './chance.ts';
import { SimDisk } from './disk.ts';
import { Kernel } from './kernel.ts';
import { Life } from './life.ts';
import type { Site } from './site.ts';
import { blockDevicesFor, SourceDisk } from './sourceDisk.ts';
import { HostClock } from './time.ts';
import { Workload } from './workload.ts';

const RESTART_MS = 3_000;
/** All day long, for these days are short. */
const SCRUB_PASS_MS = 3_000;
/** Of every barrier but the last one of a planned failover. */
export const DEADLINE_MS = 2_000;

export class Machine {
  readonly machineId: string;
  readonly name: string;
  readonly disks: SourceDisk[];
  readonly kernel: Kernel;
  readonly workload: Workload;
  readonly stateDisk: SimDisk;
  readonly clock: HostClock;
  readonly limits: BarrierLimits;
  /** Its service manager refuses. */
  refusesPowerOff = false;
  readonly #site: Site;
  readonly #chance: Chance;
  readonly #endpoints: readonly string[];
  #runDisk: SimDisk;
  #life: Life;
  #stopping = new AbortController();
  #boots = 0;
  #off = false;

  constructor(
    site: Site,
    options: {
      machineId: string;
      name: string;
      diskSizes: readonly number[];
      endpoints: readonly string[];
      bufferEvents: number;
      writeEveryMs: number;
      finalDeadlineMs: number;
    },
  ) {
    this.#site = site;
    this.#chance = site.chance.fork();
    this.machineId = options.machineId;
    this.name = options.name;
    this.#endpoints = options.endpoints;
    const { finalDeadlineMs } = options;
    this.limits = { deadlineMs: DEADLINE_MS, finalDeadlineMs };
    this.clock = new HostClock(site.time, this.#chance.between(-2_000, 2_000));
    this.disks = options.diskSizes.map(
      (sizeBytes, index) =>
        new SourceDisk({
          path: `/dev/sd${'abc'[index]}`,
          index,
          name: index === 0 ? 'system' : `data${index}`,
          sizeBytes,
          devT: (8 << 20) | (index * 16),
          chance: this.#chance.fork(),
        }),
    );
    const { time } = site;
    this.kernel = new Kernel({
      time,
      chance: this.#chance.fork(),
      disks: this.disks,
      bootId: this.#bootId(),
      bufferEvents: options.bufferEvents,
    });
    const parts = { time, name: `${this.name} state` };
    this.stateDisk = new SimDisk({ ...parts, chance: this.#chance.fork() });
    this.#runDisk = this.#freshRunDisk();
    this.workload = new Workload({
      time,
      chance: this.#chance.fork(),
      kernel: this.kernel,
      everyMs: options.writeEveryMs,
    });
    this.#life = new Life(time, this.name);
    this.#life.kill();
  }

  get host(): string {
    return this.name;
  }

  get life(): Life {
    return this.#life;
  }

  get off(): boolean {
    return this.#off;
  }

  get runDisk(): SimDisk {
    return this.#runDisk;
  }

  start(): void {
    this.workload.start();
    this.#startAgent();
  }

  /** SIGKILL of the agent; its service manager starts another. */
  killAgent(): void {
    this.#life.kill();
    this.#restartAgent();
  }

  /** SIGTERM. */
  stopAgent(): void {
    const stopping = this.#stopping;
    this.#life.deliver(() => stopping.abort(new Error('stopped')));
  }

  /** Power goes, and comes back. */
  reboot(downMs: number): void {
    if (this.#off) return;
    this.#turnOff();
    this.#site.time.after(downMs, `${this.name} boots`, () => this.#turnOn());
  }

  #turnOff(): void {
    this.#off = true;
    this.#site.network.powerLost(this.host);
    this.#life.kill();
    this.workload.stop();
    this.stateDisk.crash();
    this.#runDisk = this.#freshRunDisk();
    this.kernel.reboot(this.#bootId());
  }

  #turnOn(): void {
    if (!this.#off) return;
    this.#off = false;
    this.workload.start();
    this.#startAgent();
  }

  /** People who need it turn it on again, unless it runs in Azure by then. */
  #beMissed(): void {
    const afterMs = this.#chance.between(20_000, 180_000);
    this.#site.time.after(afterMs, `${this.name} is missed`, () => {
      if (!this.#off) return;
      if (this.#site.oracle.isInAzure(this.machineId)) this.#beMissed();
      else this.#turnOn();
    });
  }

  #freshRunDisk(): SimDisk {
    const { time } = this.#site;
    return new SimDisk({ time, chance: this.#chance.fork(), name: `${this.name} run` });
  }

  #bootId(): string {
    this.#boots += 1;
    return `${this.name}-boot-${this.#boots}`;
  }

  #restartAgent(): void {
    this.#site.time.after(
      RESTART_MS * this.#chance.between(0.3, 1.5),
      `${this.name} restart`,
      () => {
        if (this.#life.dead && !this.#off) this.#startAgent();
      },
    );
  }

  #startAgent(): void {
    const { time } = this.#site;
    const life = new Life(time, this.name);
    this.#life = life;
    const stopping = new AbortController();
    this.#stopping = stopping;
    this.#runAgent(life, stopping.signal).then(
      () => life.kill(),
      (error: unknown) => {
        time.note(`${this.name} agent ends ${errorCode(error)} ${errorMessage(error)}`);
        life.kill();
      },
    );
    life.onDeath(() => this.#restartAgent());
  }

  async #runAgent(life: Life, signal: AbortSignal): Promise<void> {
    const clock = this.clock.for(life);
    const log = this.#watched(this.#site.logger(this.name));
    const quietLog = new QuietLog(log);
    const identities = new IdentityStore(this.stateDisk.for(life));
    const random = this.#chance.fork();
    const machine = this.#sourceMachine(life);
    const replication = new Replication({
      machineId: this.machineId,
      devices: blockDevicesFor(this.disks, life),
      tracer: this.kernel.trace.tracerFor(life),
      freezer: this.kernel.freezerFor(life),
      hooks: this.#hooks(life),
      machine,
      clock,
      store: new AgentStateStore(this.#runDisk.for(life)),
      identities,
      quietLog,
      limits: this.limits,
      scrubPassMs: SCRUB_PASS_MS,
    });
    const deps: AgentDeps = {
      connect: (endpoint) =>
        this.#site.network.connect({
          endpoint,
          host: this.host,
          life,
          identities: [machineIdentity(this.machineId)],
        }),
      identities,
      machine,
      clock,
      random,
      log,
    };
    try {
      await replication.start();
      const endpoints = await Endpoints.open(
        { disk: this.stateDisk.for(life), clock, log },
        { configured: this.#endpoints, held: () => quietLog.isQuiet },
      );
      await keepSession(deps, { identity: this.#identity(), endpoints, replication, signal });
    } finally {
      await replication.stop();
    }
  }

  /** What the scrub calls lost, the kernel hid, or a process server's table rotted; or it is a false alarm. */
  #watched(log: Logger): Logger {
    return {
      ...log,
      error: (fields, message) => {
        const { error } = fields as { error?: unknown };
        const { oracle } = this.#site;
        const isExplained = this.kernel.trace.hidWrites || oracle.hasRotted;
        if (error instanceof WrittenUnseenError && !isExplained)
          oracle.breach('6', `${this.name} was told a lie: ${error.message}`);
        log.error(fields, message);
      },
    };
  }

  #identity(): AgentIdentity {
    const { name, machineId } = this;
    return { name, machineId, privateKeyPem: '', certificatePem: '', caCertificatePem: '' };
  }

  #sourceMachine(life: Life): SourceMachine {
    return {
      facts: async () => ({ hostname: this.name, kernel: 'sim', bootId: this.kernel.bootId }),
      disks: async () => [],
      powerOff: async () => {
        await life.sleep(this.#chance.about(300));
        if (this.refusesPowerOff) throw new Error('the service manager refuses');
        this.#site.time.note(`${this.name} is turned off by its agent`);
        this.#turnOff();
        this.#beMissed();
      },
      giveWay: () => undefined,
    };
  }

  #hooks(life: Life): HookRunner {
    return {
      run: async ({ phase }) => {
        await life.sleep(this.#chance.about(30));
        const fails = phase === 'pre' && this.#chance.chance(0.2);
        return { failures: fails ? [{ hook: '10-db', reason: 'exit code 1' }] : [] };
      },
    };
  }
}
