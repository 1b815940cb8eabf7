/** One endurance run over a site: replication begins, faults are struck, everything converges, everything is compared. */

import type { Undo } from '../../hack/demonstration/undo.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { Chance } from '../sim/chance.ts';
import { AgentLog } from './agentLog.ts';
import { Deck } from './deck.ts';
import { type Fault, KINDS } from './faults.ts';
import { type Journal, readJournal, resentUnder, rpoSamples } from './journal.ts';
import { pointAt, problemsOfPoint } from './recovered.ts';
import { type Report, rpoOf, type Struck } from './report.ts';
import type { EnduranceSite, ProtectedMachine } from './site.ts';
import { TAKEOVER_KINDS, type Takeover, type TakeoverKind, takeOver } from './takeover.ts';
import type { Patience } from './waiting.ts';
import { Watch } from './watch.ts';

const INITIAL_MS = 180_000;
const CONVERGED_WITHIN_MS = 300_000;
/** A takeover waits for steadiness, for 30 s of silence, and for agents that ask again after up to a minute. */
const TAKEOVER_SECONDS = 150;
const GAP_SECONDS = [1, 12] as const;
const MOST_AT_ONCE = 3;
/** Tracking that got lost under a fault is found out when the agent is back, at the next barrier at the latest. */
const BLIND_MS = 60_000;
/** Points beside the last one whose roots are compared, a machine. A short run has time for one. */
const OLD_POINTS = 4;
const SHORT_MINUTES = 5;

export class Run {
  readonly #site: EnduranceSite;
  readonly #patience: Patience;
  readonly #chance: Chance;
  readonly #deck: Deck;
  readonly #seed: number;
  readonly #minutes: number;
  readonly #say: (line: string) => void;
  readonly #watch: Watch;
  readonly #underWay = new Map<string, { fault: Fault; healed: Promise<void> }>();
  /** Those that the end of the run caught. */
  readonly #unhealed: Fault[] = [];
  readonly #struck: Struck[] = [];
  readonly #blind: { machine: string; fromMs: number; toMs: number }[] = [];
  readonly #takeovers: Takeover[] = [];
  readonly #troubles: string[] = [];
  /** The point of each machine that holds what it rested with. */
  readonly #last = new Map<string, bigint>();
  #longestHeldUpMs = 0;
  #begunMs = 0;

  constructor(options: {
    site: EnduranceSite;
    patience: Patience;
    seed: number;
    minutes: number;
    faults: readonly string[];
    say: (line: string) => void;
  }) {
    this.#site = options.site;
    this.#patience = options.patience;
    this.#seed = options.seed;
    this.#minutes = options.minutes;
    this.#chance = new Chance(options.seed);
    this.#deck = new Deck(options.faults, this.#chance);
    this.#say = options.say;
    this.#watch = new Watch(options.site);
  }

  /** Resolves when every machine is replicated for the first time, under load. */
  async begin(place: { logs: string; undo: Undo }): Promise<void> {
    this.#watch.begin();
    this.#say('initial replication, under load');
    for (const [index, { source }] of this.#site.machines.entries())
      source.load({ ...place, seed: this.#seed + index });
    await this.#allHaveBarriersAfter(0, INITIAL_MS);
    this.#begunMs = Date.now();
  }

  /** Strikes faults for the given time, one takeover at least, and heals them all. */
  async faults(): Promise<void> {
    const untilMs = Date.now() + this.#minutes * 60_000;
    for (;;) {
      await this.#patience.pause(this.#chance.between(...GAP_SECONDS) * 1000);
      const leftSeconds = (untilMs - Date.now()) / 1000;
      if (leftSeconds <= 0) break;
      const kind = this.#deck.next();
      if (isTakeover(kind)) {
        if (leftSeconds >= TAKEOVER_SECONDS) await this.#takeOver(kind);
      } else await this.#strike(kind, leftSeconds);
      while (this.#underWay.size >= MOST_AT_ONCE)
        await Promise.race([...this.#underWay.values()].map(({ healed }) => healed));
    }
    await this.#allHealed();
    if (this.#takeovers.length === 0) await this.#takeOver('processServerLost');
  }

  /** All have a barrier and a point of after the faults; then they rest, and the last point holds what they rested with. */
  async converge(): Promise<void> {
    const healedMs = Date.now();
    this.#say('no more faults: waiting until everything has converged');
    await this.#allHaveBarriersAfter(healedMs, CONVERGED_WITHIN_MS);
    for (const { source } of this.#site.machines) {
      if (!source.loadIsRunning) this.#troubles.push(`the load on ${source.name} ended`);
      this.#longestHeldUpMs = Math.max(this.#longestHeldUpMs, await source.rest());
    }
    const restedMs = Date.now();
    await this.#allHaveBarriersAfter(restedMs, CONVERGED_WITHIN_MS);
    for (const machine of this.#site.machines) {
      const lsn = await this.#patience.until(
        `${machine.name} has a point of after its rest`,
        CONVERGED_WITHIN_MS,
        () => this.#pointAfter(machine, restedMs),
      );
      this.#last.set(machine.name, lsn);
    }
    await this.#watch.end();
  }

  /** Compares everything, and fills the report. */
  async judge(report: Report): Promise<void> {
    this.#say('comparing disks and roots');
    const endMs = Date.now();
    const samples: number[] = [];
    for (const machine of this.#site.machines) {
      const journal = await readJournal(this.#site.stores.objects, machine);
      await this.#judgeMachine(report, { machine, journal });
      samples.push(...rpoSamples(journal.barriers, { fromMs: this.#begunMs, toMs: endMs }));
      for (const taken of this.#takeovers.filter((one) => one.machine === machine.name)) {
        const { epochAfter: writerEpoch, struckMs } = taken;
        const resent = resentUnder(journal, { writerEpoch, struckMs });
        const writtenBytes =
          resent === undefined
            ? 0
            : this.#watch.writtenBetween(machine.name, resent.fromMs, resent.toMs);
        report.takeovers.push({ ...taken, resentBytes: resent?.sentBytes ?? 0, writtenBytes });
      }
    }
    const { bytes } = report;
    bytes.received = this.#watch.receivedBytes;
    bytes.sentAgain = Math.max(0, bytes.received - bytes.inVault);
    report.rpoSeconds = rpoOf(samples);
    report.freeze = {
      longestMs: this.#watch.longestFreezeMs,
      longestWriteHeldUpMs: this.#longestHeldUpMs,
    };
    report.struck = this.#struck;
    for (const { kind } of this.#struck) report.faults[kind] = (report.faults[kind] ?? 0) + 1;
    for (const { name, ownEnds } of this.#site.parts)
      if (ownEnds.length > 0) report.ownEnds[name] = ownEnds.length;
    report.problems.push(...this.#troubles);
  }

  /** After a failure: faults that are under way are healed, so that everything can be undone. */
  async leave(): Promise<void> {
    await this.#watch.end();
    await this.#allHealed();
    for (const fault of this.#unhealed)
      await Promise.resolve()
        .then(() => fault.heal())
        .catch(() => undefined);
  }

  async #strike(kind: string, leftSeconds: number): Promise<void> {
    const made = KINDS[kind];
    if (made === undefined || made.longest > leftSeconds) return;
    const fault = made.make(this.#site, { chance: this.#chance, watch: this.#watch });
    if (this.#underWay.has(fault.part)) return;
    const fromMs = Date.now();
    const { part, seconds } = fault;
    this.#note(kind, { part, seconds, fromMs });
    // What can't be struck makes the report a bad one, and spoils nothing else of a long run.
    try {
      await fault.strike();
    } catch (error) {
      this.#troubles.push(`${kind} of ${part} could not be struck: ${error}`);
    }
    const healed = this.#healLater(fault, fromMs)
      .catch((error) => {
        this.#troubles.push(`${kind} of ${part} could not be healed: ${error}`);
        this.#unhealed.push(fault);
      })
      .finally(() => this.#underWay.delete(part));
    this.#underWay.set(part, { fault, healed });
  }

  async #healLater(fault: Fault, fromMs: number): Promise<void> {
    await this.#patience.pause(fault.seconds * 1000);
    await fault.heal();
    if (fault.blinds !== undefined)
      this.#blind.push({ machine: fault.blinds, fromMs, toMs: Date.now() + BLIND_MS });
  }

  async #allHealed(): Promise<void> {
    await Promise.all([...this.#underWay.values()].map(({ healed }) => healed));
  }

  async #takeOver(kind: TakeoverKind): Promise<void> {
    await this.#allHealed();
    const fromMs = Date.now();
    this.#say(`  ${kind}, until its machines have moved and it is back`);
    const at = { site: this.#site, watch: this.#watch, patience: this.#patience };
    const taken = await takeOver(at, { chance: this.#chance, kind });
    const seconds = (Date.now() - fromMs) / 1000;
    this.#struck.push({
      ...{ kind, part: taken[0]?.from ?? '', seconds },
      atSeconds: (fromMs - this.#begunMs) / 1000,
    });
    this.#takeovers.push(...taken);
    for (const one of taken)
      this.#say(
        `  ${one.machine} moved after ${one.movedSeconds.toFixed(1)} s, protected after ${one.protectedSeconds.toFixed(1)} s`,
      );
  }

  #note(kind: string, fault: { part: string; seconds: number; fromMs: number }): void {
    const { part, seconds, fromMs } = fault;
    this.#say(`  ${kind}: ${part}, ${seconds.toFixed(1)} s`);
    this.#struck.push({ kind, part, seconds, atSeconds: (fromMs - this.#begunMs) / 1000 });
  }

  async #allHaveBarriersAfter(afterMs: number, withinMs: number): Promise<void> {
    for (const { name, machineId } of this.#site.machines)
      await this.#patience.until(`${name} has a new barrier in the vault`, withinMs, () => {
        const status = this.#watch.machine(machineId);
        const timeMs = status?.uploadedBarrier?.timeMs ?? 0;
        if (timeMs > afterMs) return true;
        throw new Error(
          JSON.stringify(status, (_, value) => (typeof value === 'bigint' ? `${value}` : value)),
        );
      });
  }

  async #pointAfter({ machineId }: ProtectedMachine, afterMs: number): Promise<bigint | undefined> {
    const { lsns } = await listPoints(this.#site.stores.objects, machineId);
    const lsn = lsns.at(-1);
    if (lsn === undefined) return undefined;
    const point = await pointAt(this.#site.stores.objects, { machineId, lsn });
    return point !== undefined && point.timeMs > afterMs ? lsn : undefined;
  }

  async #judgeMachine(
    report: Report,
    { machine, journal }: { machine: ProtectedMachine; journal: Journal },
  ): Promise<void> {
    const { name, machineId, source } = machine;
    report.bytes.written += source.writtenBytes();
    report.bytes.inVault += journal.bytes;
    const { objects, pages } = this.#site.stores;
    const { lsns } = await listPoints(objects, machineId);
    report.points.made += lsns.length;
    const last = this.#last.get(name);
    const old = this.#some(
      lsns.filter((lsn) => lsn !== last),
      this.#minutes < SHORT_MINUTES ? 1 : OLD_POINTS,
    );
    const wrong = new Set<string>();
    for (const lsn of last === undefined ? old : [...old, last]) {
      const point = await pointAt(objects, { machineId, lsn });
      if (point === undefined) continue;
      const barrier = journal.barriers.find((one) => one.lsn === lsn);
      const isLast = lsn === last;
      const problems = await problemsOfPoint(pages, point, {
        barrier,
        ...(isLast ? { sources: source.disks } : {}),
      });
      report.points.rootsCompared += point.disks.length;
      report.problems.push(...problems.map(({ problem }) => `${name}: ${problem}`));
      if (isLast) for (const { disk } of problems) wrong.add(disk);
    }
    for (const { name: disk } of source.disks)
      report.disks.push({
        ...{ machine: name, disk },
        matches: last !== undefined && !wrong.has(disk),
      });
    this.#judgeResyncs(report, { machine, journal });
  }

  #judgeResyncs(
    report: Report,
    { machine, journal }: { machine: ProtectedMachine; journal: Journal },
  ): void {
    const { name, agent } = machine;
    const begun = new AgentLog(agent.logFile).resyncs.slice(1);
    for (const { reason, detail, atMs } of begun) {
      const blind = this.#blind.some(
        (one) => one.machine === name && one.fromMs <= atMs && atMs <= one.toMs,
      );
      const explained = reason === 'TrackingLost' && blind;
      report.resyncs.push({ machine: name, reason, detail, explained });
    }
    report.fullResyncs += begun.length;
    // Each that an agent told of may be in the journal once more for each takeover meanwhile, and none that nobody told of.
    const untold = journal.resyncs.filter(
      ({ reason }) => reason !== 'Initial' && !begun.some((one) => one.reason === reason),
    );
    for (const { reason } of untold)
      report.resyncs.push({
        ...{ machine: name, reason, explained: false },
        detail: 'in the journal, and no agent told of it',
      });
  }

  #some<T>(from: readonly T[], count: number): T[] {
    const left = [...from];
    const some: T[] = [];
    while (some.length < count && left.length > 0)
      some.push(...left.splice(this.#chance.below(left.length), 1));
    return some;
  }
}

function isTakeover(kind: string): kind is TakeoverKind {
  return TAKEOVER_KINDS.some((one) => one === kind);
}
