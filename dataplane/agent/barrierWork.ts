/** The barrier that the process server asks for: run, or declined; and what follows for the machine. */
import { errorMessage } from '../../platform/errors.ts';
import type {
  Clock,
  FilesystemFreezer,
  HookRunner,
  Logger,
  SourceMachine,
} from '../../platform/ports.ts';
import { type BarrierLimits, barrierLimits, runBarrier } from '../capture/barrier.ts';
import { BarrierVoidError } from '../capture/barrierErrors.ts';
import { ReadRate } from '../capture/readRate.ts';
import type { Tracking } from '../capture/tracking.ts';
import { FrameType, type Message } from '../wire/messages.ts';
import type { ErrorList } from './errorList.ts';
import type { HeldMachine } from './heldMachine.ts';
import type { AgentMemory } from './memory.ts';
import type { QuietLog } from './quietLog.ts';
import { type Session, SessionEndedError } from './session.ts';

type Prepare = Message<typeof FrameType.BarrierPrepare>;

export interface BarrierWorkDeps {
  clock: Clock;
  freezer: FilesystemFreezer;
  hooks: HookRunner;
  machine: Pick<SourceMachine, 'giveWay'>;
  quietLog: QuietLog;
  limits?: BarrierLimits;
  log: Logger;
  memory: AgentMemory;
  held: HeldMachine;
  errors: ErrorList;
}

export class BarrierWork {
  readonly #deps: BarrierWorkDeps;
  readonly #readRate: ReadRate;
  #request: Prepare | undefined;
  #madeMs: number | undefined;

  constructor(deps: BarrierWorkDeps) {
    this.#deps = deps;
    this.#readRate = new ReadRate(deps.clock);
  }

  get isAskedFor(): boolean {
    return this.#request !== undefined;
  }

  /** Takes the place of one that was not begun. */
  ask(request: Prepare): void {
    this.#request = request;
  }

  acknowledged(lsn: bigint): void {
    this.#deps.memory.acknowledgedBarrierLsn = lsn;
    this.#deps.errors.clear('BarrierVoided');
  }

  /** The session that asked is over. */
  forget(): void {
    this.#request = undefined;
  }

  /**
   * Resolves with whether there is a barrier now; when it is void, the process server was told why. Rejects when the session ended,
   * and with what is more than a void barrier (tracking lost, a disk that fails).
   */
  async run(tracking: Tracking, session: Session): Promise<boolean> {
    const request = this.#request;
    if (request === undefined) return false;
    this.#request = undefined;
    const { clock, held, memory, log } = this.#deps;
    try {
      const { lsn, freezeMs } = await this.#make(request, tracking, session);
      log.debug({ lsn: String(lsn), freezeMs }, 'Barrier');
      this.#madeMs = clock.monotonic();
      if (request.final === undefined) await memory.save();
      else {
        for (const disk of tracking.disks) disk.dirt.allUploaded();
        await held.hold();
      }
      return true;
    } catch (error) {
      await this.#failed(request, error, session);
      return false;
    }
  }

  /** Nothing to freeze for now, and the process server must not wait for us. */
  async decline(session: Session): Promise<void> {
    const request = this.#request;
    if (request === undefined) return;
    this.#request = undefined;
    await session.say(FrameType.BarrierVoided, {
      id: request.id,
      code: 'CaptureFailed',
      message:
        'The machine can make no barrier now: it is paused, waits for a resync, or is frozen for a failover.',
    });
  }

  async #make(
    request: Prepare,
    tracking: Tracking,
    session: Session,
  ): Promise<{ lsn: bigint; freezeMs: number }> {
    const { clock, freezer, hooks, machine, quietLog, limits, log, memory, held } = this.#deps;
    const hookSpec = memory.configuration?.hooks;
    const sinceLastMs = this.#madeMs === undefined ? undefined : clock.monotonic() - this.#madeMs;
    return await runBarrier(
      {
        consistency: request.consistency,
        final: request.final !== undefined,
        ...(sinceLastMs === undefined ? {} : { sinceLastMs }),
        ...(hookSpec === undefined ? {} : { hooks: hookSpec }),
      },
      {
        tracking,
        sink: session,
        clock,
        freezer,
        hooks,
        machine,
        readRate: this.#readRate,
        limits: limits ?? barrierLimits,
        log,
        ready: () => session.ready(request.id),
        deliver: (barrier) => deliver(request.id, { ...barrier, tracking, session }),
        uploaded: (barrierLsn) => session.uploaded(barrierLsn),
        aboutToHold: async (mountPoints) => {
          if (request.final !== undefined) await held.aboutToHold(request.final, mountPoints);
        },
        frozen: (frozen) => quietLog.setQuiet(frozen),
      },
    );
  }

  async #failed(request: Prepare, error: unknown, session: Session): Promise<void> {
    const { held, log, errors } = this.#deps;
    if (!held.isHeld) await held.notHeld();
    if (error instanceof SessionEndedError) throw error;
    const code = error instanceof BarrierVoidError ? error.code : 'CaptureFailed';
    const message = errorMessage(error);
    log.warn({ code, error }, 'A barrier is void');
    errors.set('BarrierVoided', `${code}: ${message}`);
    await session.say(FrameType.BarrierVoided, { id: request.id, code, message });
    if (!(error instanceof BarrierVoidError)) throw error;
  }
}

async function deliver(
  id: number,
  barrier: { freezeMs: number; tracking: Tracking; session: Session },
): Promise<bigint> {
  const { disks } = barrier.tracking;
  const lsn = await barrier.session.deliver({
    id,
    freezeMs: barrier.freezeMs,
    disks: disks.map(({ index, identity }) => ({ index, sizeBytes: identity.sizeBytes })),
  });
  for (const disk of disks) disk.dirt.barrierSent(lsn);
  return lsn;
}
