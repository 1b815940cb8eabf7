/** Two ends of a channel in memory, with faults to inject. Passes test/conformance/channel.ts. */
import { ChannelError } from '../../platform/channelErrors.ts';
import type { Channel, ChannelPeer } from '../../platform/ports.ts';

/** Bytes that one direction holds before `write` waits for the reader. */
const WINDOW = 256 * 1024;
/** How long a closed end waits, in real time, for the peer to take what was written. */
const LINGER_MS = 5_000;

export interface FakeChannel extends Channel {
  /** Bytes on their way to the peer pass through here first; return fewer, more or other bytes. */
  tamper: ((bytes: Uint8Array) => Uint8Array) | undefined;
  readonly destroyed: boolean;
}

/** `a` sees `peerOfA` at its other end, `b` sees `peerOfB`. */
export function channelPair(
  peers: { peerOfA: ChannelPeer; peerOfB: ChannelPeer },
  options: { lingerMs?: number } = {},
): {
  a: FakeChannel;
  b: FakeChannel;
} {
  const toA = new Pipe();
  const toB = new Pipe();
  const lingerMs = options.lingerMs ?? LINGER_MS;
  return {
    a: new End(peers.peerOfA, { incoming: toA, outgoing: toB, lingerMs }),
    b: new End(peers.peerOfB, { incoming: toB, outgoing: toA, lingerMs }),
  };
}

export const anonymous: ChannelPeer = { address: '192.0.2.1', certificate: { state: 'None' } };

export function verified(identity: string): ChannelPeer {
  return {
    address: '192.0.2.2',
    certificate: { state: 'Verified', identities: [identity] },
  };
}

class Pipe {
  readonly #chunks: Uint8Array[] = [];
  #size = 0;
  #waiters: (() => void)[] = [];
  /** Whoever writes has no more to say, in order or because it is dead: which, nobody can tell. */
  ended = false;
  /** Whoever writes died without having read all, of which its kernel tells by a reset. */
  reset = false;
  /** Whoever reads has closed: what comes is thrown away. */
  unheard = false;
  /** Whoever reads is dead. */
  dead = false;

  get full(): boolean {
    return this.#size > WINDOW;
  }

  get empty(): boolean {
    return this.#size === 0;
  }

  put(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.unheard) return;
    this.#chunks.push(bytes);
    this.#size += bytes.length;
    this.notify();
  }

  take(): Uint8Array | undefined {
    const chunk = this.#chunks.shift();
    if (chunk === undefined) return undefined;
    this.#size -= chunk.length;
    this.notify();
    return chunk;
  }

  /** Forgets what was written last, down to what is on its way. */
  shorten(): void {
    while (this.full) this.#size -= this.#chunks.pop()?.length ?? 0;
  }

  ignore(): void {
    this.unheard = true;
    this.#chunks.length = 0;
    this.#size = 0;
    this.notify();
  }

  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  notify(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}

class End implements FakeChannel {
  readonly peer: ChannelPeer;
  tamper: ((bytes: Uint8Array) => Uint8Array) | undefined;
  destroyed = false;
  #closed = false;
  #heardEnd = false;
  readonly #incoming: Pipe;
  readonly #outgoing: Pipe;
  readonly #lingerMs: number;

  constructor(peer: ChannelPeer, parts: { incoming: Pipe; outgoing: Pipe; lingerMs: number }) {
    this.peer = peer;
    this.#incoming = parts.incoming;
    this.#outgoing = parts.outgoing;
    this.#lingerMs = parts.lingerMs;
  }

  async write(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#closed || this.destroyed) throw new ChannelError('ChannelClosed', 'closed by us');
    if (this.#heardEnd) throw new ChannelError('ConnectionLost', 'the peer is gone');
    const whole: Uint8Array = Buffer.concat(parts);
    this.#outgoing.put(this.tamper === undefined ? whole : this.tamper(whole));
    while (this.#outgoing.full && !this.#outgoing.dead && !this.destroyed)
      await this.#outgoing.changed();
    if (this.#outgoing.dead) throw new ChannelError('ConnectionLost', 'the peer is gone');
    if (this.destroyed) throw new ChannelError('ChannelClosed', 'closed by us');
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.destroyed || this.#closed) throw new ChannelError('ChannelClosed', 'closed by us');
      const chunk = this.#incoming.take();
      if (chunk !== undefined) return chunk;
      if (this.#incoming.reset) throw new ChannelError('ConnectionLost', 'the peer is gone');
      if (this.#incoming.ended) {
        this.#heardEnd = true;
        return undefined;
      }
      await this.#incoming.changed();
    }
  }

  async close(): Promise<void> {
    if (this.#closed || this.destroyed) return;
    this.#closed = true;
    this.#outgoing.ended = true;
    this.#outgoing.notify();
    this.#incoming.ignore();
    const giveUp = () => {
      if (!this.#outgoing.empty) this.destroy();
    };
    setTimeout(giveUp, this.#lingerMs).unref();
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    if (this.#incoming.empty) this.#outgoing.ended = true;
    else this.#outgoing.reset = true;
    this.#outgoing.shorten();
    this.#outgoing.notify();
    this.#incoming.dead = true;
    this.#incoming.ignore();
  }
}
