/**
 * Planned failovers, and what strikes while the source is frozen for its last barrier, or held behind it: moments of a few seconds, in a
 * run of one or two minutes, that chance would hardly ever hit.
 */
import type { Chance } from './chance.ts';
import { type Later, thawWhileRead } from './earlyThaw.ts';
import type { Failovers } from './failovers.ts';
import type { Machine } from './machine.ts';
import type { FaultKind } from './scenario.ts';
import type { Site } from './site.ts';

export const heldMoments = [
  'planned failover',
  'planned failover cancelled',
  'last barrier struck',
  'last barrier too late',
  'held machine struck',
  'held machine goes on unheard',
] as const;
export type HeldMoment = (typeof heldMoments)[number];

export function isHeldMoment(kind: string): kind is HeldMoment {
  return (heldMoments as readonly string[]).includes(kind);
}

/** What may strike then. */
const STRIKES = [
  'agent killed',
  'agent killed',
  'agent stopped in order',
  'agent suspended',
  'machine rebooted',
  'somebody else thaws now',
  'raw write',
  'tracing turned off',
  'resync asked for',
  'paused',
  'connections reset',
  'link silent',
  'server killed',
  'server stopped in order',
  'server suspended',
  'server power lost',
  'server volume lost',
  'server cut off from the vault',
  'machine moved',
  'machine moved there and back',
  'failover runner killed',
  'vault faulty',
  'cancelled',
] as const;

export interface HeldMomentDeps {
  site: Site;
  chance: Chance;
  failovers: Failovers;
  /** On this machine, or on the process server that has it. */
  strike: (kind: FaultKind, machine: Machine) => void;
  /** The process server that has the machine, or none at all, reaches the vault for so long. */
  cutOff: (of: Machine | 'all', ms: number) => void;
  /** No fault comes any more. */
  over: () => boolean;
}

export class HeldMoments {
  readonly #deps: HeldMomentDeps;

  constructor(deps: HeldMomentDeps) {
    this.#deps = deps;
  }

  strike(kind: HeldMoment, machine: Machine): void {
    const { chance } = this.#deps;
    const { kernel, limits } = machine;
    switch (kind) {
      case 'planned failover':
        break;
      case 'planned failover cancelled':
        this.#later(chance.between(500, 25_000), () => this.#cancel(machine));
        break;
      case 'last barrier struck':
        if (chance.chance(0.3)) thawWhileRead(machine, 'atFinalFreeze', this.#lately);
        else kernel.atFinalFreeze = () => this.#strikeSoon(machine, [20, 200, 2_000]);
        break;
      case 'last barrier too late':
        kernel.atFinalFreeze = () => {
          this.#deps.cutOff(machine, limits.finalDeadlineMs * chance.between(0.8, 1.3));
        };
        break;
      case 'held machine struck':
        kernel.atHold = () => this.#strikeSoon(machine, [3, 300, 4_000, 8_000]);
        break;
      case 'held machine goes on unheard':
        this.#goOnUnheard(machine);
        break;
    }
    this.#begin(machine);
  }

  /** Its failover waits to be run, and no process server gets through to the vault to say what its agent says. */
  #goOnUnheard(machine: Machine): void {
    const { chance, cutOff, failovers, site } = this.#deps;
    site.oracle.atFinalSync = (machineId) => {
      if (machineId !== machine.machineId) return;
      site.oracle.atFinalSync = undefined;
      const awayMs = chance.between(40_000, 70_000);
      failovers.kill({ awayMs });
      cutOff('all', awayMs + chance.between(0, 30_000));
      this.#later(chance.between(0, 3_000), () => machine.kernel.thawByOther());
    };
  }

  #begin(machine: Machine): void {
    const { chance, failovers, site } = this.#deps;
    const options = { undone: chance.chance(0.25), powerOffSource: chance.chance(0.35) };
    machine.refusesPowerOff = chance.chance(0.15);
    failovers
      .run(machine, 'Planned', options)
      .catch((error: unknown) => site.time.note(`not done: ${String(error)}`));
  }

  /** Once, sometimes twice. */
  #strikeSoon(machine: Machine, within: readonly number[]): void {
    const { chance } = this.#deps;
    const once = () =>
      this.#later(chance.between(0, chance.pick(within)), () => this.#strikeNow(machine));
    once();
    if (chance.chance(0.4)) once();
  }

  #strikeNow(machine: Machine): void {
    const { chance, site, strike } = this.#deps;
    const kind = chance.pick(STRIKES);
    site.time.note(`fault ${kind}, of a machine that is frozen`);
    switch (kind) {
      case 'cancelled':
        this.#cancel(machine);
        break;
      case 'somebody else thaws now':
        machine.kernel.thawByOther();
        break;
      case 'raw write':
        if (!machine.off) machine.workload.writeRaw();
        break;
      default:
        strike(kind, machine);
    }
  }

  /** And created again after a while, or never. */
  #cancel(machine: Machine): void {
    const { chance, failovers, site } = this.#deps;
    const cancelled = async () => {
      if (!(await failovers.cancel(machine))) return;
      site.counted('planned failover cancelled indeed');
      if (chance.chance(0.5))
        this.#later(chance.between(1_000, 30_000), () => this.#begin(machine));
    };
    cancelled().catch((error: unknown) => site.time.fail(error));
  }

  get #lately(): Later {
    return { chance: this.#deps.chance, later: (ms, act) => this.#later(ms, act) };
  }

  #later(ms: number, act: () => void): void {
    this.#deps.site.time.after(ms, 'held moment', () => {
      if (!this.#deps.over()) act();
    });
  }
}
