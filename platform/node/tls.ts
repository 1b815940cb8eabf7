/**
 * Channels over TLS 1.3. Who the peer is, is decided by the names in its certificate (vault/identity.ts), never by host names: a
 * process server is reached under whatever address the site gives it.
 */
import { constants, type X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { ChannelError, type ChannelErrorCode } from '../channelErrors.ts';
import type { Channel, ChannelListener, ChannelPeer } from '../ports.ts';
import { madeShortLived } from '../youngMemory.ts';

/** Bytes taken from the network ahead of `read`. */
const READ_AHEAD = 1 << 20;
/** How long a closed channel waits for the peer to take what was written. */
const LINGER_MS = 5_000;
const CONNECT_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 15_000;
const MAXIMUM_CONNECTIONS = 4_096;

export interface TlsConnectOptions {
  host: string;
  port: number;
  /** PEM. Without it any certificate will do: only for enrolment, whose answer proves who the peer is. */
  ca?: string;
  /** PEM of our own certificate and key; both or none. */
  cert?: string;
  key?: string;
  /** With `ca`: whether the names in the peer's verified certificate are those of the peer we want. */
  accepts?: (identities: readonly string[]) => boolean;
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** Connects. Rejects with ChannelError; PeerNotTrusted before a byte is sent when the peer is not who it must be. */
export function connectTls(options: TlsConnectOptions): Promise<Channel> {
  const where = `${options.host}:${options.port}`;
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: options.host,
      port: options.port,
      ...(isIP(options.host) === 0 ? { servername: options.host } : {}),
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      ...(options.cert === undefined ? {} : { cert: options.cert, key: options.key }),
      minVersion: 'TLSv1.3',
      // Judged below, by the names of ours.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
    });
    const fail = (error: ChannelError) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', aborted);
      socket.destroy();
      reject(error);
    };
    const aborted = () =>
      fail(new ChannelError('ChannelClosed', `Connecting to ${where} was given up.`));
    const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
    const timer = setTimeout(
      () =>
        fail(
          new ChannelError(
            'ConnectTimeout',
            `No TLS connection with ${where} within ${timeoutMs / 1000} s: it is down, or a firewall drops what we send.`,
          ),
        ),
      timeoutMs,
    );
    const failed = (cause: Error) => fail(connectError(where, cause));
    socket.once('error', failed);
    socket.once('secureConnect', () => {
      // Asked for once: at the side that connects, Node has the certificate only the first time.
      const peer = peerOf(socket);
      const problem = untrusted(peer, options);
      if (problem !== undefined) {
        fail(new ChannelError('PeerNotTrusted', `${where} is not trusted: ${problem}.`));
        return;
      }
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', aborted);
      socket.off('error', failed);
      resolve(new TlsChannel(socket, peer));
    });
    if (options.signal?.aborted === true) aborted();
    else options.signal?.addEventListener('abort', aborted, { once: true });
  });
}

export interface TlsListenOptions {
  /** 0: any free one. */
  port: number;
  host?: string;
  /** PEM. */
  cert: string;
  key: string;
  /** PEM of the CA that client certificates must chain to. A client may also show none. */
  ca: string;
  onChannel: (channel: Channel) => void;
  /** A client that never got as far as a channel: a port scan, an old TLS. */
  onHandshakeFailed?: (failure: { address: string; error: Error }) => void;
  maximumConnections?: number;
}

/** Listens. Rejects with ChannelError when the port can't be had. */
export function listenTls(options: TlsListenOptions): Promise<ChannelListener> {
  const tlsOptions = {
    minVersion: 'TLSv1.3' as const,
    // A resumed session would carry a client's identity past the replacement of the CA.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
  const server = createServer(
    {
      ...tlsOptions,
      cert: options.cert,
      key: options.key,
      ca: options.ca,
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: CONNECT_TIMEOUT_MS,
    },
    (socket) => options.onChannel(new TlsChannel(socket, peerOf(socket))),
  );
  server.maxConnections = options.maximumConnections ?? MAXIMUM_CONNECTIONS;
  server.on('tlsClientError', (error, socket) => {
    options.onHandshakeFailed?.({ address: socket.remoteAddress ?? 'unknown', error });
    socket.destroy();
  });
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new ChannelError(
          'ConnectionLost',
          `Can't listen on port ${options.port}: ${cause.message}.`,
          { cause },
        ),
      ),
    );
    server.listen({ port: options.port, host: options.host }, () => {
      const address = server.address();
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : options.port,
        replaceCertificate: (credentials) =>
          server.setSecureContext({ ...tlsOptions, ...credentials }),
        close: async () => {
          server.close();
        },
      });
    });
  });
}

class TlsChannel implements Channel {
  readonly peer: ChannelPeer;
  readonly #socket: TLSSocket;
  readonly #chunks: Uint8Array[] = [];
  #buffered = 0;
  #ended = false;
  #closing = false;
  #failure: ChannelError | undefined;
  #waiting: (() => void) | undefined;

  constructor(socket: TLSSocket, peer: ChannelPeer) {
    this.peer = peer;
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('end', () => this.#wake(() => (this.#ended = true)));
    socket.on('error', (cause) => this.#wake(() => this.#break(cause)));
    socket.on('close', () => this.#wake(() => this.#break(undefined)));
  }

  write(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#closing) return Promise.reject(this.#closedByUs());
    if (this.#failure !== undefined || this.#socket.destroyed)
      return Promise.reject(this.#failure ?? this.#lost(undefined));
    return new Promise((resolve, reject) => {
      const done = (error?: Error | null) => {
        if (error === undefined || error === null) resolve();
        else reject(this.#failure ?? this.#lost(error));
      };
      this.#socket.cork();
      for (const part of parts.slice(0, -1)) this.#socket.write(part);
      this.#socket.write(parts.at(-1) ?? new Uint8Array(0), done);
      this.#socket.uncork();
    });
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#closing) throw this.#closedByUs();
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#buffered -= chunk.length;
        if (this.#buffered === 0) this.#socket.resume();
        return chunk;
      }
      if (this.#ended) return undefined;
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
  }

  close(): Promise<void> {
    if (this.#closing || this.#socket.destroyed) return Promise.resolve();
    this.#wake(() => (this.#closing = true));
    return new Promise((resolve) => {
      // Unread bytes in the kernel would turn our end into a reset, which throws away what the peer has not read yet.
      this.#socket.resume();
      const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS);
      this.#socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#socket.end();
    });
  }

  destroy(): void {
    this.#wake(() => (this.#closing = true));
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    if (this.#closing) return;
    madeShortLived(chunk.length);
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    if (this.#buffered >= READ_AHEAD) this.#socket.pause();
    this.#wake(() => undefined);
  }

  #wake(change: () => void): void {
    change();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }

  #break(cause: Error | undefined): void {
    this.#failure ??= this.#lost(cause);
  }

  #lost(cause: Error | undefined): ChannelError {
    return new ChannelError(
      'ConnectionLost',
      `The connection with ${this.peer.address} broke${cause === undefined ? '' : `: ${cause.message}`}.`,
      { cause },
    );
  }

  #closedByUs(): ChannelError {
    return new ChannelError(
      'ChannelClosed',
      `The connection with ${this.peer.address} was closed by this side.`,
    );
  }
}

function untrusted(peer: ChannelPeer, options: TlsConnectOptions): string | undefined {
  if (options.ca === undefined) return undefined;
  const { certificate } = peer;
  if (certificate.state === 'None') return 'it showed no certificate';
  if (certificate.state === 'Refused') return certificate.reason;
  if (options.accepts === undefined || options.accepts(certificate.identities)) return undefined;
  return `its certificate is for ${certificate.identities.join(', ') || 'nobody'}`;
}

function peerOf(socket: TLSSocket): ChannelPeer {
  const address = socket.remoteAddress ?? 'unknown';
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return { address, certificate: { state: 'None' } };
  if (!socket.authorized)
    return {
      address,
      certificate: {
        state: 'Refused',
        reason: String(socket.authorizationError ?? 'it does not chain to our CA'),
      },
    };
  return { address, certificate: { state: 'Verified', identities: uriNames(certificate) } };
}

/** Node quotes names that could be taken for several; those are none of ours and are left out. */
function uriNames(certificate: X509Certificate): string[] {
  return (certificate.subjectAltName ?? '')
    .split(', ')
    .filter((name) => name.startsWith('URI:') && !name.includes('"'))
    .map((name) => name.slice('URI:'.length));
}

function connectError(where: string, cause: NodeJS.ErrnoException): ChannelError {
  const code = connectErrorCode(cause.code ?? '');
  return new ChannelError(code, `Can't connect to ${where}: ${cause.message}.`, { cause });
}

function connectErrorCode(code: string): ChannelErrorCode {
  if (code === 'ECONNREFUSED') return 'ConnectionRefused';
  if (code === 'ETIMEDOUT') return 'ConnectTimeout';
  if (['ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'].includes(code))
    return 'HostUnreachable';
  if (code.startsWith('ERR_SSL') || code === 'EPROTO') return 'HandshakeFailed';
  return 'ConnectionLost';
}
