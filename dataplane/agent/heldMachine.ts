/**
 * A machine that is kept frozen behind the last barrier of a planned failover: until the failover is cancelled or the machine goes
 * off. It says that it stands still only while that can be proven: its tracking goes on and no write was seen since. One that
 * somebody thawed (or that writes past its frozen filesystems) is let go, and the process server asks for another last barrier. That
 * the kernel notes a RAID as clean, once nobody writes, is no such write. One whose tracking is lost stays frozen, for Azure may have its
 * disks by now: its error tells a failover that has not got so far to end, which lets it go.
 *
 * What is frozen is remembered before the watchdogs are called off, so that an agent which follows a killed one can thaw it.
 */
import { errorMessage } from '../../platform/errors.ts';
import type { Clock, FilesystemFreezer, Logger, SourceMachine } from '../../platform/ports.ts';
import { BarrierVoidError } from '../capture/barrierErrors.ts';
import type { Tracking } from '../capture/tracking.ts';
import type { Configuration } from '../wire/messages.ts';
import type { QuietLog } from './quietLog.ts';
import type { SavedState } from './state.ts';

type Final = NonNullable<Configuration['final']>;
type SavedHeld = NonNullable<SavedState['held']>;

/** Of a machine that is held and can't be vouched for: recovery/steps/finalSync.ts ends its failover. */
const UNPROVEN = 'HeldUnproven';
/** What is on its way to the process server when the power goes must have gone before. */
const LAST_WORDS_MS = 1_000;
/** A machine that could not be turned off keeps its failover waiting, and stays frozen meanwhile. */
const POWER_OFF_AGAIN_MS = 30_000;

export interface HeldMachineDeps {
  freezer: FilesystemFreezer;
  machine: SourceMachine;
  clock: Clock;
  quietLog: QuietLog;
  log: Logger;
  /** undefined while it can't be proven what was written. */
  tracking: () => Tracking | undefined;
  /** The planned failover that is wanted now. */
  wanted: () => Final | undefined;
  /** Resolves with whether the state is saved. */
  save: () => Promise<boolean>;
  /** Resolves when the process server has been told, and rejects when it can't be. */
  report: () => Promise<void>;
  setError: (code: string, message: string) => void;
  clearError: (code: string) => void;
}

export class HeldMachine {
  readonly #deps: HeldMachineDeps;
  #held: SavedHeld | undefined;
  #powerOffNotBeforeMs = 0;
  #isUnproven = false;

  constructor(deps: HeldMachineDeps) {
    this.#deps = deps;
  }

  get isHeld(): boolean {
    return this.#held !== undefined && this.#held.holding !== true;
  }

  /** For a successor. */
  get saved(): SavedHeld | undefined {
    return this.#held;
  }

  /** What a status may say: nothing that is not so at this moment. */
  get claim(): { failover: string; poweredOff: boolean } | undefined {
    if (this.#held === undefined || !this.isHeld) return undefined;
    if (this.#deps.tracking()?.foreignDirtyBytes !== 0) return undefined;
    return { failover: this.#held.failover, poweredOff: this.#held.poweredOff };
  }

  /** What a former agent left. One that was killed while it called the watchdogs off left nobody knows what: it is thawed. */
  async adopt(saved: SavedHeld): Promise<void> {
    const { freezer, quietLog, log } = this.#deps;
    freezer.adoptHeld(saved.mountPoints);
    if (saved.holding === true) {
      const thawed = await freezer.thaw({ mounts: [], swap: [] });
      log.warn({ ...thawed }, 'The former agent ended while it held the machine frozen: thawed');
      return;
    }
    this.#held = saved;
    quietLog.setQuiet(true);
  }

  /** The last moment before the watchdogs are called off. Throws BarrierVoidError when the machine must be thawed instead. */
  async aboutToHold(final: Final, mountPoints: string[]): Promise<void> {
    const { tracking, wanted, save } = this.#deps;
    await tracking()?.absorb();
    if (tracking()?.foreignDirtyBytes !== 0)
      throw new BarrierVoidError(
        'WrittenWhileFrozen',
        'The disks were written to after the last barrier had been read: somebody thawed a filesystem, or writes past it. The barrier is tried again later.',
      );
    if (wanted()?.failover !== final.failover)
      throw new BarrierVoidError('FinalCancelled', `Failover ${final.failover} was cancelled.`);
    const { failover, powerOff } = final;
    this.#held = { failover, poweredOff: powerOff, mountPoints, holding: true };
    if (!(await save()))
      throw new BarrierVoidError(
        'CaptureFailed',
        "The agent can't save that the machine stays frozen, so nobody could thaw it later: see its error StateNotSaved.",
      );
  }

  /** It was thawed instead. */
  async notHeld(): Promise<void> {
    if (this.#held === undefined) return;
    this.#held = undefined;
    await this.#deps.save();
  }

  /** The watchdogs are gone: only we, or a successor, thaw it. */
  async hold(): Promise<void> {
    if (this.#held === undefined) return;
    const { failover, poweredOff } = this.#held;
    this.#held = { failover, poweredOff, mountPoints: this.#deps.freezer.held() };
    this.#powerOffNotBeforeMs = 0;
    await this.#deps.save();
    await this.#deps.report();
  }

  /** Called again and again while it is held and a process server listens. Throws TrackingLostError; rejects when the session ends. */
  async tend(): Promise<void> {
    const { clock, tracking, wanted } = this.#deps;
    const held = this.#held;
    if (held === undefined) return;
    if (wanted()?.failover !== held.failover) {
      await this.#thaw('The failover was cancelled: the machine is thawed and goes on');
      return;
    }
    if (tracking() === undefined) {
      this.#sayUnproven();
      return;
    }
    await tracking()?.absorb();
    if ((tracking()?.foreignDirtyBytes ?? 0) > 0) {
      // Said first: nobody may believe in a frozen machine any longer.
      await this.#deps.report();
      await this.#thaw('The machine was written to while it was held frozen: it goes on');
      return;
    }
    const isDue = clock.monotonic() >= this.#powerOffNotBeforeMs;
    if (wanted()?.powerOff === true && isDue && this.claim !== undefined)
      await this.#powerOff({ ...held, poweredOff: true });
  }

  #sayUnproven(): void {
    if (this.#isUnproven) return;
    this.#isUnproven = true;
    this.#deps.setError(
      UNPROVEN,
      'The machine is held frozen behind its last barrier, but its tracking was lost meanwhile, so nobody can vouch for its standing still. It stays frozen until its failover ends.',
    );
  }

  async #powerOff(held: SavedHeld): Promise<void> {
    const { clock, machine, wanted } = this.#deps;
    this.#held = held;
    await this.#deps.report();
    await clock.sleep(LAST_WORDS_MS);
    if (wanted()?.failover !== held.failover || this.claim === undefined) return;
    this.#powerOffNotBeforeMs = clock.monotonic() + POWER_OFF_AGAIN_MS;
    try {
      await machine.powerOff();
      this.#deps.clearError('PowerOffFailed');
    } catch (error) {
      this.#held = { ...held, poweredOff: false };
      this.#deps.setError(
        'PowerOffFailed',
        `The machine could not be turned off: ${errorMessage(error)}. It stays frozen, and this is tried again every ${POWER_OFF_AGAIN_MS / 1000} s; find out what keeps it on.`,
      );
      await this.#deps.save();
      await this.#deps.report();
    }
  }

  async #thaw(why: string): Promise<void> {
    const { freezer, quietLog, log } = this.#deps;
    const thawed = await freezer.thaw({ mounts: [], swap: [] });
    this.#held = undefined;
    quietLog.setQuiet(false);
    this.#isUnproven = false;
    this.#deps.clearError(UNPROVEN);
    this.#deps.clearError('PowerOffFailed');
    log.info({ ...thawed }, why);
    await this.#deps.save();
  }
}
