/**
 * What an agent does, over any number of sessions: resync when tracking has a hole, passes while there is dirt, barriers when the
 * process server asks. One thing at a time; tracking goes on beside it, connected or not.
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
import type { EndedResync, ResyncReason } from '../../vault/documents.ts';
import { TrackingLostError } from '../capture/accounting.ts';
import { type BarrierLimits, barrierLimits, runBarrier } from '../capture/barrier.ts';
import { BarrierVoidError } from '../capture/barrierErrors.ts';
import { ReadRate } from '../capture/frozenRead.ts';
import { runPass } from '../capture/pass.ts';
import { Resync, type ResyncProgress } from '../capture/resync.ts';
import type { Tracking } from '../capture/tracking.ts';
import {
  type Configuration,
  FrameType,
  type Message,
  PROTOCOL_VERSION,
  PROTOCOL_VERSION_MIN,
} from '../wire/messages.ts';
import { Bell } from './bell.ts';
import { HeldMachine } from './heldMachine.ts';
import type { IdentityStore } from './identity.ts';
import { type CaptureDeps, MachineCapture } from './machineCapture.ts';
import type { QuietLog } from './quietLog.ts';
import { type Session, SessionEndedError, type Welcome } from './session.ts';
import type { AgentStateStore, SavedState } from './state.ts';

const PUMP_MS = 200;
/** Every so many rounds of the pump the tracer and the disks' identities are looked at. */
const VERIFY_ROUNDS = 10;
const SAVE_MS = 10_000;
const STATUS_MS = 5_000;
const RETRY_MS = 5_000;
const IDLE_MS = 250;
/** A pass begins when so much is dirty, or so long after the last. */
const PASS_BYTES = 16 << 20;
const PASS_MS = 15_000;
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
}

type Prepare = Message<typeof FrameType.BarrierPrepare>;

/** The work at hand must wait: paused, or other disks. Not an error. */
class Interrupted extends Error {}

export class Replication {
  readonly #deps: ReplicationDeps;
  readonly #log: Logger;
  readonly #capture: MachineCapture;
  readonly #bell: Bell;
  readonly #readRate: ReadRate;
  readonly #stopping = new AbortController();
  readonly #errors = new Map<string, { code: string; message: string; sinceMs: number }>();
  #pumping: Promise<void> | undefined;
  #facts = { hostname: '', kernel: '', bootId: '' };
  #configuration: Configuration | undefined;
  #reconfigured = false;
  #resync: Resync | undefined;
  #lastResync: EndedResync | undefined;
  #prepare: Prepare | undefined;
  readonly #held: HeldMachine;
  #session: Session | undefined;
  #saving: Promise<boolean> = Promise.resolve(true);
  #capturedLsn = 0n;
  #acknowledgedBarrierLsn = 0n;
  #cacheId: string | undefined;
  #resyncToken: string | undefined;
  #passAtMs = 0;
  #retryAtMs = 0;
  #statusSoon = false;
  /** Events taken when the state was last saved. */
  #savedEvents = 0;

  constructor(deps: ReplicationDeps) {
    this.#deps = deps;
    this.#log = deps.quietLog.logger;
    this.#capture = new MachineCapture({ ...deps, log: this.#log });
    this.#bell = new Bell(deps.clock);
    this.#readRate = new ReadRate(deps.clock);
    this.#held = new HeldMachine({
      ...deps,
      log: this.#log,
      tracking: () => (this.#capture.loss === undefined ? this.#capture.tracking : undefined),
      wanted: () => this.#configuration?.final,
      save: () => this.#save(),
      report: async () => {
        if (this.#session !== undefined) await this.#sayStatus(this.#session);
      },
      setError: (code, message) => this.#setError(code, message),
      clearError: (code) => this.#clearError(code),
    });
  }

  /** Takes up what a former agent left, and begins to track. Call once. */
  async start(): Promise<void> {
    const { store, machine, machineId, identities } = this.#deps;
    this.#facts = await machine.facts();
    const saved = await store.load();
    this.#capturedLsn = await store.loadCaptured();
    if (saved === undefined || saved.machineId !== machineId) {
      const bootId = await identities.protectedInBoot();
      this.#capture.loss =
        bootId === undefined
          ? { reason: 'Initial', detail: 'this machine was never protected before' }
          : bootId !== this.#facts.bootId
            ? { reason: 'AfterReboot', detail: 'the machine was restarted' }
            : { reason: 'TrackingLost', detail: "the agent's state in memory is gone" };
    } else await this.#resume(saved);
    if (this.#capture.loss !== undefined)
      this.#log.info({ ...this.#capture.loss }, 'A resync will be needed');
    this.#pumping = this.#pump();
  }

  /** What to greet a process server with. */
  hello(): Message<typeof FrameType.Hello> {
    const loss =
      this.#capture.loss ??
      (this.#resync !== undefined && this.#resync.progress.beginLsn === 0n
        ? { reason: this.#resync.progress.reason, detail: 'a resync was about to begin' }
        : undefined);
    return {
      protocol: { min: PROTOCOL_VERSION_MIN, max: PROTOCOL_VERSION },
      machineId: this.#deps.machineId,
      agentVersion: AGENT_VERSION,
      ...this.#facts,
      capturedLsn: this.#capturedLsn,
      acknowledgedBarrierLsn: this.#acknowledgedBarrierLsn,
      ...(this.#cacheId === undefined ? {} : { cacheId: this.#cacheId }),
      tracking: loss === undefined ? { state: 'Continued' } : { state: 'Lost', ...loss },
      ...(this.#resyncToken === undefined ? {} : { resyncToken: this.#resyncToken }),
    };
  }

  /** Remembers an LSN before it is used. */
  async saveCaptured(lsn: bigint): Promise<void> {
    this.#capturedLsn = lsn;
    await this.#deps.store.saveCaptured(lsn);
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
        this.#prepare = request;
        this.#bell.ring();
      },
      acknowledged: ({ lsn }) => {
        this.#acknowledgedBarrierLsn = lsn;
        this.#clearError('BarrierVoided');
      },
    });
    void listening.then(() => this.#bell.ring());
    const reporting = this.#report(session);
    try {
      while (session.ended === undefined && !this.#stopping.signal.aborted)
        await this.#step(session);
    } catch (error) {
      if (!(error instanceof SessionEndedError)) {
        this.#log.error({ code: errorCode(error), error }, 'The work of this session failed');
        this.#setError(errorCode(error), errorMessage(error));
        session.end({ reason: 'AgentFailed', message: errorMessage(error) });
      }
    }
    this.#prepare = undefined;
    this.#session = undefined;
    if (session.ended === undefined)
      session.end({ reason: 'AgentStopping', message: 'The agent is being stopped.' });
    await reporting;
    await this.#save();
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
    await this.#save();
    await this.#capture.close({ keep: this.#capture.loss === undefined });
    await this.#deps.store.close();
  }

  // ----------------------------------------------------------------------------------------------------- tracking

  async #resume(saved: SavedState): Promise<void> {
    this.#configuration = saved.configuration;
    this.#acknowledgedBarrierLsn = saved.acknowledgedBarrierLsn;
    this.#cacheId = saved.cacheId;
    this.#resyncToken = saved.resyncToken;
    if (saved.bootId !== this.#facts.bootId) {
      this.#capture.loss = { reason: 'AfterReboot', detail: 'the machine was restarted' };
      return;
    }
    if (saved.held !== undefined) await this.#held.adopt(saved.held);
    if (!(await this.#capture.resume(saved.disks, saved.configuration?.disks ?? []))) return;
    if (saved.resync !== undefined)
      this.#resync = new Resync({
        disks: this.#capture.disks,
        progress: {
          ...saved.resync,
          cursors: new Map(saved.resync.cursors),
          assumeZero: false,
        },
      });
    this.#log.info({}, 'Tracking goes on where the last agent left it');
  }

  async #pump(): Promise<void> {
    const { clock } = this.#deps;
    let savedAtMs = clock.monotonic();
    let taken = 0;
    for (let round = 0; !this.#stopping.signal.aborted; round += 1) {
      const { tracking } = this.#capture;
      if (tracking !== undefined && this.#capture.loss === undefined) {
        try {
          await tracking.absorb();
          if (round % VERIFY_ROUNDS === 0) await tracking.verify();
        } catch (error) {
          this.#trackingFailed(error, tracking);
        }
      }
      // What was taken from the kernel and not saved costs a resync if we are killed: so as soon as it is quiet, too.
      const before = taken;
      taken = this.#capture.tracking?.eventsTaken ?? 0;
      const quiet = taken === before && taken !== this.#savedEvents;
      if (quiet || clock.monotonic() - savedAtMs >= SAVE_MS) {
        await this.#save();
        savedAtMs = clock.monotonic();
      }
      await clock.sleep(PUMP_MS, this.#stopping.signal).catch(() => undefined);
    }
  }

  #trackingFailed(error: unknown, tracking: Tracking): void {
    // Of disks that were closed meanwhile.
    if (tracking !== this.#capture.tracking || this.#capture.loss !== undefined) return;
    this.#capture.fail(error);
    this.#log.error({ code: errorCode(error), error }, 'Tracking is lost');
    this.#statusSoon = true;
    this.#bell.ring();
  }

  /** One after the other, each with what is so when its turn comes. Resolves with whether it is saved. */
  #save(): Promise<boolean> {
    this.#saving = this.#saving.then(() => this.#saveNow());
    return this.#saving;
  }

  async #saveNow(): Promise<boolean> {
    const { store, machineId } = this.#deps;
    this.#savedEvents = this.#capture.tracking?.eventsTaken ?? 0;
    const progress = this.#resync?.progress;
    try {
      await store.save({
        machineId,
        bootId: this.#facts.bootId,
        cacheId: this.#cacheId,
        acknowledgedBarrierLsn: this.#acknowledgedBarrierLsn,
        resyncToken: this.#resyncToken,
        configuration: this.#configuration,
        held: this.#held.saved,
        disks: this.#capture.save(),
        resync:
          progress === undefined
            ? undefined
            : {
                reason: progress.reason,
                startedMs: progress.startedMs,
                beginLsn: progress.beginLsn,
                bytesSent: progress.bytesSent,
                cursors: [...progress.cursors],
              },
      });
      this.#clearError('StateNotSaved');
      return true;
    } catch (error) {
      this.#log.warn({ error }, 'State could not be saved; a restart of the agent needs a resync');
      this.#setError('StateNotSaved', errorMessage(error));
      return false;
    }
  }

  // ------------------------------------------------------------------------------------------------------ session

  #welcome(welcome: Welcome): void {
    const { journaledLsn, cacheId, resync } = welcome;
    this.#configure(welcome.configuration);
    if (cacheId !== this.#cacheId || journaledLsn < this.#capturedLsn)
      for (const disk of this.#capture.disks) disk.dirt.sendAgain();
    if (cacheId !== this.#cacheId) {
      this.#cacheId = cacheId;
      void this.#save();
    }
    this.#capturedLsn = journaledLsn;
    const progress = this.#resync?.progress;
    if (progress !== undefined && progress.beginLsn > 0n) {
      // Its beginning got lost with a cache: it begins again, where it is. Otherwise the journal knows whether it has ended, and
      // whether what it compared counts: a machine that went back in time, or a journal without hashes, begins from the first leaf.
      const isKept =
        progress.beginLsn > journaledLsn
          ? !resync.required || resync.reason === 'Initial'
          : resync.required && resync.beginLsn === progress.beginLsn;
      if (!isKept) this.#resync = undefined;
      else if (progress.beginLsn > journaledLsn) progress.beginLsn = 0n;
    }
    if (resync.required && this.#resync === undefined)
      this.#capture.loss ??= {
        reason: resync.reason ?? 'Initial',
        detail: 'the process server asks for a resync',
      };
    this.#statusSoon = true;
  }

  #configure(configuration: Configuration): void {
    this.#configuration = configuration;
    this.#reconfigured = true;
    this.#bell.ring();
  }

  async #step(session: Session): Promise<void> {
    try {
      if (this.#reconfigured) await this.#applyConfiguration(session);
      if (this.#statusSoon) await this.#sayStatus(session);
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
        this.#statusSoon = true;
      } else throw error;
    }
  }

  async #work(session: Session): Promise<void> {
    const { clock } = this.#deps;
    const nowMs = clock.monotonic();
    if (this.#held.isHeld) await this.#held.tend();
    if (this.#held.isHeld || nowMs < this.#retryAtMs || this.#configuration?.paused === true) {
      await this.#declineBarrier(session);
      await this.#bell.wait(IDLE_MS);
      return;
    }
    if (this.#capture.tracking === undefined || this.#capture.loss !== undefined) {
      await this.#declineBarrier(session);
      await this.#beginResync(session);
    } else if (this.#resync !== undefined) await this.#runResync(this.#resync, session);
    else if (this.#prepare !== undefined)
      await this.#runBarrier(this.#prepare, this.#capture.tracking, session);
    else if (this.#passIsDue(this.#capture.tracking)) await this.#runPass(session);
    else await this.#bell.wait(IDLE_MS);
  }

  async #applyConfiguration(session: Session): Promise<void> {
    this.#reconfigured = false;
    const configuration = this.#configuration;
    if (configuration === undefined) return;
    const { changed, added } = this.#capture.configure(configuration.disks);
    if (changed) {
      if (this.#capture.tracking !== undefined || this.#capture.loss === undefined)
        this.#capture.loss = {
          reason: added ? 'Initial' : 'TrackingLost',
          detail: 'other disks are protected than before',
        };
      this.#resync = undefined;
    }
    const { resyncToken } = configuration;
    // A resync that has not begun yet serves it too.
    if (resyncToken !== undefined && resyncToken !== this.#resyncToken)
      this.#capture.loss ??= { reason: 'Manual', detail: `resync ${resyncToken} was asked for` };
    await this.#sayStatus(session);
  }

  // --------------------------------------------------------------------------------------------------------- work

  /** Opens the disks anew (tracking begins before the first leaf is read) and begins to compare them whole. */
  async #beginResync(session: Session): Promise<void> {
    const { clock, identities } = this.#deps;
    const loss = this.#capture.loss ?? { reason: 'TrackingLost' as ResyncReason, detail: '' };
    if (!(await this.#capture.open())) {
      this.#retryAtMs = clock.monotonic() + RETRY_MS;
      await this.#sayStatus(session);
      return;
    }
    this.#capture.loss = undefined;
    this.#resyncToken = this.#configuration?.resyncToken ?? this.#resyncToken;
    const progress: ResyncProgress = {
      reason: loss.reason,
      startedMs: clock.now(),
      beginLsn: 0n,
      assumeZero: session.welcome.journaledLsn === 0n && session.nextLsn === 1n,
      cursors: new Map(),
      bytesSent: 0,
    };
    this.#resync = new Resync({ disks: this.#capture.disks, progress });
    this.#log.info({ ...loss }, 'A resync begins');
    await identities.saveProtectedInBoot(this.#facts.bootId);
    await this.#sayStatus(session);
  }

  async #runResync(resync: Resync, session: Session): Promise<void> {
    const { clock, machine } = this.#deps;
    machine.giveWay(true);
    await resync
      .run({
        sink: session,
        clock,
        checkpoint: async () => {
          if (this.#capture.loss !== undefined)
            throw new TrackingLostError(this.#capture.loss.detail);
          if (session.ended !== undefined) throw session.ended;
          if (this.#reconfigured || this.#stopping.signal.aborted) throw new Interrupted();
        },
      })
      .finally(() => machine.giveWay(false));
    const report = resync.report(clock);
    this.#resync = undefined;
    this.#capture.clearReadErrors();
    const { reason, bytesTotal, bytesSent, startedMs } = report;
    const finishedMs = Math.max(startedMs, clock.now());
    this.#lastResync = { reason, bytesTotal, bytesSent, startedMs, finishedMs };
    const seconds = (finishedMs - startedMs) / 1000;
    this.#log.info({ bytesSent, seconds }, 'The resync has ended');
    await this.#save();
    await this.#sayStatus(session);
  }

  #passIsDue(tracking: Tracking): boolean {
    const { dirtyBytes } = tracking;
    if (dirtyBytes === 0) return false;
    return dirtyBytes >= PASS_BYTES || this.#deps.clock.monotonic() - this.#passAtMs >= PASS_MS;
  }

  async #runPass(session: Session): Promise<void> {
    const { clock } = this.#deps;
    await runPass(this.#capture.disks, { sink: session, clock });
    this.#passAtMs = clock.monotonic();
    this.#capture.clearReadErrors();
  }

  async #runBarrier(request: Prepare, tracking: Tracking, session: Session): Promise<void> {
    const { clock, freezer, hooks, quietLog, limits } = this.#deps;
    this.#prepare = undefined;
    const hookSpec = this.#configuration?.hooks;
    try {
      const { lsn, freezeMs } = await runBarrier(
        {
          consistency: request.consistency,
          final: request.final !== undefined,
          ...(hookSpec === undefined ? {} : { hooks: hookSpec }),
        },
        {
          tracking,
          sink: session,
          clock,
          freezer,
          hooks,
          readRate: this.#readRate,
          limits: limits ?? barrierLimits,
          log: this.#log,
          ready: () => session.ready(request.id),
          deliver: (barrier) => this.#deliver(request.id, barrier, session),
          uploaded: (barrierLsn) => session.uploaded(barrierLsn),
          aboutToHold: async (mountPoints) => {
            if (request.final !== undefined)
              await this.#held.aboutToHold(request.final, mountPoints);
          },
          frozen: (frozen) => quietLog.setQuiet(frozen),
        },
      );
      this.#passAtMs = clock.monotonic();
      this.#log.debug({ lsn: String(lsn), freezeMs }, 'Barrier');
      if (request.final === undefined) await this.#save();
      else {
        for (const disk of this.#capture.disks) disk.dirt.allUploaded();
        await this.#held.hold();
      }
    } catch (error) {
      await this.#barrierFailed(request, error, session);
    }
  }

  async #deliver(id: number, barrier: { freezeMs: number }, session: Session): Promise<bigint> {
    const disks = this.#capture.disks;
    const lsn = await session.deliver({
      id,
      freezeMs: barrier.freezeMs,
      disks: disks.map(({ index, identity }) => ({ index, sizeBytes: identity.sizeBytes })),
    });
    for (const disk of disks) disk.dirt.barrierSent(lsn);
    return lsn;
  }

  async #barrierFailed(request: Prepare, error: unknown, session: Session): Promise<void> {
    if (!this.#held.isHeld) await this.#held.notHeld();
    if (error instanceof SessionEndedError) throw error;
    const code = error instanceof BarrierVoidError ? error.code : 'CaptureFailed';
    const message = errorMessage(error);
    this.#log.warn({ code, error }, 'A barrier is void');
    this.#setError('BarrierVoided', `${code}: ${message}`);
    await session.say(FrameType.BarrierVoided, { id: request.id, code, message });
    if (!(error instanceof BarrierVoidError)) throw error;
  }

  /** Nothing to freeze for now, and the process server must not wait for us. */
  async #declineBarrier(session: Session): Promise<void> {
    const request = this.#prepare;
    if (request === undefined) return;
    this.#prepare = undefined;
    await session.say(FrameType.BarrierVoided, {
      id: request.id,
      code: 'CaptureFailed',
      message:
        'The machine can make no barrier now: it is paused, waits for a resync, or is frozen for a failover.',
    });
  }

  // ------------------------------------------------------------------------------------------------------- status

  async #report(session: Session): Promise<void> {
    const { clock } = this.#deps;
    try {
      while (session.ended === undefined) {
        await this.#sayStatus(session);
        await clock.sleep(STATUS_MS, this.#stopping.signal);
      }
    } catch {
      // The session ended, which `listen` tells, or we stop.
    }
  }

  async #sayStatus(session: Session): Promise<void> {
    this.#statusSoon = false;
    await session.say(FrameType.AgentStatus, this.status());
  }

  status(): Message<typeof FrameType.AgentStatus> {
    const { clock } = this.#deps;
    const resync = this.#resync?.report(clock);
    const final = this.#held.claim;
    const sinceMs = clock.now();
    return {
      capturedLsn: this.#capturedLsn,
      disks: this.#capture.reports(),
      dirtyBytes: this.#capture.tracking?.dirtyBytes ?? 0,
      errors: [
        ...this.#errors.values(),
        ...this.#capture.errors.map((error) => ({ ...error, sinceMs })),
        ...(this.#capture.loss === undefined || this.#capture.loss.reason === 'Initial'
          ? []
          : [{ code: this.#capture.loss.reason, message: this.#capture.loss.detail, sinceMs }]),
      ].slice(0, 16),
      ...(resync === undefined ? {} : { resync }),
      ...(this.#lastResync === undefined ? {} : { lastResync: this.#lastResync }),
      ...(this.#resyncToken === undefined ? {} : { resyncToken: this.#resyncToken }),
      ...(final === undefined ? {} : { final }),
    };
  }

  #setError(code: string, message: string): void {
    const sinceMs = this.#errors.get(code)?.sinceMs ?? this.#deps.clock.now();
    this.#errors.set(code, { code, message, sinceMs });
    this.#statusSoon = true;
  }

  #clearError(code: string): void {
    if (this.#errors.delete(code)) this.#statusSoon = true;
  }
}
