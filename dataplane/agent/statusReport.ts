/** What an agent tells of itself: every few seconds, and at once when something changed that others wait for. */
import type { Clock } from '../../platform/ports.ts';
import { FrameType, type Message } from '../wire/messages.ts';
import type { ErrorList } from './errorList.ts';
import type { HeldMachine } from './heldMachine.ts';
import type { Loss, MachineCapture } from './machineCapture.ts';
import type { AgentMemory } from './memory.ts';
import type { ResyncWork } from './resyncWork.ts';
import type { Session } from './session.ts';

const STATUS_MS = 5_000;
const ERRORS_MAX = 16;

export type AgentStatus = Message<typeof FrameType.AgentStatus>;

export interface StatusReportDeps {
  clock: Clock;
  capture: MachineCapture;
  memory: AgentMemory;
  resync: ResyncWork;
  held: HeldMachine;
  errors: ErrorList;
}

export class StatusReport {
  readonly #deps: StatusReportDeps;
  #due = false;

  constructor(deps: StatusReportDeps) {
    this.#deps = deps;
  }

  /** It should not wait for its turn. */
  get isDue(): boolean {
    return this.#due;
  }

  hasten(): void {
    this.#due = true;
  }

  async say(session: Session): Promise<void> {
    this.#due = false;
    await session.say(FrameType.AgentStatus, this.status());
  }

  /** Again and again, until the session ends or the signal aborts; never rejects. */
  async repeat(session: Session, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    try {
      while (session.ended === undefined) {
        await this.say(session);
        await clock.sleep(STATUS_MS, signal);
      }
    } catch {
      // The session ended, which `listen` tells, or we stop.
    }
  }

  status(): AgentStatus {
    const { clock, capture, memory, resync, held, errors } = this.#deps;
    const progress = resync.report();
    const final = held.claim;
    const sinceMs = clock.now();
    return {
      capturedLsn: memory.capturedLsn,
      disks: capture.reports(),
      dirtyBytes: capture.tracking?.dirtyBytes ?? 0,
      errors: [
        ...errors.all,
        ...capture.errors.map((error) => ({ ...error, sinceMs })),
        ...this.#losses().map(({ reason, detail }) => ({ code: reason, message: detail, sinceMs })),
      ].slice(0, ERRORS_MAX),
      ...(progress === undefined ? {} : { resync: progress }),
      ...(capture.loss === undefined ? {} : { loss: capture.loss }),
      ...(resync.last === undefined ? {} : { lastResync: resync.last }),
      ...(memory.resyncToken === undefined ? {} : { resyncToken: memory.resyncToken }),
      ...(final === undefined ? {} : { final }),
    };
  }

  /** Lost tracking stays an error until its resync has ended: what was lost, and where, should be looked at. */
  #losses(): Loss[] {
    const { capture, resync } = this.#deps;
    const { loss } = capture;
    if (loss !== undefined) return loss.reason === 'Initial' ? [] : [loss];
    return resync.cause?.reason === 'TrackingLost' ? [resync.cause] : [];
  }
}
