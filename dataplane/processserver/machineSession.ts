/**
 * One connected agent, from Welcome to the end. Data is appended to the machine's journal as it arrives, without waiting for the
 * append before; credit comes back as appends become durable, so a connection never holds more than its window in memory, and a
 * cache that is full stops the agent by itself.
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger } from '../../platform/ports.ts';
import type { JournalPositions, MachineJournal } from '../journal/machineJournal.ts';
import { releaseMemory } from '../journal/segmentCodec.ts';
import { type Connection, framesFrom } from '../wire/connection.ts';
import type { Ask, DataBatch, Received } from '../wire/encoder.ts';
import { WireError } from '../wire/errors.ts';
import { DATA_PREFIX_SIZE } from '../wire/frame.ts';
import {
  type Configuration,
  type ControlType,
  FrameType,
  type Message,
  RefusalCode,
} from '../wire/messages.ts';
import { BarrierConversation, type BarrierHost } from './barrierConversation.ts';
import type { CreditWindow } from './creditPool.ts';
import { fencedRefusal, type Refusal, refusal, refusalOfError } from './refusals.ts';

const TICK_MS = 500;
const HEARTBEAT_MS = 5_000;
/** Asks that an agent may have unanswered. */
export const ASKS_MAX = 8;

export type AgentStatus = Message<typeof FrameType.AgentStatus>;

/** What the session asks of the machine that it belongs to. */
export interface SessionHost extends BarrierHost {
  configuration(): Configuration;
  /** Reasons for which a resync must not begin now; told with the configuration. */
  resyncWaits(): readonly string[];
  /** Where the agent may ask when this process server is lost. */
  peers(): readonly string[];
  /**
   * Resolves before the next message is read: sizes of disks must count before Data that depends on them. `appended` resolves once
   * what came before is journaled (with a full cache that takes long, so only who needs it waits).
   */
  agentReported(status: AgentStatus, appended: () => Promise<void>): Promise<void>;
  heard(): void;
  /** Data is about to be journaled, from an agent that has been told of this cache. */
  dataCame(): void;
}

export interface MachineSessionOptions {
  connection: Connection;
  journal: MachineJournal;
  host: SessionHost;
  clock: Clock;
  logger: Logger;
  protocol: number;
  cacheId: string;
  credit: CreditWindow;
}

/** How a session ended: by whom and why. */
export type SessionEnd =
  | { by: 'Agent' }
  | { by: 'Us'; refusal: Refusal }
  | { by: 'Failure'; error: Error };

export class MachineSession {
  readonly #options: MachineSessionOptions;
  readonly #barriers: BarrierConversation;
  readonly #stop = new AbortController();
  readonly #appends = new Set<Promise<void>>();
  #asks: Promise<void> = Promise.resolve();
  #asksWaiting = 0;
  #creditLeft: number;
  #creditOwed = 0;
  #inFlight = 0;
  #receivedBytes = 0;
  #resyncing = false;
  #ending: Refusal | undefined;
  #uploaded: JournalPositions | undefined;
  #sendingUploaded = false;
  #waitsTold = '';
  /** Resolves when the session is over and none of its appends is under way. */
  readonly finished: Promise<void>;
  readonly #finish: () => void;

  constructor(options: MachineSessionOptions) {
    this.#options = options;
    this.#creditLeft = options.credit.first;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.finished = promise;
    this.#finish = resolve;
    this.#barriers = new BarrierConversation({
      clock: options.clock,
      journal: options.journal,
      host: options.host,
      send: (type, message) => this.#say(type, message),
    });
  }

  /** Bytes of Data received. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Serves the agent until the end, after `prepare`; never rejects. */
  async run(prepare: () => Promise<void>): Promise<SessionEnd> {
    const { connection, journal } = this.#options;
    const stopListening = journal.onUploaded((positions) => this.#pushUploaded(positions));
    try {
      await prepare();
      await this.#welcome();
      const ticking = this.#tick();
      try {
        await this.#listen();
      } finally {
        this.#stop.abort();
        await ticking;
      }
      return this.#ending === undefined ? { by: 'Agent' } : { by: 'Us', refusal: this.#ending };
    } catch (error) {
      const failure = connection.failure ?? asError(error);
      if (!connection.ended) await connection.closeWith(FrameType.Refused, refusalOfError(failure));
      return this.#ending === undefined
        ? { by: 'Failure', error: failure }
        : { by: 'Us', refusal: this.#ending };
    } finally {
      this.#stop.abort();
      stopListening();
      this.#barriers.end();
      await Promise.allSettled([...this.#appends, this.#asks]);
      this.#options.credit.close();
      this.#finish();
    }
  }

  /** Ends the session: the agent is told why, nothing more is taken from it. */
  end(reason: Refusal): void {
    if (this.#ending !== undefined) return;
    this.#ending = reason;
    this.#stop.abort();
    void this.#options.connection.closeWith(FrameType.Refused, reason);
  }

  /** The assignment, or who would take over, changed: the agent is told. */
  configurationChanged(): void {
    const { host } = this.#options;
    this.#waitsTold = this.#waits;
    this.#say(FrameType.Configure, { ...host.configuration(), peers: [...host.peers()] });
  }

  get #waits(): string {
    return this.#options.host.resyncWaits().join();
  }

  async #welcome(): Promise<void> {
    const { connection, journal, host, protocol, cacheId, credit } = this.#options;
    const positions = journal.positions();
    const resync = journal.resync();
    this.#waitsTold = this.#waits;
    connection.accept(framesFrom.agent);
    await connection.send(FrameType.Welcome, {
      protocol,
      writerEpoch: journal.writerEpoch,
      cacheId,
      journaledLsn: positions.journaledLsn,
      uploadedLsn: positions.uploadedLsn,
      lastBarrierLsn: positions.lastBarrierLsn,
      resync,
      creditBytes: credit.first,
      peers: [...host.peers()],
      configuration: host.configuration(),
    });
    this.#pushUploaded(positions);
  }

  async #listen(): Promise<void> {
    for (;;) {
      const received = await this.#options.connection.receive();
      if (received === undefined || this.#ending !== undefined) return;
      this.#options.host.heard();
      await this.#handle(received);
    }
  }

  async #handle(received: Received): Promise<void> {
    try {
      switch (received.type) {
        case FrameType.Data:
          this.#append(received.data);
          return;
        case FrameType.Ask:
          this.#ask(received.ask);
          return;
        case FrameType.AgentStatus:
          await this.#options.host.agentReported(received.message, async () => {
            await Promise.allSettled(this.#appends);
          });
          return;
        case FrameType.BarrierReady:
          this.#barriers.ready(received.message);
          return;
        case FrameType.Barrier:
          await this.#barriers.barrier(received.message);
          return;
        case FrameType.BarrierVoided:
          this.#barriers.voided(received.message);
          return;
        default:
          throw new WireError('FrameUnexpected', 'The agent sent a message out of turn.');
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  #append(batch: DataBatch): void {
    const cost = DATA_PREFIX_SIZE + batch.records.length;
    if (cost > this.#creditLeft)
      throw new WireError(
        'CreditExceeded',
        `The agent sent ${cost} bytes of Data with credit for ${this.#creditLeft}.`,
      );
    this.#creditLeft -= cost;
    this.#inFlight += cost;
    this.#receivedBytes += cost;
    this.#options.host.dataCame();
    const appended = this.#options.journal
      .append(batch)
      .then(() => {
        releaseMemory(batch.records);
        this.#returnCredit(cost);
        this.#noteResync();
      })
      .catch((error: unknown) => this.#failed(error))
      .finally(() => this.#appends.delete(appended));
    this.#appends.add(appended);
  }

  /** The end of a resync is followed by a barrier at once. */
  #noteResync(): void {
    const { required } = this.#options.journal.resync();
    if (this.#resyncing && !required) this.#barriers.tick();
    this.#resyncing = required;
  }

  #returnCredit(bytes: number): void {
    this.#inFlight -= bytes;
    this.#creditOwed += bytes;
    // In few messages; but whoever waits for all of it must get all of it.
    const { credit } = this.#options;
    if (this.#creditOwed < credit.first / 8 && this.#inFlight > 0) return;
    const tight = this.#creditLeft < credit.bytes / 4;
    const granted = credit.freed(this.#creditOwed, { tight });
    this.#creditOwed = 0;
    if (granted === 0) return;
    this.#creditLeft += granted;
    this.#say(FrameType.Credit, { bytes: granted });
  }

  #ask(ask: Ask): void {
    if (this.#asksWaiting >= ASKS_MAX)
      throw new WireError('CreditExceeded', `The agent has ${ASKS_MAX} Asks unanswered.`);
    this.#asksWaiting += 1;
    const codes = this.#options.journal.ask(ask);
    // Answered in order, one after the other.
    this.#asks = Promise.all([this.#asks, codes])
      .then(([, answer]) =>
        this.#options.connection.sendAnswer({ askId: ask.askId, codes: answer }),
      )
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#asksWaiting -= 1;
      });
  }

  async #tick(): Promise<void> {
    const { clock } = this.#options;
    let heartbeatMs = clock.monotonic();
    try {
      while (!this.#stop.signal.aborted) {
        this.#barriers.tick();
        // The window in which resyncs may begin has opened or closed.
        if (this.#waits !== this.#waitsTold) this.configurationChanged();
        if (clock.monotonic() - heartbeatMs >= HEARTBEAT_MS) {
          heartbeatMs = clock.monotonic();
          this.#say(FrameType.Heartbeat, { timeMs: clock.now() });
        }
        await clock.sleep(TICK_MS, this.#stop.signal);
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#failed(error);
    }
  }

  /** One message at a time; while it is on its way, only the newest positions wait. */
  #pushUploaded(positions: JournalPositions): void {
    this.#uploaded = positions;
    if (this.#sendingUploaded) return;
    this.#sendingUploaded = true;
    void this.#sendUploaded();
  }

  async #sendUploaded(): Promise<void> {
    try {
      for (let next = this.#uploaded; next !== undefined; next = this.#uploaded) {
        this.#uploaded = undefined;
        await this.#options.connection.send(FrameType.Uploaded, {
          uploadedLsn: next.uploadedLsn,
          barrierLsn: next.uploadedBarrier?.lsn ?? 0n,
        });
      }
    } catch {
      // The connection is over; its end is judged by `receive`.
    } finally {
      this.#sendingUploaded = false;
    }
  }

  #say<T extends ControlType>(type: T, message: Message<T>): void {
    // A send that fails means that the connection is over, which `receive` tells with the reason.
    this.#options.connection.send(type, message).catch(() => undefined);
  }

  #failed(error: unknown): void {
    if (this.#ending !== undefined || this.#options.connection.ended) return;
    if (error instanceof WireError) {
      this.#options.connection.fail(error);
      return;
    }
    this.#options.logger.warn(
      { code: errorCode(error), error },
      `The session is ended: ${errorMessage(error)}`,
    );
    const fenced = this.#options.journal.fenced();
    this.end(fenced === undefined ? refusalOfError(error) : fencedRefusal(fenced));
  }
}

/** For a machine that is served by a newer connection. */
export function superseded(): Refusal {
  return refusal(
    RefusalCode.Superseded,
    'The machine has connected again. If that was not you, two agents run with the same certificate: remove one.',
    'later',
  );
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
