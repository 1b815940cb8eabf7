/**
 * What an agent does, over any number of sessions: resync when tracking has a hole, passes while there is dirt, barriers when the
 * process server asks, the scrub while there is nothing else. One thing at a time; tracking goes on beside it, connected or not.
 */
import { BlockDeviceError } from '../../platform/deviceErrors.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type {
  Clock,
  FilesystemFreezer,
  HookRunner,
  Logger,
  SourceMachine,
} from '../../platform/ports.ts';
import { TrackingLostError } from '../capture/accounting.ts';
import type { BarrierLimits } from '../capture/barrier.ts';
import type { Tracking } from '../capture/tracking.ts';
import {
  type Configuration,
  type FrameType,
  type Message,
  PROTOCOL_VERSION,
  PROTOCOL_VERSION_MIN,
} from '../wire/messages.ts';
import { BarrierWork } from './barrierWork.ts';
import { Bell } from './bell.ts';
import { ErrorList } from './errorList.ts';
import { HeldMachine } from './heldMachine.ts';
import type { IdentityStore } from './identity.ts';
import { LeafRepair } from './leafRepair.ts';
import { type CaptureDeps, type Loss, MachineCapture } from './machineCapture.ts';
import { AgentMemory } from './memory.ts';
import { PassWork } from './passWork.ts';
import type { QuietLog } from './quietLog.ts';
import { ResyncWork } from './resyncWork.ts';
import { ScrubWork } from './scrubWork.ts';
import { type Session, SessionEndedError, type Welcome } from './session.ts';
import type { AgentStateStore, SavedState } from './state.ts';
import { type AgentStatus, StatusReport } from './statusReport.ts';
import { pumpTracking } from './trackingPump.ts';

const RETRY_MS = 5_000;
const IDLE_MS = 250;
const AGENT_VERSION = '0.1.0';

export interface ReplicationDeps extends Omit<CaptureDeps, 'log'> {
  machineId: string;
  freezer: FilesystemFreezer;
  hooks: HookRunner;
  machine: SourceMachine;
  clock: Clock;
  store: AgentStateStore;
  identities: IdentityStore;
  quietLog: QuietLog;
  limits?: BarrierLimits;
  /** The scrub reads all clean leaves in so long; by default seven days. Infinity: never. */
  scrubPassMs?: number;
}

/** The work at hand must wait: paused, or other disks. Not an error. */
class Interrupted extends Error {}

export class Replication {
  readonly #deps: ReplicationDeps;
  readonly #log: Logger;
  readonly #bell: Bell;
  readonly #errors: ErrorList;
  readonly #capture: MachineCapture;
  readonly #memory: AgentMemory;
  readonly #resync: ResyncWork;
  readonly #held: HeldMachine;
  readonly #barriers: BarrierWork;
  readonly #scrub: ScrubWork;
  readonly #repair: LeafRepair;
  readonly #passes: PassWork;
  readonly #report: StatusReport;
  readonly #stopping = new AbortController();
  #pumping: Promise<void> | undefined;
  #session: Session | undefined;
  #reconfigured = false;
  #retryAtMs = 0;

  constructor(deps: ReplicationDeps) {
    const { clock } = deps;
    const log = deps.quietLog.logger;
    const errors = new ErrorList({ clock, changed: () => this.#report.hasten() });
    const capture = new MachineCapture({ ...deps, log });
    const resync = new ResyncWork({ ...deps, log, capture });
    const scrub = new ScrubWork({ ...deps, log, capture });
    const memory = new AgentMemory({
      ...deps,
      log,
      errors,
      capture,
      kept: () => ({ held: held.saved, resync: resync.saved, scrub: scrub.saved }),
    });
    const held = new HeldMachine({
      ...deps,
      log,
      tracking: () => (capture.loss === undefined ? capture.tracking : undefined),
      wanted: () => memory.configuration?.final,
      save: () => memory.save(),
      report: async () => {
        if (this.#session !== undefined) await this.#report.say(this.#session);
      },
      setError: (code, message) => errors.set(code, message),
      clearError: (code) => errors.clear(code),
    });
    this.#deps = deps;
    this.#log = log;
    this.#bell = new Bell(clock);
    this.#errors = errors;
    this.#capture = capture;
    this.#memory = memory;
    this.#resync = resync;
    this.#held = held;
    this.#scrub = scrub;
    this.#repair = new LeafRepair({ clock, log });
    this.#passes = new PassWork({ clock, machine: deps.machine, capture });
    this.#barriers = new BarrierWork({ ...deps, log, memory, held, errors });
    this.#report = new StatusReport({ clock, capture, memory, resync, held, errors });
  }

  /** Takes up what a former agent left, and begins to track. Call once. */
  async start(): Promise<void> {
    const { machine, clock } = this.#deps;
    this.#memory.facts = await machine.facts();
    const saved = await this.#memory.load();
    if (saved === undefined) this.#capture.loss = await this.#lossWithoutState();
    else await this.#resume(saved);
    if (this.#capture.loss !== undefined)
      this.#log.info({ ...this.#capture.loss }, 'A resync will be needed');
    this.#pumping = pumpTracking(
      {
        clock,
        capture: this.#capture,
        memory: this.#memory,
        failed: (error, tracking) => this.#trackingFailed(error, tracking),
      },
      this.#stopping.signal,
    );
  }

  /** What to greet a process server with. */
  hello(): Message<typeof FrameType.Hello> {
    const { facts, capturedLsn, acknowledgedBarrierLsn, cacheId, resyncToken } = this.#memory;
    const loss = this.#capture.loss ?? this.#resync.aboutToBegin;
    return {
      protocol: { min: PROTOCOL_VERSION_MIN, max: PROTOCOL_VERSION },
      machineId: this.#deps.machineId,
      agentVersion: AGENT_VERSION,
      ...facts,
      capturedLsn,
      acknowledgedBarrierLsn,
      ...(cacheId === undefined ? {} : { cacheId }),
      tracking: loss === undefined ? { state: 'Continued' } : { state: 'Lost', ...loss },
      ...(resyncToken === undefined ? {} : { resyncToken }),
    };
  }

  /** Remembers an LSN before it is used. */
  async saveCaptured(lsn: bigint): Promise<void> {
    await this.#memory.saveCaptured(lsn);
  }

  status(): AgentStatus {
    return this.#report.status();
  }

  /** Works with a process server until the session ends; never rejects. */
  async serve(session: Session): Promise<SessionEndedError> {
    this.#session = session;
    this.#welcome(session.welcome);
    const listening = session.listen({
      configure: (configuration) => this.#configure(configuration),
      uploaded: ({ barrierLsn }) => {
        for (const disk of this.#capture.disks) disk.dirt.barrierUploaded(barrierLsn);
      },
      prepare: (request) => {
        // One that comes late, out of a session that has ended, would be waited for in the next.
        if (this.#session !== session) return;
        this.#barriers.ask(request);
        this.#passes.hurry();
        this.#bell.ring();
      },
      acknowledged: ({ lsn }) => this.#barriers.acknowledged(lsn),
    });
    void listening.then(() => this.#bell.ring());
    const reporting = this.#report.repeat(session, this.#stopping.signal);
    try {
      while (session.ended === undefined && !this.#stopping.signal.aborted)
        await this.#step(session);
    } catch (error) {
      if (!(error instanceof SessionEndedError)) {
        this.#log.error({ code: errorCode(error), error }, 'The work of this session failed');
        this.#errors.set(errorCode(error), errorMessage(error));
        session.end({ reason: 'AgentFailed', message: errorMessage(error) });
      }
    }
    this.#barriers.forget();
    this.#session = undefined;
    if (session.ended === undefined)
      session.end({ reason: 'AgentStopping', message: 'The agent is being stopped.' });
    await reporting;
    await this.#memory.save();
    return await listening;
  }

  /** Ends; the kernel goes on tracking, for the next agent to take up. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'));
    this.#bell.ring();
    await this.#pumping;
    try {
      await this.#capture.tracking?.absorb({ last: true });
    } catch (error) {
      this.#capture.fail(error);
    }
    await this.#memory.save();
    await this.#capture.close({ keep: this.#capture.loss === undefined });
    await this.#deps.store.close();
  }

  async #lossWithoutState(): Promise<Loss> {
    const bootId = await this.#deps.identities.protectedInBoot();
    if (bootId === undefined)
      return { reason: 'Initial', detail: 'this machine was never protected before' };
    if (bootId !== this.#memory.facts.bootId) return RESTARTED;
    return { reason: 'TrackingLost', detail: "the agent's state in memory is gone" };
  }

  async #resume(saved: SavedState): Promise<void> {
    if (saved.bootId !== this.#memory.facts.bootId) {
      this.#capture.loss = RESTARTED;
      return;
    }
    if (saved.held !== undefined) await this.#held.adopt(saved.held);
    if (!(await this.#capture.resume(saved.disks, saved.configuration?.disks ?? []))) return;
    if (saved.resync !== undefined) this.#resync.adopt(saved.resync);
    if (saved.scrub !== undefined) this.#scrub.adopt(saved.scrub);
    this.#log.info({}, 'Tracking goes on where the last agent left it');
  }

  #trackingFailed(error: unknown, tracking: Tracking): void {
    // Of disks that were closed meanwhile.
    if (tracking !== this.#capture.tracking || this.#capture.loss !== undefined) return;
    this.#capture.fail(error);
    this.#log.error({ code: errorCode(error), error }, 'Tracking is lost');
    this.#report.hasten();
    this.#bell.ring();
  }

  // ------------------------------------------------------------------------------------------------------ session

  #welcome(welcome: Welcome): void {
    const { journaledLsn, cacheId, writerEpoch, resync } = welcome;
    this.#configure(welcome.configuration);
    // Under another epoch the same cache may have begun again from the vault: its LSNs may be another's by now, however they compare.
    const isOtherJournal =
      cacheId !== this.#memory.cacheId || writerEpoch !== (this.#memory.writerEpoch ?? writerEpoch);
    if (isOtherJournal || journaledLsn < this.#memory.capturedLsn)
      for (const { dirt } of this.#capture.disks) dirt.sendAgain();
    if (isOtherJournal || this.#memory.writerEpoch === undefined) {
      this.#memory.cacheId = cacheId;
      this.#memory.writerEpoch = writerEpoch;
      void this.#memory.save();
    }
    this.#memory.capturedLsn = journaledLsn;
    this.#resync.welcome(welcome);
    if (resync.required && !this.#resync.isUnderWay)
      this.#capture.loss ??= {
        reason: resync.reason ?? 'Initial',
        detail: 'the process server asks for a resync',
      };
    this.#report.hasten();
  }

  #configure(configuration: Configuration): void {
    this.#memory.configuration = configuration;
    this.#reconfigured = true;
    this.#bell.ring();
  }

  async #step(session: Session): Promise<void> {
    try {
      if (this.#reconfigured) await this.#applyConfiguration(session);
      if (this.#report.isDue) await this.#report.say(session);
      await this.#work(session);
    } catch (error) {
      if (error instanceof Interrupted) return;
      if (error instanceof TrackingLostError) {
        const { tracking } = this.#capture;
        if (tracking !== undefined) this.#trackingFailed(error, tracking);
      } else if (error instanceof BlockDeviceError) {
        this.#log.error({ code: error.code, error }, 'A disk failed');
        this.#capture.fail(error);
        this.#retryAtMs = this.#deps.clock.monotonic() + RETRY_MS;
        this.#report.hasten();
      } else throw error;
    }
  }

  async #work(session: Session): Promise<void> {
    if (this.#held.isHeld) await this.#held.tend();
    const { tracking, loss } = this.#capture;
    if (this.#mayNotWork()) {
      await this.#barriers.decline(session);
      await this.#bell.wait(IDLE_MS);
    } else if (tracking === undefined || loss !== undefined) {
      await this.#barriers.decline(session);
      if (this.#resyncMustWait(loss)) await this.#bell.wait(IDLE_MS);
      else await this.#beginResync(session);
    } else if (this.#resync.isUnderWay) await this.#runResync(session);
    else await this.#workOn(tracking, session);
  }

  async #workOn(tracking: Tracking, session: Session): Promise<void> {
    this.#repair.mark(tracking.disks, this.#memory.configuration);
    if (this.#barriers.isAskedFor) await this.#runBarrier(tracking, session);
    else if (this.#passes.isDue(tracking)) await this.#passes.run(session);
    else await this.#idle(tracking, session);
  }

  /** For the policy's window; not when somebody asks for it. */
  #resyncMustWait(loss: Loss | undefined): boolean {
    const { resyncWaits = [], resyncToken } = this.#memory.configuration ?? {};
    const isAskedFor = resyncToken !== undefined && resyncToken !== this.#memory.resyncToken;
    return loss !== undefined && !isAskedFor && resyncWaits.includes(loss.reason);
  }

  #mayNotWork(): boolean {
    return (
      this.#held.isHeld ||
      this.#deps.clock.monotonic() < this.#retryAtMs ||
      this.#memory.configuration?.paused === true
    );
  }

  async #applyConfiguration(session: Session): Promise<void> {
    this.#reconfigured = false;
    const { configuration } = this.#memory;
    if (configuration === undefined) return;
    const { changed, added } = this.#capture.configure(configuration.disks);
    if (changed) {
      if (this.#capture.tracking !== undefined || this.#capture.loss === undefined)
        this.#capture.loss = {
          reason: added ? 'Initial' : 'TrackingLost',
          detail: 'other disks are protected than before',
        };
      this.#resync.forget();
    }
    const { resyncToken } = configuration;
    // A resync that has not begun yet serves it too.
    if (resyncToken !== undefined && resyncToken !== this.#memory.resyncToken)
      this.#capture.loss ??= { reason: 'Manual', detail: `resync ${resyncToken} was asked for` };
    await this.#report.say(session);
  }

  // --------------------------------------------------------------------------------------------------------- work

  /** Opens the disks anew (tracking begins before the first leaf is read) and begins to compare them whole. */
  async #beginResync(session: Session): Promise<void> {
    const { clock, identities } = this.#deps;
    const loss: Loss = this.#capture.loss ?? { reason: 'TrackingLost', detail: '' };
    if (!(await this.#capture.open())) {
      this.#retryAtMs = clock.monotonic() + RETRY_MS;
      await this.#report.say(session);
      return;
    }
    const memory = this.#memory;
    this.#capture.loss = undefined;
    memory.resyncToken = memory.configuration?.resyncToken ?? memory.resyncToken;
    const journalIsEmpty = session.welcome.journaledLsn === 0n && session.nextLsn === 1n;
    this.#resync.begin(loss, { journalIsEmpty });
    await identities.saveProtectedInBoot(memory.facts.bootId);
    await this.#report.say(session);
  }

  async #runResync(session: Session): Promise<void> {
    await this.#resync.run(session, async () => {
      if (this.#capture.loss !== undefined) throw new TrackingLostError(this.#capture.loss.detail);
      if (session.ended !== undefined) throw session.ended;
      if (this.#reconfigured || this.#stopping.signal.aborted) throw new Interrupted();
    });
    await this.#memory.save();
    await this.#report.say(session);
  }

  async #idle(tracking: Tracking, session: Session): Promise<void> {
    const waitMs = this.#scrub.waitMs(tracking);
    if (waitMs > 0) await this.#bell.wait(Math.min(IDLE_MS, waitMs));
    else await this.#scrub.step(tracking, session, this.#bell.signal);
  }

  async #runBarrier(tracking: Tracking, session: Session): Promise<void> {
    this.#passes.barrierBegins();
    if (await this.#barriers.run(tracking, session)) this.#passes.barrierMade();
  }
}

const RESTARTED: Loss = { reason: 'AfterReboot', detail: 'the machine was restarted' };
