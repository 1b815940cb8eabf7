/**
 * Reads a machine's replica again, a sampled share a day, and compares it with its leaf hashes (docs/design/0010).
 *
 * What is read is the newest point's snapshot: it stands still, and is what would be recovered. One MiB a step, spread over the day; a
 * step that was not due in time is left out rather than made up for. What does not fit is noted in the replica's state, which has it
 * sent again, and points that share it are marked.
 */
import { errorCode } from '../../platform/errors.ts';
import type { Clock, Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { damagedLeavesOf, markDamagedPoints } from '../journal/pointDamage.ts';
import type { Replica } from '../journal/replica.ts';
import {
  type Sample,
  STEP_LEAVES,
  sampleAt,
  sampleOf,
  stepIntervalMs,
} from '../journal/sampling.ts';
import type { Gate } from './gate.ts';
import type { ApplierMetrics } from './metrics.ts';

/** Before others get a turn; with a turn every two seconds 8 MiB a second at most. */
const STEPS_AT_ONCE = 16;
/** Steps that were missed longer ago than this are left out. */
const CATCH_UP_MS = 600_000;
/** A restart forgets no more than this of the way. */
const SAVE_EVERY_MS = 600_000;
const POINTS_AT_ONCE = 32;

export interface SampledVerificationDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  clock: Clock;
  logger: Logger;
  metrics: ApplierMetrics;
  /** One step at a time for all machines, in turn: a MiB of memory, whatever their number. */
  verifyGate: Gate;
}

export interface VerifiedMachine {
  machineId: string;
  replica: Replica;
  newestPoint: PointDocument;
  /** Percent a day; 0: none. */
  sharePerDay: number;
}

export class SampledVerification {
  readonly #deps: SampledVerificationDeps;
  /** Of these, older points may still have to be marked. */
  readonly #toMark = new Map<string, Sample>();
  #savedAt: number;
  /** Whose `damaged` was looked at. */
  #opened: Replica | undefined;

  constructor(deps: SampledVerificationDeps) {
    this.#deps = deps;
    this.#savedAt = deps.clock.monotonic();
  }

  /**
   * Takes the steps that are due, a few at most. Not while the replica is applied. What can't be read now is left for later; throws
   * what writing the replica's state throws (ReplicaFenced, StoreError).
   */
  async run(machine: VerifiedMachine, signal: AbortSignal): Promise<void> {
    this.#goOnMarking(machine.replica);
    for (let step = 0; step < STEPS_AT_ONCE && this.#isDue(machine) && !signal.aborted; step += 1)
      await this.#deps.verifyGate.run(() => this.#step(machine));
    if (this.#toMark.size > 0) await this.#deps.verifyGate.run(() => this.#mark(machine));
  }

  #isDue(machine: VerifiedMachine): boolean {
    const nowMs = this.#deps.clock.now();
    const dueMs = this.#lastMs(machine.replica) + intervalOf(machine);
    if (dueMs !== Number.POSITIVE_INFINITY) return nowMs >= dueMs;
    // Whoever turns it on begins then.
    const { next = 0 } = machine.replica.state.sampling ?? {};
    machine.replica.noteSampled({ next, lastMs: nowMs });
    return false;
  }

  /** When the last step was taken; now for the first time, so that a day's share is a day's. */
  #lastMs(replica: Replica): number {
    const nowMs = this.#deps.clock.now();
    const { sampling } = replica.state;
    // A clock that was put back must not stop everything until it is there again.
    if (sampling === undefined || sampling.lastMs > nowMs) {
      replica.noteSampled({ next: sampling?.next ?? 0, lastMs: nowMs });
      return nowMs;
    }
    return sampling.lastMs;
  }

  async #step(machine: VerifiedMachine): Promise<void> {
    const { clock, metrics } = this.#deps;
    const { replica, newestPoint } = machine;
    const { next = 0, lastMs = 0 } = replica.state.sampling ?? {};
    const sample = sampleAt(newestPoint.disks, next);
    const found = sample && (await this.#read(machine, sample));
    const nowMs = clock.now();
    const dueMs = Math.max(lastMs + intervalOf(machine), nowMs - CATCH_UP_MS);
    replica.noteSampled({ next: next + 1, lastMs: Math.floor(dueMs) });
    if (clock.monotonic() - this.#savedAt >= SAVE_EVERY_MS) {
      this.#savedAt = clock.monotonic();
      await replica.save();
    }
    if (sample === undefined || found === undefined) return;
    metrics.verified.inc(STEP_LEAVES);
    const news = found.filter((leaf) => !isKnown(replica, leaf));
    if (news.length === 0) return;
    await this.#report(machine, { sample, news });
  }

  /** undefined: it could not be read now, or the point was retired meanwhile. */
  async #read(machine: VerifiedMachine, sample: Sample): Promise<DamagedLeaf[] | undefined> {
    try {
      return await damagedLeavesOf(this.#deps.pages, machine.newestPoint, sample);
    } catch (error) {
      if (!isStoreError(error)) throw error;
      this.#deps.logger.debug({ code: errorCode(error), ...sample }, 'a sample could not be read');
      return undefined;
    }
  }

  async #report(
    machine: VerifiedMachine,
    { sample, news }: { sample: Sample; news: DamagedLeaf[] },
  ): Promise<void> {
    const { logger, metrics } = this.#deps;
    metrics.damaged.inc(news.length);
    logger.error(
      { code: 'ChecksumMismatch', leaves: news },
      'the replica is not what its leaf hashes say; the source must send these leaves again',
    );
    // First what says so to everybody: points that are made from here on are marked by it.
    await machine.replica.noteDamaged(news);
    this.#toMark.set(nameOf(sample), sample);
  }

  /** A successor goes on where somebody died between noting and marking; what is marked already costs nothing. */
  #goOnMarking(replica: Replica): void {
    if (this.#opened === replica) return;
    this.#opened = replica;
    for (const leaf of replica.state.damaged ?? []) {
      const sample = sampleOf(leaf);
      this.#toMark.set(nameOf(sample), sample);
    }
  }

  async #mark({ machineId }: VerifiedMachine): Promise<void> {
    const [name, sample] = [...this.#toMark][0] ?? [];
    if (name === undefined || sample === undefined) return;
    try {
      const { more } = await markDamagedPoints(this.#deps, {
        machineId,
        sample,
        limit: POINTS_AT_ONCE,
      });
      if (!more) this.#toMark.delete(name);
    } catch (error) {
      if (!isStoreError(error)) throw error;
      this.#deps.logger.debug({ code: errorCode(error), ...sample }, 'points could not be marked');
    }
  }
}

function intervalOf({ newestPoint, sharePerDay }: VerifiedMachine): number {
  return stepIntervalMs(newestPoint.disks, sharePerDay);
}

function isKnown({ state }: Replica, { disk, leaf }: DamagedLeaf): boolean {
  return (state.damaged ?? []).some((one) => one.disk === disk && one.leaf === leaf);
}

function nameOf({ disk, firstLeaf }: Sample): string {
  return `${disk} ${firstLeaf}`;
}
