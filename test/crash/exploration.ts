/**
 * All workloads of a few operations on a process server's journal, each with a death at every call that changes something, and of each
 * death every outcome: the process alone dies, or the power fails and of what was not synced any part is there (test/fakes/inode.ts).
 * Coming back, it may die again at every call, with every outcome.
 *
 * Moments that can't be told apart are looked at once. Of a workload only deaths during its last operation are tried, for its beginning is
 * a workload too.
 */
import { MemoryDisk } from '../fakes/memoryDisk.ts';
import { SourceAgent } from '../fakes/sourceAgent.ts';
import { disk, Life, OPERATIONS, type Operation } from './life.ts';
import { essenceOf, type Moment } from './moment.ts';
import { Outcomes } from './outcomes.ts';
import { judge } from './verdict.ts';

export interface CrashBreach {
  /** The workload, where it died, what the crash left; and again, when it died while it came back. */
  at: string;
  problem: string;
}

export interface Exploration {
  workloads: number;
  /** Distinct moments at which a process died. */
  deaths: number;
  /** Recoveries judged: distinct outcomes of deaths, of first and of second ones. */
  recoveries: number;
  secondDeaths: number;
  breaches: CrashBreach[];
}

export class Explorer {
  readonly #limits: { operations: number; secondDeathsUpTo: number; breaches: number };
  readonly #slice: { index: number; of: number };
  readonly #seen = new Set<string>();
  /** What a death left → which outcomes of which moment it was. */
  readonly #recovered = new Map<string, string>();
  #moments = 0;
  readonly result: Exploration = {
    workloads: 0,
    deaths: 0,
    recoveries: 0,
    secondDeaths: 0,
    breaches: [],
  };

  /**
   * Workloads of up to `operations`; those of up to `secondDeathsUpTo` also die while they come back. Ends after so many breaches. Of
   * several slices each takes other first operations.
   */
  constructor(
    limits: { operations: number; secondDeathsUpTo: number; breaches?: number },
    slice = { index: 0, of: 1 },
  ) {
    this.#limits = { breaches: 1, ...limits };
    this.#slice = slice;
  }

  async explore(workload: readonly Operation[] = []): Promise<Exploration> {
    const { index, of } = this.#slice;
    if (workload.length > 0 || index === 0) await this.#dieDuring(workload);
    if (workload.length < this.#limits.operations)
      for (const [i, operation] of OPERATIONS.entries()) {
        if (this.#isOver) break;
        if (workload.length > 0 || i % of === index) await this.explore([...workload, operation]);
      }
    return this.result;
  }

  get #isOver(): boolean {
    return this.result.breaches.length >= this.#limits.breaches;
  }

  async #dieDuring(workload: readonly Operation[]): Promise<void> {
    this.result.workloads += 1;
    const twice = workload.length <= this.#limits.secondDeathsUpTo;
    for (const moment of await momentsOf(workload)) {
      if (this.#isOver) return;
      const at = `${workload.join(' ') || 'open'}, before ${moment.before}`;
      if (!this.#isNew(moment, twice ? 'first' : 'only')) continue;
      this.result.deaths += 1;
      await this.#everyOutcome(moment, at, { seed: 2, twice });
    }
  }

  async #everyOutcome(
    moment: Moment,
    at: string,
    options: { seed: number; twice: boolean },
  ): Promise<void> {
    this.#moments += 1;
    const { twice } = options;
    const killed = { ...moment, disk: moment.disk.copy() };
    if (this.#isFirst(killed, { twice, outcome: 'killed' }))
      await this.#comeBack(killed, () => `${at}: killed`, options);
    const outcomes = new Outcomes();
    do {
      if (this.#isOver) return;
      const failed = { ...moment, disk: moment.disk.copy() };
      failed.disk.crash({ choices: outcomes });
      // Names are decided now, bytes when they are looked at: of the same names and open questions every answer was tried already.
      if (this.#isFirst(failed, { twice, outcome: `${outcomes}` }))
        await this.#comeBack(failed, () => `${at}: power lost [${outcomes}]`, options);
    } while (outcomes.next());
  }

  async #comeBack(
    moment: Moment,
    at: () => string,
    options: { seed: number; twice: boolean },
  ): Promise<void> {
    const { seed, twice } = options;
    const again: Moment[] = [];
    this.result.recoveries += 1;
    try {
      const onMoment = (one: Moment) => {
        if (this.#isNew(one, 'second')) again.push(one);
      };
      await judge(moment, { seed, ...(twice ? { onMoment } : {}) });
    } catch (error) {
      this.result.breaches.push({ at: at(), problem: (error as Error).message });
      return;
    }
    for (const second of again) {
      if (this.#isOver) return;
      this.result.secondDeaths += 1;
      const where = `${at()}; again before ${second.before}`;
      await this.#everyOutcome(second, where, { seed: seed + 1, twice: false });
    }
  }

  #isFirst(left: Moment, of: { twice: boolean; outcome: string }): boolean {
    const key = `${of.twice} ${essenceOf(left)}`;
    const which = `${this.#moments} ${of.outcome}`;
    const first = this.#recovered.get(key) ?? which;
    this.#recovered.set(key, first);
    return first === which;
  }

  #isNew(moment: Moment, kind: string): boolean {
    const key = `${kind} ${essenceOf(moment)}`;
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    return true;
  }
}

/** The moments of a workload's last operation, and of what goes on by itself behind it. */
async function momentsOf(workload: readonly Operation[]): Promise<Moment[]> {
  const moments: Moment[] = [];
  let last = false;
  const agent = new SourceAgent(1, disk.sizeBytes, { writes: 0 });
  agent.write(0, 100);
  agent.write(16, 101);
  const life = new Life({
    ...{ disk: new MemoryDisk(), objects: undefined, agent, writerEpoch: 1, seed: 1 },
    onMoment: (moment) => {
      if (last) moments.push(moment);
    },
  });
  for (const operation of [undefined, ...workload].entries()) {
    last = operation[0] === workload.length;
    if (operation[1] === undefined) await life.open();
    else await life.run(operation[1]);
  }
  await life.rest();
  moments.push(life.now());
  await life.close();
  return moments;
}
