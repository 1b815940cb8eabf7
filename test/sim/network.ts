/**
 * The network between agents and process servers: connections that behave as TCP under TLS does.
 *
 * Fault model. Bytes of one direction arrive in order, unchanged, split anywhere and late; none is lost while the connection lives. A
 * connection may break at any moment (both ends hear of it, each in its own time, and what was under way is gone), or a link may fall
 * silent: then nothing arrives and nobody hears of it, until it heals and everything arrives late, or for ever. A host that loses power
 * falls silent. A process that dies has its connections ended by its kernel: what it sent before arrives, then what looks like an orderly
 * end; whatever it had not read, or comes later, is answered with a reset. Who is at the other end is what the listener says. Passes
 * test/conformance/channel.ts.
 */
import { ChannelError } from '../../platform/channelErrors.ts';
import type { Channel, ChannelListener, ChannelPeer } from '../../platform/ports.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';
import type { SimTime } from './time.ts';

/** Bytes that one direction holds before `write` waits for the reader. */
const WINDOW = 256 << 10;
const CONNECT_TIMEOUT_MS = 10_000;
/** What was written before a close has so long to be taken. */
const CLOSE_GRACE_MS = 5_000;

interface Listener {
  host: string;
  life: Life;
  identities: readonly string[];
  onChannel: (channel: Channel) => void;
}

/** Who sees what is written to a channel, at the moment it is written. */
export interface Tap {
  connected(connection: Connection): void;
  wrote(connection: Connection, by: 'client' | 'server', bytes: Uint8Array): void;
}

export interface Connection {
  id: number;
  client: { host: string; identities: readonly string[] };
  server: { host: string; identities: readonly string[] };
}

export class SimNetwork {
  readonly time: SimTime;
  readonly chance: Chance;
  readonly #tap: Tap;
  readonly #listeners = new Map<string, Listener>();
  readonly #links = new Set<Link>();
  /** Pairs of hosts that hear nothing of each other: `a|b`, in order of names. */
  readonly #silent = new Set<string>();
  #nextId = 1;
  latencyMs = 2;

  constructor(options: { time: SimTime; chance: Chance; tap: Tap }) {
    this.time = options.time;
    this.chance = options.chance;
    this.#tap = options.tap;
  }

  listen(endpoint: string, listener: Listener): ChannelListener {
    this.#listeners.set(endpoint, listener);
    const close = () => {
      if (this.#listeners.get(endpoint) === listener) this.#listeners.delete(endpoint);
    };
    listener.life.onDeath(close);
    return { port: 9443, replaceCertificate: () => undefined, close: async () => close() };
  }

  async connect(options: {
    endpoint: string;
    host: string;
    life: Life;
    identities: readonly string[];
  }): Promise<Channel> {
    const { endpoint, host, life, identities } = options;
    await life.sleep(1 + this.chance.about(this.latencyMs * 2));
    const listener = this.#listeners.get(endpoint);
    const target = listener?.host ?? endpoint.split(':')[0] ?? '';
    if (this.#silent.has(pairOf(host, target))) {
      await life.sleep(CONNECT_TIMEOUT_MS);
      throw new ChannelError('ConnectTimeout', `${endpoint} does not answer`);
    }
    if (listener === undefined || listener.life.dead || listener.life.stopped)
      throw new ChannelError('ConnectionRefused', `nobody listens at ${endpoint}`);
    const connection: Connection = {
      id: this.#nextId++,
      client: { host, identities },
      server: { host: listener.host, identities: listener.identities },
    };
    this.#tap.connected(connection);
    const link = new Link(this, connection, { client: life, server: listener.life }, (by, bytes) =>
      this.#tap.wrote(connection, by, bytes),
    );
    this.#links.add(link);
    this.time.after(this.chance.about(this.latencyMs), `accept ${endpoint}`, () =>
      listener.life.deliver(() => listener.onChannel(link.server)),
    );
    return link.client;
  }

  isSilent(a: string, b: string): boolean {
    return this.#silent.has(pairOf(a, b));
  }

  silence(a: string, b: string): void {
    this.#silent.add(pairOf(a, b));
  }

  heal(a: string, b: string): void {
    this.#silent.delete(pairOf(a, b));
    for (const link of this.#links) if (link.isBetween(a, b)) link.healed();
  }

  /** Breaks what is open between two hosts. */
  reset(a: string, b: string): void {
    for (const link of this.#links) if (link.isBetween(a, b)) link.broken();
  }

  /** A host without power answers nobody: whoever waits for it waits on. */
  powerLost(host: string): void {
    for (const link of this.#links) if (link.isOf(host)) link.mute();
  }

  forget(link: Link): void {
    this.#links.delete(link);
  }
}

function pairOf(a: string, b: string): string {
  return a < b ? `${a}|${b}` : `${b}|${a}`;
}

class Link {
  readonly client: End;
  readonly server: End;
  readonly #network: SimNetwork;
  readonly #connection: Connection;
  #muted = false;

  constructor(
    network: SimNetwork,
    connection: Connection,
    lives: { client: Life; server: Life },
    wrote: (by: 'client' | 'server', bytes: Uint8Array) => void,
  ) {
    this.#network = network;
    this.#connection = connection;
    const toServer = new Pipe(this);
    const toClient = new Pipe(this);
    const { client, server } = connection;
    this.client = new End(this, lives.client, {
      peer: peerOf(server),
      incoming: toClient,
      outgoing: toServer,
      wrote: (bytes) => wrote('client', bytes),
    });
    this.server = new End(this, lives.server, {
      peer: peerOf(client),
      incoming: toServer,
      outgoing: toClient,
      wrote: (bytes) => wrote('server', bytes),
    });
    for (const [end, life] of [
      [this.client, lives.client],
      [this.server, lives.server],
    ] as const)
      life.onDeath(() => end.destroy());
  }

  get network(): SimNetwork {
    return this.#network;
  }

  get silent(): boolean {
    const { client, server } = this.#connection;
    return this.#muted || this.#network.isSilent(client.host, server.host);
  }

  isBetween(a: string, b: string): boolean {
    const { client, server } = this.#connection;
    return (client.host === a && server.host === b) || (client.host === b && server.host === a);
  }

  isOf(host: string): boolean {
    return this.#connection.client.host === host || this.#connection.server.host === host;
  }

  mute(): void {
    this.#muted = true;
  }

  healed(): void {
    this.client.pump();
    this.server.pump();
  }

  broken(): void {
    const { time, chance } = this.#network;
    for (const end of [this.client, this.server])
      time.after(chance.about(20), 'reset', () => end.breaks());
    this.#network.forget(this);
  }
}

function peerOf(side: { host: string; identities: readonly string[] }): ChannelPeer {
  const certificate =
    side.identities.length === 0
      ? ({ state: 'None' } as const)
      : ({ state: 'Verified', identities: side.identities } as const);
  return { address: side.host, certificate };
}

/** One direction: what is under way, then what has arrived. */
class Pipe {
  readonly link: Link;
  readonly underWay: (Uint8Array | 'end' | 'reset')[] = [];
  readonly arrived: Uint8Array[] = [];
  size = 0;
  ended = false;
  broken = false;
  moving = false;
  /** Whoever reads has closed, or is dead: what arrives is thrown away, or answered with a reset. */
  #unheard: { answer?: () => void } | undefined;
  #waiters: (() => void)[] = [];

  constructor(link: Link) {
    this.link = link;
  }

  /** Throws away what has arrived, and what will. A dead reader makes no room by that. */
  ignore(unheard: { answer?: () => void }): void {
    this.#unheard = unheard;
    for (const bytes of this.arrived.splice(0)) this.#throwAway(bytes);
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

  send(what: Uint8Array | 'end' | 'reset'): void {
    this.underWay.push(what);
    this.move();
  }

  move(): void {
    if (this.moving || this.underWay.length === 0 || this.link.silent) return;
    this.moving = true;
    const { time, chance, latencyMs } = this.link.network;
    time.after(chance.about(latencyMs), 'arrive', () => {
      this.moving = false;
      if (this.link.silent) return;
      // What was sent by now travels together.
      for (const what of this.underWay.splice(0)) {
        if (what === 'end') this.ended = true;
        else if (what === 'reset') this.broken = true;
        else if (this.#unheard === undefined) this.arrived.push(what);
        else this.#throwAway(what);
      }
      this.notify();
    });
  }

  #throwAway(bytes: Uint8Array): void {
    if (this.#unheard?.answer === undefined) this.size -= bytes.length;
    else this.#unheard.answer();
  }
}

class End implements Channel {
  readonly peer: ChannelPeer;
  readonly #link: Link;
  readonly #life: Life;
  readonly #incoming: Pipe;
  readonly #outgoing: Pipe;
  readonly #wrote: (bytes: Uint8Array) => void;
  #closed = false;
  #destroyed = false;
  #heardEnd = false;

  constructor(
    link: Link,
    life: Life,
    parts: {
      peer: ChannelPeer;
      incoming: Pipe;
      outgoing: Pipe;
      wrote: (bytes: Uint8Array) => void;
    },
  ) {
    this.#link = link;
    this.#life = life;
    this.peer = parts.peer;
    this.#incoming = parts.incoming;
    this.#outgoing = parts.outgoing;
    this.#wrote = parts.wrote;
  }

  write(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#life.dead) return forever();
    if (this.#closed || this.#destroyed) return Promise.reject(closedByUs());
    if (this.#incoming.broken || this.#heardEnd) return Promise.reject(lost());
    const bytes = joined(parts);
    if (bytes.length > 0) {
      this.#wrote(bytes);
      this.#outgoing.size += bytes.length;
      this.#outgoing.send(bytes);
    }
    return this.#outgoing.size <= WINDOW ? Promise.resolve() : this.#life.hear(this.#room());
  }

  read(): Promise<Uint8Array | undefined> {
    if (this.#life.dead) return forever();
    return this.#life.hear(this.#next());
  }

  async close(): Promise<void> {
    if (this.#life.dead) return await forever();
    if (this.#closed || this.#destroyed) return;
    this.#closed = true;
    this.#outgoing.send('end');
    this.#incoming.ignore({});
    const { time } = this.#link.network;
    time.after(CLOSE_GRACE_MS, 'close grace ends', () => {
      if (this.#outgoing.size > 0) this.destroy();
    });
  }

  /** Also what the kernel does when the process dies. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    if (this.#incoming.arrived.length === 0) this.#outgoing.send('end');
    this.#incoming.ignore({ answer: () => this.#outgoing.send('reset') });
    this.#outgoing.notify();
  }

  breaks(): void {
    this.#incoming.broken = true;
    this.#incoming.notify();
    this.#outgoing.notify();
  }

  pump(): void {
    this.#outgoing.move();
  }

  async #room(): Promise<void> {
    while (this.#outgoing.size > WINDOW) {
      if (this.#destroyed || this.#incoming.broken) throw lost();
      // A reset is heard on the way in.
      await Promise.race([this.#outgoing.changed(), this.#incoming.changed()]);
    }
  }

  async #next(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#destroyed || this.#closed) throw closedByUs();
      const chunk = this.#incoming.arrived[0];
      if (chunk !== undefined) return this.#take(chunk);
      if (this.#incoming.broken) throw lost();
      if (this.#incoming.ended) {
        this.#heardEnd = true;
        return undefined;
      }
      await this.#incoming.changed();
    }
  }

  /** Sometimes not all of it: TCP may divide anywhere. */
  #take(chunk: Uint8Array): Uint8Array {
    const { chance } = this.#link.network;
    const length = chance.chance(0.15) ? 1 + chance.below(chunk.length) : chunk.length;
    if (length === chunk.length) this.#incoming.arrived.shift();
    else this.#incoming.arrived[0] = chunk.subarray(length);
    this.#incoming.size -= length;
    this.#incoming.notify();
    return chunk.subarray(0, length);
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let filled = 0;
  for (const part of parts) {
    bytes.set(part, filled);
    filled += part.length;
  }
  return bytes;
}

function closedByUs(): ChannelError {
  return new ChannelError('ChannelClosed', 'closed by us');
}

function lost(): ChannelError {
  return new ChannelError('ConnectionLost', 'the connection broke');
}
