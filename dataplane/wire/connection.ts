/**
 * One conversation over a channel, the same at both ends: the agent makes one around the channel that it connected, the process
 * server around the one that it accepted.
 *
 * A connection ends once, for one reason: an orderly end by either side, a WireError (the peer broke the protocol, went silent, or
 * stopped taking bytes) or a ChannelError (the transport broke). After that `receive` and `send` reject with that reason.
 */
import type { Channel, ChannelPeer, Clock } from '../../platform/ports.ts';
import { FrameDecoder } from './decoder.ts';
import {
  type Answer,
  type Ask,
  decodeMessage,
  encodeAnswer,
  encodeAsk,
  encodeControl,
  encodeData,
  type Received,
} from './encoder.ts';
import { WireError } from './errors.ts';
import { type ControlType, FrameType, type Message } from './messages.ts';

export const IDLE_TIMEOUT_MS = 30_000;
/** How often silence is looked for; what a timeout may be late by. */
const WATCH_INTERVAL_MS = 2_500;

const enrolmentFromAgent: readonly FrameType[] = [FrameType.EnrolBegin, FrameType.EnrolRequest];

const sessionFromAgent: readonly FrameType[] = [
  FrameType.Data,
  FrameType.Ask,
  FrameType.BarrierReady,
  FrameType.Barrier,
  FrameType.BarrierVoided,
  FrameType.AgentStatus,
];

const fromProcessServer: readonly FrameType[] = [
  FrameType.Welcome,
  FrameType.Redirect,
  FrameType.Refused,
  FrameType.Configure,
  FrameType.Credit,
  FrameType.Uploaded,
  FrameType.Answer,
  FrameType.BarrierPrepare,
  FrameType.BarrierFreeze,
  FrameType.BarrierAcknowledged,
  FrameType.Heartbeat,
  FrameType.EnrolNonce,
  FrameType.EnrolAnswer,
];

/**
 * What a peer may send, by its role. A stranger (everybody, until Welcome) is held to the two enrolment messages and Hello: nothing
 * large is ever allocated for somebody who may open as many connections as he likes.
 */
export const framesFrom = {
  stranger: new Set<FrameType>([...enrolmentFromAgent, FrameType.Hello]),
  agent: new Set<FrameType>(sessionFromAgent),
  processServer: new Set<FrameType>(fromProcessServer),
} as const;

export interface ConnectionOptions {
  channel: Channel;
  clock: Clock;
  /** `framesFrom.agent`, …: other frames end the connection with FrameUnexpected. */
  accepts: ReadonlySet<FrameType>;
  /** How long the peer may be silent while we listen, and refuse to take what we send. Default 30 s. */
  idleTimeoutMs?: number;
  /** The last frame for a peer that broke the protocol, so that it can say why it was dropped. */
  farewell?: (error: WireError) => Uint8Array[];
}

export class Connection {
  readonly peer: ChannelPeer;
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #idleTimeoutMs: number;
  readonly #farewell: ((error: WireError) => Uint8Array[]) | undefined;
  readonly #decoder: FrameDecoder;
  #accepts: ReadonlySet<FrameType>;
  readonly #arrived: Received[] = [];
  readonly #watch = new AbortController();
  #ended = false;
  #failure: Error | undefined;
  /** Monotonic moments since when we wait for the peer; undefined while we do not. */
  #listeningSince: number | undefined;
  #sendingSince: number | undefined;
  #sends = 0;
  #receivedBytes = 0;
  #sentBytes = 0;

  constructor(options: ConnectionOptions) {
    this.peer = options.channel.peer;
    this.#channel = options.channel;
    this.#clock = options.clock;
    this.#idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
    this.#farewell = options.farewell;
    this.#accepts = options.accepts;
    this.#decoder = new FrameDecoder({ accepts: (type) => this.#accepts.has(type) });
    void this.#watchForSilence();
  }

  /** Bytes of frames received and sent so far. */
  get traffic(): { received: number; sent: number } {
    return { received: this.#receivedBytes, sent: this.#sentBytes };
  }

  /** Why the connection failed; undefined while it lives, and after an orderly end. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** From now on the peer may send these: it has proven who it is. */
  accept(frames: ReadonlySet<FrameType>): void {
    this.#accepts = frames;
  }

  /** Sends a control message. Resolves when there is room for more. */
  send<T extends ControlType>(type: T, message: Message<T>): Promise<void> {
    return this.#write(encodeControl(type, message));
  }

  /** Sends records, which must not change until this resolves. The caller minds its credit. */
  sendData(batch: {
    firstLsn: bigint;
    count: number;
    records: readonly Uint8Array[];
  }): Promise<void> {
    return this.#write(encodeData(batch));
  }

  sendAsk(ask: Ask): Promise<void> {
    return this.#write(encodeAsk(ask));
  }

  sendAnswer(answer: Answer): Promise<void> {
    return this.#write(encodeAnswer(answer));
  }

  /**
   * The next message; `undefined` once the peer ended the conversation between two frames, or we did. One call at a time: while
   * nobody calls it, nothing is taken from the network.
   */
  async receive(): Promise<Received | undefined> {
    for (;;) {
      const next = this.#arrived.shift();
      if (next !== undefined) return next;
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return undefined;
      try {
        await this.#readMore();
      } catch (error) {
        if (this.#ended && this.#failure === undefined) return undefined;
        throw this.fail(error instanceof Error ? error : new Error(String(error)));
      }
    }
  }

  /** Ends the conversation in order: what was sent before still arrives. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#end();
    await this.#channel.close();
  }

  /** Ends the conversation in order with a last message. Does not wait for it to arrive; never rejects. */
  closeWith<T extends ControlType>(type: T, message: Message<T>): Promise<void> {
    if (this.#ended) return Promise.resolve();
    this.#end();
    return this.#partWith(encodeControl(type, message));
  }

  /** Ends the conversation at once, for this reason; returns the reason that counts (the first). */
  fail(reason: Error): Error {
    if (this.#ended) return this.#failure ?? reason;
    this.#failure = reason;
    this.#end();
    if (reason instanceof WireError && this.#farewell !== undefined && !isSilence(reason))
      void this.#partWith(this.#farewell(reason));
    else this.#channel.destroy();
    return reason;
  }

  /** Not waiting for the write: `close` gives the peer a few seconds to take it, a peer that reads nothing would take for ever. */
  async #partWith(parts: readonly Uint8Array[]): Promise<void> {
    try {
      await Promise.all([this.#channel.write(parts), this.#channel.close()]);
    } catch {
      this.#channel.destroy();
    }
  }

  async #readMore(): Promise<void> {
    this.#listeningSince = this.#clock.monotonic();
    let chunk: Uint8Array | undefined;
    try {
      chunk = await this.#channel.read();
    } finally {
      this.#listeningSince = undefined;
    }
    if (chunk === undefined) {
      this.#decoder.end();
      await this.close();
      return;
    }
    this.#receivedBytes += chunk.length;
    for (const frame of this.#decoder.push(chunk)) this.#arrived.push(decodeMessage(frame));
  }

  async #write(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#ended)
      throw new WireError(
        'ConnectionClosed',
        `The connection with ${this.peer.address} is closed.`,
      );
    this.#sends += 1;
    this.#sendingSince ??= this.#clock.monotonic();
    try {
      await this.#channel.write(parts);
      for (const part of parts) this.#sentBytes += part.length;
    } catch (error) {
      // A peer that refuses us closes after saying why: keep reading what it said; only `receive` judges the end.
      throw this.#failure ?? error;
    } finally {
      this.#sends -= 1;
      this.#sendingSince = this.#sends === 0 ? undefined : this.#clock.monotonic();
    }
  }

  #end(): void {
    this.#ended = true;
    this.#watch.abort();
  }

  async #watchForSilence(): Promise<void> {
    const interval = Math.min(WATCH_INTERVAL_MS, this.#idleTimeoutMs);
    try {
      while (!this.#ended) {
        await this.#clock.sleep(interval, this.#watch.signal);
        this.#judgeSilence();
      }
    } catch {
      // Aborted: the connection ended.
    }
  }

  #judgeSilence(): void {
    if (this.#ended) return;
    const now = this.#clock.monotonic();
    const seconds = this.#idleTimeoutMs / 1000;
    if (this.#listeningSince !== undefined && now - this.#listeningSince >= this.#idleTimeoutMs)
      this.fail(
        new WireError(
          'PeerSilent',
          `Nothing was heard from ${this.peer.address} for ${seconds} s.`,
        ),
      );
    else if (this.#sendingSince !== undefined && now - this.#sendingSince >= this.#idleTimeoutMs)
      this.fail(
        new WireError(
          'PeerStuck',
          `${this.peer.address} did not take what was sent to it for ${seconds} s.`,
        ),
      );
  }
}

/** A peer that does not listen is not told anything. */
function isSilence(error: WireError): boolean {
  return error.code === 'PeerSilent' || error.code === 'PeerStuck';
}
