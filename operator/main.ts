/**
 * The operator's process: reads its flags, makes the adapters, serves metrics and health, runs until it is told to stop.
 *
 *   node operator/main.ts [--kubeconfig FILE] [--namespace NAME] [--operator-namespace NAME] [--metrics-port N] [--no-leader-elect]
 */
import os from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import type { StoresFactory, VaultConnection } from '../controllers/openvaults/stores.ts';
import { blobEndpointOf } from '../controllers/recoveryvault/connection.ts';
import { cloudOf } from '../platform/azure/cloud.ts';
import { AzureCompute } from '../platform/azure/compute.ts';
import { AzureDiskImageReader } from '../platform/azure/diskImageReader.ts';
import { azureCredential } from '../platform/azure/login.ts';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultAccess,
} from '../platform/azure/vaultStores.ts';
import { errorMessage } from '../platform/errors.ts';
import { connectKubernetes } from '../platform/kube/client.ts';
import { systemClock } from '../platform/node/clock.ts';
import { listenHttp } from '../platform/node/httpServer.ts';
import { createLogger, type LogLevel } from '../platform/node/logger.ts';
import { systemRandom } from '../platform/node/random.ts';
import { Operator } from './operator.ts';

interface Flags {
  kubeconfig?: string;
  namespace?: string;
  operatorNamespace: string;
  holder?: string;
  metricsPort: number;
  leaderElect: boolean;
  pollSeconds: number;
  azurePollMs: number;
  logLevel: LogLevel;
}

const flags = new Command('farshore-operator')
  .description('Runs Farshore’s controllers')
  .option('--kubeconfig <file>', 'how to reach the API server; else as kubectl would')
  .option('--namespace <name>', 'look after the resources of one namespace alone')
  .option(
    '--operator-namespace <name>',
    'where the operator’s Secret and Lease are',
    process.env.POD_NAMESPACE ?? 'farshore-system',
  )
  .option('--holder <text>', 'how people recognise this installation in a vault')
  .option(
    '--metrics-port <number>',
    'for /metrics, /healthz and /readyz; 0: any',
    wholeNumber,
    9445,
  )
  .option('--no-leader-elect', 'this is the only operator of the cluster')
  .option('--poll-seconds <number>', 'how often vaults are looked at', wholeNumber, 5)
  .option(
    '--azure-poll-ms <number>',
    'how often Azure’s operations and what a failover waits for are looked at',
    wholeNumber,
    2_000,
  )
  .option('--log-level <level>', 'debug, info, warn or error', 'info')
  .parse()
  .opts<Flags>();

const log = createLogger({ name: 'operator', level: flags.logLevel });
const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => {
    log.info({ signal }, 'stopping');
    stop.abort(new Error(`stopped by ${signal}`));
  });

try {
  await main();
} catch (error) {
  if (!stop.signal.aborted) {
    log.error({ error }, errorMessage(error));
    process.exitCode = 1;
  }
}

async function main(): Promise<void> {
  const kube = connectKubernetes(
    flags.kubeconfig === undefined ? {} : { kubeconfig: flags.kubeconfig },
  );
  const operator = new Operator(
    { kube, clock: systemClock, random: systemRandom, log, makeStores },
    {
      operatorNamespace: flags.operatorNamespace,
      watchNamespace: flags.namespace,
      identity: process.env.POD_NAME ?? `${os.hostname()}-${process.pid}`,
      holder: flags.holder ?? `${kube.url} ${flags.operatorNamespace}`,
      leaderElect: flags.leaderElect,
      intervals: { pollMs: flags.pollSeconds * 1000 },
      stepPollMs: flags.azurePollMs,
    },
  );
  const server = await listenHttp({
    port: flags.metricsPort,
    routes: {
      '/metrics': async () => ({
        status: 200,
        contentType: operator.metrics.registry.contentType,
        body: await operator.metrics.registry.metrics(),
      }),
      '/healthz': () => text(200, 'ok\n'),
      '/readyz': () =>
        operator.ready ? text(200, 'ok\n') : text(503, 'caches are not complete\n'),
    },
  });
  log.info({ port: server.port, kubernetes: kube.url }, 'serving metrics');
  try {
    await operator.run(stop.signal);
  } finally {
    await server.close();
    kube.close();
  }
}

async function makeStores(
  connection: VaultConnection,
  leadership: { mayChange: () => boolean },
): ReturnType<StoresFactory> {
  const cloud = cloudOf(connection.cloud);
  const { servicePrincipal, storage } = connection;
  const credential = azureCredential(cloud, { kind: 'ServicePrincipal', ...servicePrincipal });
  const place = { container: storage.container, prefix: storage.prefix, caBundle: cloud.ca };
  const access: VaultAccess =
    storage.connectionString === undefined
      ? { ...place, blobEndpoint: blobEndpointOf(connection), credential }
      : { ...place, connectionString: storage.connectionString };
  const world = { clock: systemClock, random: systemRandom };
  const { objects, pages } = openVaultStores(world, access);
  return {
    objects,
    pages,
    compute: new AzureCompute({
      cloud,
      credential,
      subscriptionId: connection.subscriptionId,
      pollMs: flags.azurePollMs,
      mayChange: leadership.mayChange,
    }),
    images: new AzureDiskImageReader(world, { caBundle: cloud.ca }),
    ensureContainer: async () => {
      await ensureVaultContainer(world, access);
    },
    // Azure's clients hold nothing that has to be given back.
    close: async () => {},
  };
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError('must be a whole number.');
  return value;
}

function text(status: number, body: string) {
  return { status, contentType: 'text/plain; charset=utf-8', body };
}
