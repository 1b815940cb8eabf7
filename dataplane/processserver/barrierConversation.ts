/** One session's barriers: asked for by the schedule, carried through Prepare → Ready → Freeze → Barrier, or voided. */
import type { Clock } from '../../platform/ports.ts';
import type { MachineJournal } from '../journal/machineJournal.ts';
import type { Barrier } from '../journal/record.ts';
import { WireError } from '../wire/errors.ts';
import { type ControlType, FrameType, type Message } from '../wire/messages.ts';
import {
  afterBarrier,
  afterResyncBegan,
  afterVoided,
  type BarrierHistory,
  type BarrierPolicy,
  decideBarrier,
} from './barrierSchedule.ts';

/** A machine that does not get ready for so long (its passes never end) is asked again. */
const PREPARE_MAX_MS = 3_600_000;
/** From the freeze to the barrier: what was read while frozen has to be sent. */
const FREEZE_MAX_MS = 1_800_000;

/** What outlives a session: kept by the machine. */
export interface BarrierBook {
  history: BarrierHistory;
  count: number;
  voided: number;
  lastFreezeMs: number;
  maxFreezeMs: number;
  lastVoid: string | undefined;
  /** Time of the newest barrier that was asked for: none goes back behind it. */
  lastTimeMs: number;
  nextId: number;
}

export interface BarrierHost {
  readonly book: BarrierBook;
  situation(): {
    policy: BarrierPolicy;
    paused: boolean;
    final: 'NotWanted' | 'Wanted' | 'Done';
    finalSync: { failover: string; powerOff: boolean } | undefined;
    /** A disk that can't be read now: no barrier could hold it. */
    diskMissing: boolean;
  };
  /** A barrier is durable in the cache. Resolves when what must outlive a restart is durable too. */
  barrierTaken(taken: { lsn: bigint; barrier: Barrier }): Promise<void>;
  /** A final barrier that was taken is void after all: the machine could not be kept frozen. */
  finalVoided(): void;
}

interface Pending {
  id: number;
  consistency: 'Crash' | 'App';
  final: { failover: string } | undefined;
  askedMs: number;
  frozen: { timeMs: number; sinceMs: number } | undefined;
}

export class BarrierConversation {
  readonly #clock: Clock;
  readonly #journal: MachineJournal;
  readonly #host: BarrierHost;
  readonly #send: <T extends ControlType>(type: T, message: Message<T>) => void;
  #pending: Pending | undefined;
  /** The final barrier that was taken last; until its agent holds the machine it may still call it void. */
  #final: Pending | undefined;
  #wasResync: boolean;

  constructor(options: {
    clock: Clock;
    journal: MachineJournal;
    host: BarrierHost;
    send: <T extends ControlType>(type: T, message: Message<T>) => void;
  }) {
    this.#clock = options.clock;
    this.#journal = options.journal;
    this.#host = options.host;
    this.#send = options.send;
    this.#wasResync = false;
    this.#noticeResync();
  }

  /** Asks for a barrier when one is due. Throws WireError when a frozen machine never sent its barrier. */
  tick(): void {
    this.#noticeResync();
    this.#giveUpStalled();
    const nowMs = this.#clock.monotonic();
    const { policy, paused, final, finalSync, diskMissing } = this.#host.situation();
    const decision = decideBarrier(this.#host.book.history, {
      nowMs,
      policy,
      pending: this.#pending !== undefined,
      paused: paused || diskMissing,
      resync: this.#wasResync,
      final,
    });
    if (decision.ask === 'Nothing') return;
    const id = this.#host.book.nextId;
    this.#host.book.nextId += 1;
    const wanted = decision.final ? finalSync : undefined;
    this.#pending = {
      id,
      consistency: decision.ask,
      final: wanted === undefined ? undefined : { failover: wanted.failover },
      askedMs: nowMs,
      frozen: undefined,
    };
    this.#send(FrameType.BarrierPrepare, { id, consistency: decision.ask, final: wanted });
  }

  ready(message: Message<typeof FrameType.BarrierReady>): void {
    const pending = this.#pending;
    // An answer to a barrier that was given up meanwhile.
    if (pending === undefined || pending.id !== message.id || pending.frozen !== undefined) return;
    const timeMs = Math.max(this.#clock.now(), this.#host.book.lastTimeMs + 1);
    this.#host.book.lastTimeMs = timeMs;
    pending.frozen = { timeMs, sinceMs: this.#clock.monotonic() };
    this.#send(FrameType.BarrierFreeze, { id: message.id, timeMs });
  }

  /** Journals the barrier and acknowledges it. Throws JournalError, WireError. */
  async barrier(message: Message<typeof FrameType.Barrier>): Promise<void> {
    const pending = this.#pending;
    if (pending?.id !== message.id || pending.frozen === undefined)
      throw new WireError(
        'FrameUnexpected',
        `The agent sent barrier ${message.id}, which nobody asked it to freeze for.`,
      );
    const barrier = await this.#journal.barrier({
      lsn: message.lsn,
      timeMs: pending.frozen.timeMs,
      consistency: pending.consistency,
      disks: message.disks,
      freezeMs: message.freezeMs,
      ...(pending.final === undefined ? {} : { final: pending.final }),
    });
    await this.#host.barrierTaken({ lsn: message.lsn, barrier });
    this.#pending = undefined;
    this.#final = pending.final === undefined ? undefined : pending;
    const { book } = this.#host;
    const { askedMs, consistency } = pending;
    const nowMs = this.#clock.monotonic();
    const { policy } = this.#host.situation();
    book.history = afterBarrier(book.history, { askedMs, nowMs, consistency, policy });
    book.count += 1;
    book.lastFreezeMs = message.freezeMs;
    book.maxFreezeMs = Math.max(book.maxFreezeMs, message.freezeMs);
    book.lastTimeMs = Math.max(book.lastTimeMs, barrier.timeMs);
    this.#send(FrameType.BarrierAcknowledged, { id: message.id, lsn: message.lsn });
  }

  voided(message: Message<typeof FrameType.BarrierVoided>): void {
    const why = `${message.code}: ${message.message}`;
    if (this.#final?.id === message.id) {
      this.#void(this.#final, why);
      this.#final = undefined;
      this.#host.finalVoided();
    } else if (this.#pending?.id === message.id) this.#void(this.#pending, why);
  }

  /** The session ends: a barrier under way will never come. */
  end(): void {
    if (this.#pending === undefined) return;
    this.#void(this.#pending, 'ConnectionLost: the connection with the agent ended during it');
  }

  #void(pending: Pending, why: string): void {
    this.#pending = undefined;
    const { book } = this.#host;
    book.history = afterVoided(book.history, {
      nowMs: this.#clock.monotonic(),
      consistency: pending.consistency,
      policy: this.#host.situation().policy,
    });
    book.voided += 1;
    book.lastVoid = why.slice(0, 1_000);
  }

  #noticeResync(): void {
    const { required } = this.#journal.resync();
    if (required && !this.#wasResync)
      this.#host.book.history = afterResyncBegan(this.#host.book.history);
    this.#wasResync = required;
  }

  #giveUpStalled(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    const now = this.#clock.monotonic();
    if (pending.frozen === undefined) {
      if (now - pending.askedMs >= PREPARE_MAX_MS)
        this.#void(pending, 'NeverReady: writes came faster than they could be sent for an hour');
      return;
    }
    if (now - pending.frozen.sinceMs >= FREEZE_MAX_MS)
      throw new WireError(
        'FrameUnexpected',
        `The agent was asked to freeze for barrier ${pending.id} half an hour ago and sent neither the barrier nor that it is void.`,
      );
  }
}
