import type { Machine } from './machine.ts';
import type { Oracle } from './oracle.ts';
import type { SimTime } from './time.ts';

/** Of what a machine's RPO must be again: several of the simulated intervals, and a point's way to the vault and into a replica. */
const THRESHOLD_MS = 120_000;
/** One alone could be the last. */
const POINTS = 2;

/**
 * Whether all is well again after the last fault: every machine whose source is active has points of after it, one following the other,
 * and the newest is younger than the threshold.
 */
export class Convergence {
  readonly #deps: { time: SimTime; oracle: Oracle; machines: readonly Machine[] };
  readonly #seen = new Map<string, { frozenMs: number; points: number }>();
  readonly #sinceMs: number;

  constructor(
    deps: { time: SimTime; oracle: Oracle; machines: readonly Machine[] },
    sinceMs: number,
  ) {
    this.#deps = deps;
    this.#sinceMs = sinceMs;
  }

  /** Machines of which that can't be said yet. Asked often, or points are missed. */
  missing(): Machine[] {
    return this.#deps.machines.filter((machine) => !this.#isWell(machine));
  }

  #isWell({ machineId }: Machine): boolean {
    const { oracle, time } = this.#deps;
    if (oracle.isInAzure(machineId)) return true;
    const before = this.#seen.get(machineId) ?? { frozenMs: this.#sinceMs, points: 0 };
    const frozenMs = oracle.newestPointFrozenMs(machineId) ?? 0;
    const seen = frozenMs > before.frozenMs ? { frozenMs, points: before.points + 1 } : before;
    this.#seen.set(machineId, seen);
    return seen.points >= POINTS && time.nowMs - seen.frozenMs <= THRESHOLD_MS;
  }
}
