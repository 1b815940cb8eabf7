/**
 * One conversation with a process server, from Welcome to its end: gives records their LSNs and sends them as far as credit allows,
 * brings questions their answers, and hands on what the process server asks for.
 */
import { FarshoreError } from '../../platform/errors.ts';
import { BarrierVoidError } from '../capture/barrierErrors.ts';
import type { RecordSink } from '../capture/sink.ts';
import type { Connection } from '../wire/connection.ts';
import type { Received } from '../wire/encoder.ts';
import { DATA_PREFIX_SIZE, DATA_RECORDS_MAX } from '../wire/frame.ts';
import { type Configuration, type ControlType, FrameType, type Message } from '../wire/messages.ts';

export type Welcome = Message<typeof FrameType.Welcome>;

export interface SessionHandlers {
  configure: (configuration: Configuration) => void;
  uploaded: (positions: Message<typeof FrameType.Uploaded>) => void;
  prepare: (request: Message<typeof FrameType.BarrierPrepare>) => void;
  acknowledged: (barrier: Message<typeof FrameType.BarrierAcknowledged>) => void;
}

/** The conversation is over; why, is in the message or the cause. `retryAfterMs`: when the process server said so. */
export class SessionEndedError extends FarshoreError {
  readonly reason: string;
  readonly retryAfterMs: number | undefined;

  constructor(options: {
    reason: string;
    message: string;
    retryAfterMs?: number;
    cause?: unknown;
  }) {
    super('SessionEnded', options.message, { cause: options.cause });
    this.reason = options.reason;
    this.retryAfterMs = options.retryAfterMs;
  }
}

interface Waiter<T> {
  resolve: (value: T) => void;
  reject: (error: Error) => void;
}

export class Session implements RecordSink {
  readonly welcome: Welcome;
  readonly batchBytes: number;
  readonly #connection: Connection;
  readonly #saveCaptured: (lsn: bigint) => Promise<void>;
  readonly #peersTold: (peers: readonly string[]) => void;
  readonly #answers = new Map<number, Waiter<Uint8Array>>();
  #freeze: { id: number; waiter: Waiter<void> } | undefined;
  /** The barrier asked for last. */
  #preparedId: number | undefined;
  #uploadedWaiters: { lsn: bigint; waiter: Waiter<void> }[] = [];
  #creditWaiters: Waiter<void>[] = [];
  #credit: number;
  #nextLsn: bigint;
  #nextAsk = 1;
  #uploadedBarrier = 0n;
  #ended: SessionEndedError | undefined;

  constructor(options: {
    connection: Connection;
    welcome: Welcome;
    /** Remembers the highest LSN given, before it is used. */
    saveCaptured: (lsn: bigint) => Promise<void>;
    /** Others would take over now than the Welcome said. */
    peersTold?: (peers: readonly string[]) => void;
  }) {
    this.#connection = options.connection;
    this.welcome = options.welcome;
    this.#saveCaptured = options.saveCaptured;
    this.#peersTold = options.peersTold ?? (() => undefined);
    this.#credit = options.welcome.creditBytes;
    this.#nextLsn = options.welcome.journaledLsn + 1n;
    // Half the window: one batch is on its way while the credit of the one before comes back.
    this.batchBytes = Math.min(
      DATA_RECORDS_MAX,
      Math.floor(options.welcome.creditBytes / 2) - DATA_PREFIX_SIZE,
    );
  }

  get nextLsn(): bigint {
    return this.#nextLsn;
  }

  get ended(): SessionEndedError | undefined {
    return this.#ended;
  }

  async send(batch: { records: Uint8Array; count: number }): Promise<void> {
    const cost = DATA_PREFIX_SIZE + batch.records.length;
    while (this.#credit < cost) await this.#moreCredit();
    if (this.#ended !== undefined) throw this.#ended;
    this.#credit -= cost;
    const firstLsn = this.#nextLsn;
    this.#nextLsn += BigInt(batch.count);
    await this.#saveCaptured(this.#nextLsn - 1n);
    await this.#guard(
      this.#connection.sendData({ firstLsn, count: batch.count, records: [batch.records] }),
    );
  }

  async ask(question: {
    disk: number;
    firstLeaf: number;
    hashes: Uint8Array;
  }): Promise<Uint8Array> {
    if (this.#ended !== undefined) throw this.#ended;
    const askId = this.#nextAsk;
    this.#nextAsk += 1;
    const answer = new Promise<Uint8Array>((resolve, reject) =>
      this.#answers.set(askId, { resolve, reject }),
    );
    answer.catch(() => undefined);
    await this.#guard(this.#connection.sendAsk({ askId, ...question }));
    const codes = await answer;
    if (codes.length !== question.hashes.length / 32)
      throw this.#protocolBroken(`an answer for ${codes.length} leaves`);
    return codes;
  }

  async say<T extends ControlType>(type: T, message: Message<T>): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    await this.#guard(this.#connection.send(type, message));
  }

  /** Says that we could freeze now; resolves when the process server says so too. Rejects with BarrierVoidError when it asks for another. */
  async ready(id: number): Promise<void> {
    if (this.#preparedId !== undefined && this.#preparedId !== id) throw notAsked(id);
    const freeze = new Promise<void>((resolve, reject) => {
      this.#freeze = { id, waiter: { resolve, reject } };
    });
    freeze.catch(() => undefined);
    await this.say(FrameType.BarrierReady, { id });
    await freeze;
  }

  /** Gives the barrier the next LSN and sends it. */
  async deliver(barrier: Omit<Message<typeof FrameType.Barrier>, 'lsn'>): Promise<bigint> {
    if (this.#ended !== undefined) throw this.#ended;
    const lsn = this.#nextLsn;
    this.#nextLsn += 1n;
    await this.#saveCaptured(lsn);
    await this.say(FrameType.Barrier, { ...barrier, lsn });
    return lsn;
  }

  /** Resolves once a barrier at or after this LSN is durable in the vault. */
  uploaded(lsn: bigint): Promise<void> {
    if (this.#uploadedBarrier >= lsn) return Promise.resolve();
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) =>
      this.#uploadedWaiters.push({ lsn, waiter: { resolve, reject } }),
    );
  }

  /** Listens to the end, and says how it came. */
  async listen(handlers: SessionHandlers): Promise<SessionEndedError> {
    try {
      for (;;) {
        const received = await this.#connection.receive();
        if (received === undefined)
          return this.end({
            reason: 'Closed',
            message: 'The process server closed the connection.',
          });
        const end = this.#handle(received, handlers);
        if (end !== undefined) return this.end(end);
      }
    } catch (cause) {
      return this.end(lost(cause));
    }
  }

  /** Ends it, for the first reason given; everybody who waits is told. */
  end(why: ConstructorParameters<typeof SessionEndedError>[0]): SessionEndedError {
    if (this.#ended !== undefined) return this.#ended;
    const ended = new SessionEndedError(why);
    this.#ended = ended;
    for (const waiter of this.#answers.values()) waiter.reject(ended);
    for (const { waiter } of this.#uploadedWaiters) waiter.reject(ended);
    for (const waiter of this.#creditWaiters) waiter.reject(ended);
    this.#freeze?.waiter.reject(ended);
    this.#answers.clear();
    this.#uploadedWaiters = [];
    this.#creditWaiters = [];
    void this.#connection.close();
    return ended;
  }

  #handle(
    received: Received,
    handlers: SessionHandlers,
  ): ConstructorParameters<typeof SessionEndedError>[0] | undefined {
    switch (received.type) {
      case FrameType.Configure:
        if (received.message.peers !== undefined) this.#peersTold(received.message.peers);
        handlers.configure(received.message);
        return undefined;
      case FrameType.Credit:
        this.#credit += received.message.bytes;
        this.#wakeSenders();
        return undefined;
      case FrameType.Answer:
        this.#answers.get(received.answer.askId)?.resolve(received.answer.codes);
        this.#answers.delete(received.answer.askId);
        return undefined;
      case FrameType.Uploaded:
        this.#noteUploaded(received.message.barrierLsn);
        handlers.uploaded(received.message);
        return undefined;
      case FrameType.BarrierPrepare:
        this.#preparedId = received.message.id;
        // It gave the one before up, and will never answer for it.
        if (this.#freeze?.id !== received.message.id)
          this.#freeze?.waiter.reject(notAsked(this.#freeze.id));
        handlers.prepare(received.message);
        return undefined;
      case FrameType.BarrierFreeze:
        if (this.#freeze?.id === received.message.id) this.#freeze.waiter.resolve();
        return undefined;
      case FrameType.BarrierAcknowledged:
        handlers.acknowledged(received.message);
        return undefined;
      case FrameType.Heartbeat:
        return undefined;
      case FrameType.Refused: {
        const { code, message, retryAfterMs } = received.message;
        return { reason: code, message, retryAfterMs };
      }
      default:
        return {
          reason: 'ProtocolBroken',
          message: `The process server sent a message of type ${received.type} out of turn.`,
        };
    }
  }

  #noteUploaded(barrierLsn: bigint): void {
    if (barrierLsn > this.#uploadedBarrier) this.#uploadedBarrier = barrierLsn;
    const done = this.#uploadedWaiters.filter(({ lsn }) => lsn <= this.#uploadedBarrier);
    this.#uploadedWaiters = this.#uploadedWaiters.filter((entry) => !done.includes(entry));
    for (const { waiter } of done) waiter.resolve();
  }

  #moreCredit(): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => this.#creditWaiters.push({ resolve, reject }));
  }

  #wakeSenders(): void {
    const waiters = this.#creditWaiters;
    this.#creditWaiters = [];
    for (const waiter of waiters) waiter.resolve();
  }

  async #guard(sending: Promise<void>): Promise<void> {
    try {
      await sending;
    } catch (cause) {
      // Why the connection is over is what `listen` hears last (a Refused may be among it); here it just is.
      throw this.#ended ?? new SessionEndedError(lost(cause));
    }
  }

  #protocolBroken(problem: string): SessionEndedError {
    return this.end({
      reason: 'ProtocolBroken',
      message: `The process server sent ${problem}.`,
    });
  }
}

function lost(cause: unknown): ConstructorParameters<typeof SessionEndedError>[0] {
  const message = cause instanceof Error ? cause.message : String(cause);
  return { reason: 'ConnectionLost', message, cause };
}

/** What a Hello was answered with. */
export type Greeting =
  | { outcome: 'welcome'; welcome: Welcome }
  | { outcome: 'redirect'; endpoints: string[] }
  | { outcome: 'refused'; code: string; message: string; retryAfterMs: number };

/** Says Hello and waits for the answer; heartbeats may come first. Rejects with what ended the connection. */
export async function greet(
  connection: Connection,
  hello: Message<typeof FrameType.Hello>,
): Promise<Greeting> {
  await connection.send(FrameType.Hello, hello);
  for (;;) {
    const received = await connection.receive();
    switch (received?.type) {
      case FrameType.Heartbeat:
        continue;
      case FrameType.Welcome:
        return { outcome: 'welcome', welcome: received.message };
      case FrameType.Redirect:
        return { outcome: 'redirect', endpoints: received.message.endpoints };
      case FrameType.Refused:
        return { outcome: 'refused', ...received.message };
      default:
        throw new SessionEndedError({
          reason: 'ProtocolBroken',
          message: 'The process server ended the connection without an answer to Hello.',
        });
    }
  }
}

function notAsked(id: number): BarrierVoidError {
  return new BarrierVoidError(
    'NotAsked',
    `The process server gave barrier ${id} up before we were ready, and asks for another one.`,
  );
}
