/**
 * The applier's process: main.ts --bootstrap FILE --state DIR [--metrics-port PORT] [--concurrency N]
 *
 * FILE is the bootstrap file that the operator keeps in Secret <recoveryvault>-applier-bootstrap; DIR holds the applier's key and must
 * survive restarts. SIGTERM and SIGINT end it in order: leases are given back.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { DefaultAzureCredential } from '@azure/identity';
import { openVaultStores, type VaultAccess } from '../../platform/azure/vaultStores.ts';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { openDisk } from '../../platform/node/disk.ts';
import { createLogger } from '../../platform/node/logger.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { WorkerPool } from '../../platform/node/workerPool.ts';
import { decodeBootstrap, type VaultLocation } from '../../vault/bootstrap.ts';
import { codecWorkerUrl, pooledCodec } from '../journal/segmentCodec.ts';
import { Applier } from './applier.ts';
import { establishIdentity } from './identity.ts';
import { ApplierMetrics } from './metrics.ts';

/** A round of discovery and status takes seconds; the vault is given a few minutes to answer. */
const SILENT_TOO_LONG_MS = 300_000;

const logger = createLogger({ name: 'applier' });

try {
  await main();
} catch (error) {
  logger.error({ code: errorCode(error), error }, 'the applier ends');
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const options = parseOptions();
  const bootstrap = decodeBootstrap(await readFile(options.bootstrap, 'utf8'));
  await mkdir(options.state, { recursive: true, mode: 0o700 });
  const stop = stopOnSignals();
  const world = { clock: systemClock, random: systemRandom, logger };
  const { objects, pages, location } = openVaultStores(world, accessOf(bootstrap.vault));
  const metrics = new ApplierMetrics();
  const health: { applier: Applier | undefined } = { applier: undefined };
  const server = await serve(options.metricsPort, { metrics, health });
  const pool = new WorkerPool({
    module: codecWorkerUrl,
    size: Math.max(1, availableParallelism() - 1),
  });
  try {
    logger.info({ vault: location, name: bootstrap.name }, 'the applier starts');
    const { name, vaultId, token } = bootstrap;
    const key = await establishIdentity(
      { ...world, objects, disk: openDisk(options.state) },
      { name, vaultId, token, signal: stop },
    );
    const applier = new Applier(
      { ...world, objects, pages, metrics, codec: pooledCodec(pool) },
      { name, vaultId, key, version: await versionOfPackage(), concurrency: options.concurrency },
    );
    health.applier = applier;
    await applier.run(stop);
    logger.info({}, 'the applier has given everything back and ends');
  } catch (error) {
    if (!stop.aborted) throw error;
  } finally {
    await pool.close();
    server.close();
    server.closeAllConnections();
  }
}

interface Options {
  bootstrap: string;
  state: string;
  metricsPort: number;
  concurrency: number;
}

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      bootstrap: { type: 'string' },
      state: { type: 'string' },
      'metrics-port': { type: 'string', default: '9090' },
      concurrency: { type: 'string', default: '4' },
    },
  });
  const { bootstrap, state } = values;
  if (bootstrap === undefined || state === undefined)
    throw new FarshoreError(
      'UsageInvalid',
      'usage: applier/main.ts --bootstrap FILE --state DIR [--metrics-port PORT] [--concurrency N]',
    );
  return {
    bootstrap,
    state,
    metricsPort: wholeNumber('metrics-port', values['metrics-port'], { from: 0, to: 65535 }),
    concurrency: wholeNumber('concurrency', values.concurrency, { from: 1, to: 64 }),
  };
}

function wholeNumber(name: string, text: string, range: { from: number; to: number }): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= range.from && value <= range.to) return value;
  throw new FarshoreError(
    'UsageInvalid',
    `--${name} is ${JSON.stringify(text)}; it must be a whole number from ${range.from} to ${range.to}.`,
  );
}

/** Aborts on the first SIGTERM or SIGINT; a second one ends the process at once. */
function stopOnSignals(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const)
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1);
      logger.info({ signal: name }, 'stopping');
      controller.abort(new FarshoreError('Stopped', `stopped by ${name}`));
    });
  return controller.signal;
}

function accessOf(vault: VaultLocation): VaultAccess {
  const { container, prefix, caBundle, connectionString, blobEndpoint, sasToken } = vault;
  const common = { container, prefix, caBundle };
  if (connectionString !== undefined) return { ...common, connectionString };
  if (blobEndpoint === undefined)
    throw new FarshoreError('BootstrapInvalid', 'The bootstrap file names no vault.');
  return sasToken === undefined
    ? { ...common, blobEndpoint, credential: new DefaultAzureCredential() }
    : { ...common, blobEndpoint, sasToken };
}

async function serve(
  port: number,
  of: { metrics: ApplierMetrics; health: { applier: Applier | undefined } },
): Promise<Server> {
  const server = createServer((request, response) => {
    void (async () => {
      const applier = of.health.applier;
      if (request.url === '/healthz') {
        const healthy = applier === undefined || applier.silentForMs < SILENT_TOO_LONG_MS;
        response.writeHead(healthy ? 200 : 503).end(healthy ? 'ok\n' : 'no round for too long\n');
      } else if (request.url === '/metrics') {
        applier?.showMetrics();
        const text = await of.metrics.registry.metrics();
        response.writeHead(200, { 'content-type': of.metrics.registry.contentType }).end(text);
      } else response.writeHead(404).end();
    })();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, resolve);
  });
  const address = server.address();
  const listening = typeof address === 'object' ? address?.port : undefined;
  logger.info({ port: listening }, 'metrics and health are served');
  return server;
}

async function versionOfPackage(): Promise<string> {
  const file = path.resolve(import.meta.dirname, '../../package.json');
  const { version } = JSON.parse(await readFile(file, 'utf8')) as { version?: unknown };
  return typeof version === 'string' ? version : 'unknown';
}
