import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** How a blob service is reached. */
export interface BlobService {
  connectionString: string;
  /** http(s)://host:port/account */
  blobEndpoint: string;
}

/** Azure's blob service on this machine: Azurite, as a process of its own with its own account and key. */
export interface Azurite extends BlobService {
  accountName: string;
  accountKey: string;
  host: string;
  port: number;
  pid: number | undefined;
  /** Ends it in order, and removes its directory when it made that itself. Safe to call again. */
  stop(): Promise<void>;
  /** SIGKILL. It saves its index every few seconds, so what came last is lost: no test of durability. */
  kill(): Promise<void>;
  /** Ends it in order if it runs, and starts it on the same port with the same data. */
  restart(): Promise<void>;
}

const START_TIMEOUT_MS = 60_000;
const ACCOUNT = 'farshore';
/** Name and key are the same everywhere: https://learn.microsoft.com/azure/storage/common/storage-use-azurite */
export const EMULATOR_ACCOUNT_NAME = 'devstoreaccount1';
const EMULATOR_ACCOUNT = `${EMULATOR_ACCOUNT_NAME}:Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==`;
const PROGRAM = path.resolve(
  import.meta.dirname,
  '../../node_modules/azurite/dist/src/blob/main.js',
);

/**
 * `dir`: where it keeps its data; without it a temporary one. `port` 0 or none: a free one. With `tls` (PEM) it speaks HTTPS, and
 * takes bearer tokens whose claims look right (it checks no signature).
 */
export async function startAzurite(
  options: {
    dir?: string;
    host?: string;
    port?: number;
    tls?: { certificatePem: string; privateKeyPem: string; caCertificatePem: string };
    /** It has the well-known account of emulators too, for clients that know that one alone. */
    emulatorAccount?: boolean;
  } = {},
): Promise<Azurite> {
  const host = options.host ?? '127.0.0.1';
  const port = options.port || (await freePort(host));
  const directory = options.dir ?? (await mkdtemp(path.join(tmpdir(), 'farshore-azurite-')));
  // A directory that is used again must be opened with the key it had.
  const accountKey =
    options.dir === undefined
      ? randomBytes(64).toString('base64')
      : createHash('sha512').update(path.resolve(options.dir)).digest('base64');
  const scheme = options.tls === undefined ? 'http' : 'https';
  const blobEndpoint = `${scheme}://${host}:${port}/${ACCOUNT}`;
  const tlsArguments: string[] = [];
  if (options.tls !== undefined) {
    const [cert, key] = [path.join(directory, 'tls.crt'), path.join(directory, 'tls.key')];
    await writeFile(cert, options.tls.certificatePem);
    await writeFile(key, options.tls.privateKeyPem, { mode: 0o600 });
    // It copies from itself over HTTPS, and must trust itself for that.
    await writeFile(path.join(directory, 'ca.crt'), options.tls.caCertificatePem);
    tlsArguments.push('--cert', cert, '--key', key, '--oauth', 'basic');
  }
  const accounts = [`${ACCOUNT}:${accountKey}`];
  if (options.emulatorAccount === true) accounts.push(EMULATOR_ACCOUNT);
  const server = new Server({ host, port, directory, accounts, tlsArguments });
  try {
    await server.start();
  } catch (error) {
    await server.end('SIGKILL');
    if (options.dir === undefined) await rm(directory, { recursive: true, force: true });
    throw error;
  }
  return {
    connectionString: `DefaultEndpointsProtocol=${scheme};AccountName=${ACCOUNT};AccountKey=${accountKey};BlobEndpoint=${blobEndpoint};`,
    blobEndpoint,
    accountName: ACCOUNT,
    accountKey,
    host,
    port,
    get pid() {
      return server.pid;
    },
    stop: async () => {
      await server.end('SIGTERM');
      if (options.dir === undefined) await rm(directory, { recursive: true, force: true });
    },
    kill: async () => server.end('SIGKILL'),
    restart: async () => {
      await server.end('SIGTERM');
      await server.start();
    },
  };
}

interface ServerOptions {
  host: string;
  port: number;
  directory: string;
  /** Each name:key. */
  accounts: readonly string[];
  tlsArguments: readonly string[];
}

class Server {
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async start(): Promise<void> {
    const { host, port, directory, accounts, tlsArguments } = this.#options;
    const output = path.join(directory, 'azurite.out');
    const log = await open(output, 'a');
    const child = spawn(
      process.execPath,
      [
        PROGRAM,
        ...['--blobHost', host, '--blobPort', String(port), '--location', directory],
        ...['--skipApiVersionCheck', '--silent', '--disableTelemetry'],
        ...tlsArguments,
      ],
      {
        env: {
          ...process.env,
          AZURITE_ACCOUNTS: accounts.join(';'),
          ...(tlsArguments.length === 0
            ? {}
            : { NODE_EXTRA_CA_CERTS: path.join(directory, 'ca.crt') }),
        },
        stdio: ['ignore', log.fd, log.fd],
      },
    );
    this.#child = child;
    await log.close();
    const deadline = performance.now() + START_TIMEOUT_MS;
    while (!(await answers(host, port))) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`azurite ended at once: ${await readFile(output, 'utf8')}`);
      if (performance.now() > deadline)
        throw new Error(`azurite does not listen: ${await readFile(output, 'utf8')}`);
      await delay(50);
    }
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(late);
  }
}

async function answers(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port });
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function freePort(host: string): Promise<number> {
  const server = createServer();
  server.listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
