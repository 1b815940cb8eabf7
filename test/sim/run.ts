/** One seed, from its scenario to its verdict. */
import { generateBoxKey } from '../../vault/keys.ts';
import { Applier } from './applier.ts';
import { Chance } from './chance.ts';
import { Convergence } from './convergence.ts';
import { Failovers } from './failovers.ts';
import { Faults } from './faults.ts';
import { Machine } from './machine.ts';
import { SimNetwork } from './network.ts';
import { Operator } from './operator.ts';
import { type Breach, Oracle } from './oracle.ts';
import { CONVERGED_WITHIN_MS, scenarioOf } from './scenario.ts';
import { Server } from './server.ts';
import { type Site, traceLogger } from './site.ts';
import { HostClock, SimTime } from './time.ts';
import { SimVault } from './vault.ts';

export interface RunResult {
  seed: number;
  events: number;
  /** How often each kind struck. */
  faults: Record<string, number>;
  breaches: Breach[];
  /** Equal for equal runs. */
  trace: string;
  /** Virtual milliseconds. */
  ms: number;
  points: number;
}

const LOOK_MS = 500;
/** What was acknowledged before everything had converged is in the vault so long after. */
const UPLOADED_WITHIN_MS = 180_000;
const FAILOVER_WITHIN_MS = 900_000;

export async function runSeed(
  seed: number,
  options: { print?: (line: string) => void } = {},
): Promise<RunResult> {
  return await new Run(seed, options).result();
}

class Run {
  readonly #seed: number;
  readonly #time = new SimTime();
  readonly #chance: Chance;
  readonly #faultCounts: Record<string, number> = {};
  readonly #oracle: Oracle;
  readonly #site: Site;
  #machines: Machine[] = [];

  constructor(seed: number, options: { print?: (line: string) => void }) {
    this.#seed = seed;
    this.#chance = new Chance(seed);
    const time = this.#time;
    const counted = (kind: string) => {
      this.#faultCounts[kind] = (this.#faultCounts[kind] ?? 0) + 1;
    };
    const { print } = options;
    if (print !== undefined)
      time.onNote = (text) => {
        if (
          /dies|breach|rot in|not done|^fault |goes on$|reset|boots|is held|is let go|turned o/.test(
            text,
          )
        )
          print(`${time.nowMs.toFixed(1)} ## ${text}`);
      };
    this.#oracle = new Oracle(time, () => this.#site.vault);
    const vault = new SimVault({
      time,
      chance: this.#chance.fork(),
      clock: new HostClock(time, 0),
      counted,
    });
    vault.watch = this.#oracle;
    this.#site = {
      time,
      chance: this.#chance,
      network: new SimNetwork({ time, chance: this.#chance.fork(), tap: this.#oracle }),
      vault,
      oracle: this.#oracle,
      logger: (name) => traceLogger(time, name, print),
      counted,
    };
  }

  async result(): Promise<RunResult> {
    const time = this.#time;
    const unhandled = (error: unknown) =>
      this.#oracle.breach('no error is lost', `unhandled rejection: ${describe(error)}`);
    process.on('unhandledRejection', unhandled);
    try {
      await this.#play();
    } catch (error) {
      this.#oracle.breach('the simulation itself', describe(error));
    } finally {
      process.off('unhandledRejection', unhandled);
      for (const machine of this.#machines) for (const disk of machine.disks) disk.end();
    }
    return {
      seed: this.#seed,
      events: time.events,
      faults: this.#faultCounts,
      breaches: this.#oracle.breaches,
      trace: time.trace,
      ms: Math.round(time.nowMs),
      points: this.#oracle.pointCount,
    };
  }

  async #play(): Promise<void> {
    const time = this.#time;
    const scenario = scenarioOf(this.#chance);
    const { latencyMs } = scenario;
    this.#site.network.latencyMs = latencyMs.network;
    this.#site.vault.latencyMs = latencyMs.vault;
    const operator = new Operator(this.#site, scenario);
    const world = this.#populate(scenario, operator);
    const { machines, servers, appliers } = world;
    const failovers = new Failovers(this.#site, operator);
    let begun = false;
    operator
      .begin({ servers, machines, applierKey: world.applierKey })
      .then(() => {
        begun = true;
      })
      .catch((error: unknown) => time.fail(error));
    await time.run({ ms: 60_000, done: () => begun });
    for (const machine of machines) machine.start();
    for (const server of servers) server.start();
    appliers[0]?.start();
    const faults = new Faults(
      this.#site,
      { machines, servers, appliers, operator, failovers },
      scenario,
    );
    for (const { atMs, kind } of scenario.faults)
      time.after(atMs, `fault ${kind}`, () => faults.strike(kind));
    this.#watch();
    const isOver = () => this.#oracle.breaches.length > 0;
    const quietAtMs = time.nowMs + scenario.quietAtMs;
    await time.run({ ms: quietAtMs, done: isOver });
    if (isOver()) return;
    faults.end();
    this.#oracle.calm();
    const convergence = new Convergence(
      { time, oracle: this.#oracle, machines: this.#machines },
      quietAtMs,
    );
    const settled = () => isOver() || (convergence.missing().length === 0 && !failovers.busy);
    const end = await time.run({ ms: quietAtMs + CONVERGED_WITHIN_MS, done: settled });
    if (end === 'late') this.#notConverged(convergence.missing(), failovers.busy);
    if (isOver()) return;
    const convergedAtMs = time.nowMs;
    const kept = () => isOver() || this.#oracle.missing(convergedAtMs).length === 0;
    await time.run({ ms: convergedAtMs + UPLOADED_WITHIN_MS, done: kept });
    for (const missing of this.#oracle.missing(convergedAtMs)) this.#oracle.breach('1', missing);
    if (isOver()) return;
    await this.#bringUp(failovers);
    if (isOver()) return;
    await this.#oracle.settle({ dataKeys: operator.dataKeys });
  }

  #populate(scenario: ReturnType<typeof scenarioOf>, operator: Operator) {
    const { vaultId, signingKey } = operator;
    const servers = Array.from({ length: scenario.servers }, (_, index) => {
      const server = new Server(this.#site, {
        name: `ps-${index}`,
        key: generateBoxKey(this.#chance),
        vaultId,
        pinnedKey: signingKey.publicKey,
        limits: scenario.limits,
        cacheBytes: scenario.cacheBytes,
      });
      server.cacheDisk.syncMs = scenario.latencyMs.sync;
      return server;
    });
    const endpoints = servers.map(({ endpoint }) => endpoint);
    const machines = scenario.machines.map(
      (machine) =>
        new Machine(this.#site, {
          ...machine,
          machineId: Buffer.from(this.#chance.bytes(16)).toString('hex'),
          endpoints,
        }),
    );
    for (const machine of machines) machine.workload.fill(scenario.fill);
    this.#machines = machines;
    const applierKey = generateBoxKey(this.#chance);
    const appliers = [1, 2].map(
      (number) => new Applier(this.#site, { name: `applier-${number}`, vaultId, key: applierKey }),
    );
    this.#oracle.begin({ machines, servers });
    return { servers, machines, appliers, applierKey };
  }

  /** What is offered in the end can be brought up. */
  async #bringUp(failovers: Failovers): Promise<void> {
    const sources = this.#machines.filter(({ machineId }) => !this.#oracle.isInAzure(machineId));
    if (sources.length === 0) return;
    const time = this.#time;
    const machine = this.#chance.pick(sources);
    let outcome: string | undefined;
    const wasDeleted = failovers.isDeleted(machine);
    failovers
      .run(machine, wasDeleted ? 'Planned' : 'Test', { undone: false })
      .then((document) => {
        outcome = document?.outcome ?? 'none';
      })
      .catch((error: unknown) => time.fail(error));
    const isOver = () => outcome !== undefined || this.#oracle.breaches.length > 0;
    await time.run({ ms: time.nowMs + FAILOVER_WITHIN_MS, done: isOver });
    // What a failover knew of its source before it was deleted may not be so any more.
    const expected = wasDeleted ? ['FailedOver', 'Failed'] : ['CleanedUp'];
    if (this.#oracle.breaches.length === 0 && !expected.includes(outcome ?? 'none'))
      this.#oracle.breach('a point can be brought up', `${machine.name}: ${outcome ?? 'not over'}`);
  }

  #watch(): void {
    this.#time.after(LOOK_MS, 'oracle', () => {
      this.#oracle.look();
      this.#watch();
    });
  }

  #notConverged(late: readonly Machine[], busy: boolean): void {
    this.#oracle.breach(
      'RPO returns',
      `no points of ${late.map(({ name }) => name).join(', ') || 'a failover'} that follow each other and are young, ${CONVERGED_WITHIN_MS / 1000} s after the faults${busy ? '; a failover is not over' : ''}`,
    );
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.stack ?? error.message}` : String(error);
}
