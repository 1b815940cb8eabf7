/**
 * A barrier: all disks of the machine as they are at one moment, byte for byte, or nothing.
 *
 *   shrink    passes until little is dirty (shrinking.ts)
 *   rest      swap and filesystems are looked up; pre-hooks; sync; watchdogs
 *   ready     the process server says when, which is the barrier's time
 *   frozen    freeze · every account must balance · read what is dirty into memory · every account must balance again, and nothing but
 *             discards and a RAID's own records may have happened since (those are read again) · tracing and disks unchanged
 *   thaw      every thaw must be ours (a last barrier, sent before it, asks whether all is frozen still)
 *   send      hash and send what was read, then the barrier
 *
 * Whatever goes wrong voids the barrier and leaves dirty what it had taken. A final barrier thaws only when it failed.
 */

import { errorMessage } from '../../platform/errors.ts';
import type {
  Clock,
  FilesystemFreezer,
  FreezePlan,
  HookRunner,
  Logger,
  SourceMachine,
} from '../../platform/ports.ts';
import { TrackingLostError } from './accounting.ts';
import { type BarrierVoidCode, BarrierVoidError } from './barrierErrors.ts';
import { FrozenRead } from './frozenRead.ts';
import type { ReadRate } from './readRate.ts';
import { Shrinking } from './shrinking.ts';
import type { RecordSink } from './sink.ts';
import { isHarmless, type Round, type Tracking } from './tracking.ts';

const SYNCS_MAX = 4;
const SWAP_HEADER = 4096;
const ROUND_PAUSE_MS = 3;
/** Of the deadline, what all reading and proving may take; the rest is for the thaw. */
const FROZEN_SHARE = 0.75;
/** The passes before a freeze leave the processors to the machine's programs for a quarter of the time between barriers. */
const GIVE_WAY_MIN_MS = 4_000;
const GIVE_WAY_MAX_MS = 30_000;
/** Rounds in a row that must prove every account. */
const PROOFS = 2;

export interface BarrierRequest {
  consistency: 'Crash' | 'App';
  hooks?: { directory: string; timeoutSeconds: number };
  /** Stay frozen once it is uploaded. */
  final: boolean;
  /** Since the barrier before; absent for the first. */
  sinceLastMs?: number;
}

export interface BarrierLimits {
  /** After so long everything is thawed, whatever we are doing. */
  deadlineMs: number;
  /** The same for a final barrier, which stays frozen until it is uploaded. */
  finalDeadlineMs: number;
  /** Set aside for what is read while frozen, at most; more gives the barrier up. Default 256 MiB. */
  frozenBytesMax?: number;
}

export const barrierLimits: BarrierLimits = { deadlineMs: 2_000, finalDeadlineMs: 300_000 };

export interface BarrierDeps {
  tracking: Tracking;
  sink: RecordSink;
  clock: Clock;
  freezer: FilesystemFreezer;
  hooks: HookRunner;
  machine: Pick<SourceMachine, 'giveWay'>;
  readRate: ReadRate;
  limits: BarrierLimits;
  log: Logger;
  /** Tells the process server that we could freeze now, and waits until it says so. */
  ready: () => Promise<void>;
  /** Gives the barrier its LSN and sends it, after all its data. */
  deliver: (barrier: { freezeMs: number }) => Promise<bigint>;
  /** Resolves once the barrier is durable in the vault. Rejects when the session ends. */
  uploaded: (lsn: bigint) => Promise<void>;
  /** A final barrier is uploaded, and the watchdogs of these are about to be called off. Rejects when they must be thawed instead. */
  aboutToHold?: (mountPoints: string[]) => Promise<void>;
  /** Between the two calls nothing may be written to any disk, by logging either. */
  frozen: (frozen: boolean) => void;
}

/** Rejects with BarrierVoidError; with TrackingLostError when tracking is void; with the sink's error when the session ended. */
export async function runBarrier(
  request: BarrierRequest,
  deps: BarrierDeps,
): Promise<{ lsn: bigint; freezeMs: number }> {
  return await new BarrierRun(request, deps).run();
}

class BarrierRun {
  readonly #request: BarrierRequest;
  readonly #deps: BarrierDeps;
  #frozenAt = 0;

  constructor(request: BarrierRequest, deps: BarrierDeps) {
    this.#request = request;
    this.#deps = deps;
  }

  async run(): Promise<{ lsn: bigint; freezeMs: number }> {
    const { tracking, freezer } = this.#deps;
    let plan = await this.#plan();
    const { memoryBytes } = await new Shrinking(this.#deps).run(plan, this.#giveWayMs);
    const memory = new FrozenRead(tracking.disks, { bytes: memoryBytes });
    let freezeMs: number;
    try {
      await this.#restApplications();
      await this.#syncUntilLittle(plan);
      // Passes may have taken long: what was mounted or swapped off since is not what it was.
      plan = await this.#plan();
      await freezer.prepare(plan);
      await this.#deps.ready();
      freezeMs = await this.#freezeAndRead(plan, memory);
    } catch (error) {
      memory.giveBack();
      await freezer.thaw(plan);
      throw this.#explain(error);
    } finally {
      await this.#letApplicationsGoOn();
    }
    if (this.#request.final) return await this.#finish(plan, memory);
    await memory.send(this.#deps.sink);
    return { lsn: await this.#deps.deliver({ freezeMs }), freezeMs };
  }

  /** Longer, and the point that waits would get older than that is worth. Who leaves the machine does not wait for its programs. */
  get #giveWayMs(): number {
    const { final, sinceLastMs = 0 } = this.#request;
    if (final) return 0;
    return Math.min(GIVE_WAY_MAX_MS, Math.max(GIVE_WAY_MIN_MS, sinceLastMs / 4));
  }

  async #plan(): Promise<FreezePlan> {
    const { tracking, freezer } = this.#deps;
    const plan = await freezer.plan(tracking.disks.map((disk) => disk.device.path));
    for (const disk of tracking.disks) {
      const isHere = ({ devicePath }: { devicePath: string }) => devicePath === disk.device.path;
      disk.setRaidRecords((plan.raidRecords ?? []).filter(isHere));
      disk.setZeroed(
        plan.swap
          .filter(isHere)
          .map(({ offset, length, header }) =>
            header
              ? { offset: offset + SWAP_HEADER, length: length - SWAP_HEADER }
              : { offset, length },
          ),
      );
    }
    return plan;
  }

  async #restApplications(): Promise<void> {
    const { consistency, hooks } = this.#request;
    if (consistency !== 'App') return;
    if (hooks === undefined)
      throw voided(
        'HookFailed',
        'The policy asks for application-consistent points but names no directory of hooks: set hooks, or turn appConsistentInterval off.',
      );
    const { failures } = await this.#deps.hooks.run({
      directory: hooks.directory,
      phase: 'pre',
      timeoutMs: hooks.timeoutSeconds * 1000,
    });
    const [failure] = failures;
    if (failure === undefined) return;
    throw voided(
      'HookFailed',
      `The pre-hook ${failure.hook} failed: ${failure.reason}. There is no application-consistent point this time; crash-consistent ones go on. Run the hook by hand to see why.`,
    );
  }

  async #letApplicationsGoOn(): Promise<void> {
    const { consistency, hooks } = this.#request;
    if (consistency !== 'App' || hooks === undefined) return;
    const { failures } = await this.#deps.hooks.run({
      directory: hooks.directory,
      phase: 'post',
      timeoutMs: hooks.timeoutSeconds * 1000,
    });
    for (const failure of failures)
      this.#deps.log.error(failure, 'A post-hook failed; its application may still be at rest');
  }

  /** A freeze first writes back what is dirty in the page cache, with everybody waiting. So there must be little of it. */
  async #syncUntilLittle(plan: FreezePlan): Promise<void> {
    const { clock, freezer, limits } = this.#deps;
    let took = 0;
    for (let sync = 0; sync < SYNCS_MAX; sync += 1) {
      const started = clock.monotonic();
      await freezer.sync(plan);
      took = clock.monotonic() - started;
      if (took <= limits.deadlineMs / 4) return;
    }
    throw voided(
      'TooMuchToSync',
      `Writing back the page cache took ${Math.round(took)} ms, ${SYNCS_MAX} times in a row; a freeze would stall writers for that long. The barrier is tried again later.`,
    );
  }

  async #freezeAndRead(plan: FreezePlan, memory: FrozenRead): Promise<number> {
    const { clock, freezer, tracking, limits } = this.#deps;
    const deadlineMs = this.#request.final ? limits.finalDeadlineMs : limits.deadlineMs;
    this.#deps.frozen(true);
    try {
      this.#frozenAt = clock.monotonic();
      await freezer.freeze(plan, { deadlineMs });
      await this.#readAtRest(memory);
      await tracking.verify();
      // An ordinary barrier's thaw will tell. This one is sent before there is any.
      if (this.#request.final) await this.#mustBeFrozen(plan);
    } catch (error) {
      const { void: undone } = await freezer.thaw(plan);
      this.#deps.frozen(false);
      // Writes that came after a thaw are nobody's fault but its own.
      const blamesWriters = error instanceof BarrierVoidError && undone.length > 0;
      throw blamesWriters ? thawedEarly(undone, deadlineMs) : error;
    }
    if (this.#request.final) return 0;
    const thawed = await freezer.thaw(plan);
    this.#deps.frozen(false);
    if (thawed.void.length > 0) throw thawedEarly(thawed.void, deadlineMs);
    return thawed.frozenForMs;
  }

  async #mustBeFrozen(plan: FreezePlan): Promise<void> {
    const { freezer, limits } = this.#deps;
    const { void: undone } = await freezer.check(plan);
    if (undone.length > 0) throw thawedEarly(undone, limits.finalDeadlineMs);
  }

  async #readAtRest(memory: FrozenRead): Promise<void> {
    const { tracking, readRate, clock, limits } = this.#deps;
    const { finalDeadlineMs, deadlineMs } = limits;
    const untilMs =
      this.#frozenAt + (this.#request.final ? finalDeadlineMs : deadlineMs) * FROZEN_SHARE;
    const inTime = () => clock.monotonic() < untilMs;
    // What completed before the freeze, or by it.
    await this.#comeToRest();
    for (;;) {
      tracking.watch();
      await readRate.measure(() => memory.take(tracking.disks, inTime));
      await this.#comeToRest();
      if (tracking.watched.count === 0) return;
      if (!tracking.watched.harmless) throw writtenWhileFrozen(tracking.watched);
    }
  }

  /** Rounds until every account is proven and nothing happens any more. */
  async #comeToRest(): Promise<void> {
    const { tracking, clock, limits } = this.#deps;
    let last: Round | undefined;
    for (let proofs = 0; ; ) {
      const round = await tracking.absorb();
      if (round.count > 0) last = round;
      proofs = tracking.proven && round.count === 0 ? proofs + 1 : 0;
      if (proofs === PROOFS) return;
      if (clock.monotonic() - this.#frozenAt > limits.deadlineMs * FROZEN_SHARE)
        throw voided(
          'NotQuiet',
          `The disks did not come to rest with their filesystems frozen (${last === undefined ? '' : `last came ${placesOf(last)}; `}${tracking.uncertainSectors} sectors written that are not accounted for). ${MUST_BE_QUIET}. The barrier is tried again later.`,
        );
      await clock.sleep(ROUND_PAUSE_MS);
    }
  }

  /** Sends while frozen, and stays so once the vault has it. */
  async #finish(plan: FreezePlan, memory: FrozenRead): Promise<{ lsn: bigint; freezeMs: number }> {
    const { freezer, sink, clock, limits } = this.#deps;
    try {
      await memory.send(sink);
      const freezeMs = clock.monotonic() - this.#frozenAt;
      const lsn = await this.#deps.deliver({ freezeMs });
      await this.#inTime(this.#deps.uploaded(lsn), this.#frozenAt + limits.finalDeadlineMs);
      const mountPoints = plan.mounts.filter((mount) => mount.freezable);
      await this.#deps.aboutToHold?.(mountPoints.map((mount) => mount.mountPoint));
      const held = await freezer.hold(plan);
      if (held.void.length > 0) throw thawedEarly(held.void, limits.finalDeadlineMs);
      return { lsn, freezeMs };
    } catch (error) {
      await freezer.thaw(plan);
      this.#deps.frozen(false);
      throw this.#explain(error);
    }
  }

  async #inTime(work: Promise<void>, untilMs: number): Promise<void> {
    const { clock, limits } = this.#deps;
    const timer = new AbortController();
    const late = clock.sleep(Math.max(0, untilMs - clock.monotonic()), timer.signal).then(() => {
      throw voided(
        'FinalTimedOut',
        `The last barrier was not in the vault after ${limits.finalDeadlineMs / 1000} s; the machine was thawed and goes on. Look at the process server's uploads, then try the failover again.`,
      );
    });
    late.catch(() => undefined);
    try {
      await Promise.race([work, late]);
    } finally {
      timer.abort(new Error('done'));
    }
  }

  /** Of what goes wrong here, only lost tracking and an ended session are more than a void barrier. */
  #explain(error: unknown): unknown {
    if (error instanceof BarrierVoidError || error instanceof TrackingLostError) return error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'FreezeFailed') return voided('FreezeFailed', errorMessage(error), error);
    return error;
  }
}

function voided(code: BarrierVoidCode, message: string, cause?: unknown): BarrierVoidError {
  return new BarrierVoidError(code, message, cause === undefined ? {} : { cause });
}

function thawedEarly(mountPoints: readonly string[], deadlineMs: number): BarrierVoidError {
  return voided(
    'ThawedEarly',
    `${mountPoints.join(', ')} was thawed before all was read, by the watchdog after ${deadlineMs / 1000} s or by somebody else. The barrier is tried again later; if it goes on, look for other backup software that freezes.`,
  );
}

function writtenWhileFrozen(round: Readonly<Round>): BarrierVoidError {
  return voided(
    'WrittenWhileFrozen',
    `Something wrote past the frozen filesystems: ${placesOf(round)}. ${MUST_BE_QUIET}; machines whose data is on raw devices can't be protected from inside. The barrier is tried again later.`,
  );
}

const MUST_BE_QUIET =
  "Software that uses raw devices, or a filesystem that can't be frozen (vfat), must be quiet for a moment";

/** What is harmless is not to blame while there is anything else. */
function placesOf(round: Readonly<Round>): string {
  const writes = round.events.filter(({ disk, event }) => !isHarmless(disk, event));
  return (writes.length > 0 ? writes : round.events)
    .slice(0, 4)
    .map(
      ({ disk, event }) =>
        `${event.sectorCount * 512} bytes at ${event.sector * 512} of ${disk.device.path}`,
    )
    .join(', ');
}
