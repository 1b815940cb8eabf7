/**
 * The process server's process: main.ts --bootstrap FILE [--cache DIR] [--port N] [--metrics-port N] [--metrics-host ADDRESS]
 *
 * FILE is the bootstrap file that the operator keeps in Secret <processserver>-bootstrap. DIR is the cache: it must survive restarts, and no
 * two processes may use it. SIGTERM and SIGINT end it in order.
 *
 * Exit codes: 0 stopped by a signal · 64 wrong usage or bootstrap file · 65 the vault is of a newer format, or another than the bootstrap
 * file says · 69 the port can't be had · 74 the cache failed (start again: it recovers) · 77 the vault or the operator refuses us (key,
 * token, name) · 70 anything else. A vault that does not answer is waited for, never a reason to end.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { DefaultAzureCredential } from '@azure/identity';
import { openVaultStores, type VaultAccess } from '../../platform/azure/vaultStores.ts';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { openDisk } from '../../platform/node/disk.ts';
import { type HttpServer, listenHttp } from '../../platform/node/httpServer.ts';
import { createLogger } from '../../platform/node/logger.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { listenTls } from '../../platform/node/tls.ts';
import { WorkerPool } from '../../platform/node/workerPool.ts';
import { patiently } from '../../platform/patience.ts';
import type { Disk, ObjectStore } from '../../platform/ports.ts';
import { type Bootstrap, decodeBootstrap, type VaultLocation } from '../../vault/bootstrap.ts';
import { requireVault } from '../../vault/vault.ts';
import { Cache } from '../journal/cache.ts';
import { codecWorkerUrl, pooledCodec } from '../journal/segmentCodec.ts';
import { type ProcessServerMetrics, processServerMetrics } from './metrics.ts';
import { ProcessServer } from './processServer.ts';
import { establishIdentity, type ServerIdentity } from './serverIdentity.ts';

const METRICS_PORT = 9444;
/** The cache's files and ours do not mix. */
const JOURNAL_DIRECTORY = 'journal';
const SERVER_DIRECTORY = 'server';

const EXIT_CODES: Record<string, number> = {
  UsageInvalid: 64,
  BootstrapInvalid: 64,
  VaultAccessInvalid: 64,
  VaultFormatTooNew: 65,
  VaultIsAnother: 65,
  VaultMissing: 65,
  ConnectionLost: 69,
  CacheFailed: 74,
  CacheUnreadable: 74,
  VaultRefusedKey: 77,
  VaultContainerMissing: 77,
  EnrolmentRefused: 77,
  EnrolmentAnswerForged: 77,
};
const EXIT_OTHER = 70;
/** The reason of an orderly end: no failure. */
const STOPPED = 'Stopped';

const logger = createLogger({ name: 'processserver' });
const world = { clock: systemClock, random: systemRandom, logger };

try {
  await main();
} catch (error) {
  const code = errorCode(error);
  if (code === STOPPED) logger.info({}, 'The process server has stopped');
  else {
    logger.error({ code, error }, 'The process server ends');
    process.exitCode = EXIT_CODES[code] ?? EXIT_OTHER;
  }
}

async function main(): Promise<void> {
  const options = parseOptions();
  const bootstrap = decodeBootstrap(await readBootstrap(options.bootstrap));
  const cacheDirectory = options.cache ?? bootstrap.cacheDirectory;
  if (cacheDirectory === undefined)
    throw usage('the bootstrap file names no cacheDirectory: give --cache DIR');
  const { stop, failed } = stopSignals();
  const { objects, pages, location } = openVaultStores(world, accessOf(bootstrap.vault));
  logger.info({ vault: location, processServer: bootstrap.name }, 'The process server starts');
  await checkVault(bootstrap, stop);
  const directories = await makeDirectories(cacheDirectory);
  const disk = openDisk(directories.server);
  const identity = await establishIdentity(
    { ...world, objects, disk },
    { name: bootstrap.name, token: bootstrap.token, signal: stop },
  );
  const pool = new WorkerPool({ module: codecWorkerUrl, size: availableParallelism() });
  try {
    const cache = await Cache.open({
      ...world,
      disk: openDisk(directories.journal),
      objects,
      pages,
      codec: pooledCodec(pool),
    });
    cache.onFailed(failed);
    await serve({ options, bootstrap, identity, cache, disk, store: objects, stop });
  } finally {
    await pool.close();
  }
  stop.throwIfAborted();
}

async function serve(ready: {
  options: Options;
  bootstrap: Bootstrap;
  identity: ServerIdentity;
  cache: Cache;
  disk: Disk;
  store: ObjectStore;
  stop: AbortSignal;
}): Promise<void> {
  const { options, bootstrap, identity, cache, disk, store, stop } = ready;
  const metrics = processServerMetrics();
  let monitoring: HttpServer | undefined;
  try {
    const server = await ProcessServer.start(
      { ...world, store, disk, cache, listen: listenTls, observeFreeze: metrics.observeFreeze },
      {
        name: bootstrap.name,
        version: await versionOfPackage(),
        vaultId: bootstrap.vaultId,
        pinnedKey: bootstrap.controllerPublicKey,
        identity,
        port: options.port ?? bootstrap.port,
        endpoints: bootstrap.endpoints,
      },
    );
    monitoring = await serveMetrics(options, { server, metrics });
    await server.run(stop);
  } finally {
    await monitoring?.close();
    await cache.close();
  }
}

/** Before anything is made: a wrong key, another vault and a newer format are told at once, a silent vault after seconds. */
async function checkVault(bootstrap: Bootstrap, signal: AbortSignal): Promise<void> {
  const patience = { stallMs: 5_000, totalMs: 5_000 };
  const { objects } = openVaultStores(world, { ...accessOf(bootstrap.vault), patience });
  const { document } = await patiently(world, signal, () => requireVault(objects));
  if (document.vaultId === bootstrap.vaultId) return;
  throw new FarshoreError(
    'VaultIsAnother',
    `The bootstrap file of process server ${bootstrap.name} is for vault ${bootstrap.vaultId}, but the container holds vault ${document.vaultId}. Get the bootstrap file of this vault, or correct its container and prefix.`,
  );
}

async function makeDirectories(root: string): Promise<{ journal: string; server: string }> {
  const directories = {
    journal: path.join(root, JOURNAL_DIRECTORY),
    server: path.join(root, SERVER_DIRECTORY),
  };
  for (const directory of Object.values(directories))
    await mkdir(directory, { recursive: true, mode: 0o700 });
  return directories;
}

async function serveMetrics(
  options: Options,
  of: { server: ProcessServer; metrics: ProcessServerMetrics },
): Promise<HttpServer> {
  const monitoring = await listenHttp({
    port: options.metricsPort,
    ...(options.metricsHost === undefined ? {} : { host: options.metricsHost }),
    routes: {
      '/metrics': async () => ({
        status: 200,
        contentType: of.metrics.contentType,
        body: await of.metrics.text(of.server.figures()),
      }),
      '/healthz': () => ({ status: 200, contentType: 'text/plain', body: 'ok\n' }),
    },
  });
  logger.info({ port: monitoring.port }, 'Metrics and health are served');
  return monitoring;
}

interface Options {
  bootstrap: string;
  cache: string | undefined;
  port: number | undefined;
  metricsPort: number;
  metricsHost: string | undefined;
}

function parseOptions(): Options {
  const values = parseFlags();
  if (values.bootstrap === undefined) throw usage('--bootstrap FILE is missing');
  return {
    bootstrap: values.bootstrap,
    cache: values.cache,
    port: values.port === undefined ? undefined : portNumber('port', values.port),
    metricsPort:
      values['metrics-port'] === undefined
        ? METRICS_PORT
        : portNumber('metrics-port', values['metrics-port']),
    metricsHost: values['metrics-host'],
  };
}

function parseFlags() {
  try {
    return parseArgs({
      options: {
        bootstrap: { type: 'string' },
        cache: { type: 'string' },
        port: { type: 'string' },
        'metrics-port': { type: 'string' },
        'metrics-host': { type: 'string' },
      },
    }).values;
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error));
  }
}

function portNumber(name: string, text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= 65535) return value;
  throw usage(`--${name} is ${JSON.stringify(text)}, which is no port`);
}

function usage(problem: string): FarshoreError {
  return new FarshoreError(
    'UsageInvalid',
    `${problem}. Usage: processserver/main.ts --bootstrap FILE [--cache DIR] [--port N] [--metrics-port N] [--metrics-host ADDRESS]`,
  );
}

async function readBootstrap(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new FarshoreError(
      'BootstrapInvalid',
      `The bootstrap file ${file} can't be read (${errorCode(cause)}).`,
      { cause },
    );
  }
}

/** `stop` aborts on the first SIGTERM or SIGINT; a second one ends the process at once. `failed` stops it for a reason. */
function stopSignals(): { stop: AbortSignal; failed: (error: Error) => void } {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const)
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(EXIT_OTHER);
      logger.info({ signal: name }, 'Stopping');
      controller.abort(new FarshoreError(STOPPED, 'The process was asked to stop.'));
    });
  return { stop: controller.signal, failed: (error) => controller.abort(error) };
}

function accessOf(vault: VaultLocation): VaultAccess {
  const { container, prefix, caBundle } = vault;
  const place = { container, prefix, caBundle };
  if (vault.connectionString !== undefined)
    return { ...place, connectionString: vault.connectionString };
  const blobEndpoint = vault.blobEndpoint ?? '';
  if (vault.sasToken !== undefined) return { ...place, blobEndpoint, sasToken: vault.sasToken };
  return { ...place, blobEndpoint, credential: new DefaultAzureCredential() };
}

async function versionOfPackage(): Promise<string> {
  const text = await readFile(path.join(import.meta.dirname, '../../package.json'), 'utf8');
  const { version } = JSON.parse(text) as { version?: unknown };
  return typeof version === 'string' ? version : 'unknown';
}
