/** Two ends of a channel in memory, with faults to inject. */
import { ChannelError } from '../../platform/channelErrors.ts';
import type { Channel, ChannelPeer } from '../../platform/ports.ts';

/** Bytes that one direction holds before `write` waits for the reader. */
const WINDOW = 256 * 1024;

export interface FakeChannel extends Channel {
  /** Bytes on their way to the peer pass through here first; return fewer, more or other bytes. */
  tamper: ((bytes: Uint8Array) => Uint8Array) | undefined;
  readonly destroyed: boolean;
}

/** `a` sees `peerOfA` at its other end, `b` sees `peerOfB`. */
export function channelPair(peers: { peerOfA: ChannelPeer; peerOfB: ChannelPeer }): {
  a: FakeChannel;
  b: FakeChannel;
} {
  const toA = new Pipe();
  const toB = new Pipe();
  return {
    a: new End(peers.peerOfA, { incoming: toA, outgoing: toB }),
    b: new End(peers.peerOfB, { incoming: toB, outgoing: toA }),
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
  readonly chunks: Uint8Array[] = [];
  size = 0;
  ended = false;
  broken = false;
  #waiters: (() => void)[] = [];

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
  readonly #incoming: Pipe;
  readonly #outgoing: Pipe;

  constructor(peer: ChannelPeer, pipes: { incoming: Pipe; outgoing: Pipe }) {
    this.peer = peer;
    this.#incoming = pipes.incoming;
    this.#outgoing = pipes.outgoing;
  }

  async write(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#closed || this.destroyed) throw new ChannelError('ChannelClosed', 'closed by us');
    const whole: Uint8Array = Buffer.concat(parts);
    const bytes = this.tamper === undefined ? whole : this.tamper(whole);
    if (bytes.length > 0) {
      this.#outgoing.chunks.push(bytes);
      this.#outgoing.size += bytes.length;
      this.#outgoing.notify();
    }
    while (this.#outgoing.size > WINDOW && !this.#outgoing.broken) await this.#outgoing.changed();
    if (this.#outgoing.broken) throw new ChannelError('ConnectionLost', 'the peer is gone');
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.destroyed || this.#closed) throw new ChannelError('ChannelClosed', 'closed by us');
      const chunk = this.#incoming.chunks.shift();
      if (chunk !== undefined) {
        this.#incoming.size -= chunk.length;
        this.#incoming.notify();
        return chunk;
      }
      if (this.#incoming.broken) throw new ChannelError('ConnectionLost', 'the peer is gone');
      if (this.#incoming.ended) return undefined;
      await this.#incoming.changed();
    }
  }

  async close(): Promise<void> {
    if (this.#closed || this.destroyed) return;
    this.#closed = true;
    this.#outgoing.ended = true;
    this.#outgoing.notify();
    this.#incoming.notify();
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    for (const pipe of [this.#incoming, this.#outgoing]) {
      pipe.broken = true;
      pipe.notify();
    }
  }
}
