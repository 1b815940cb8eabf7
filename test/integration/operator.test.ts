/** The operator against a real API server and Azurite: what schemas, CEL, server-side apply and a real blob service make of it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  farshoreTypes,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
} from '../../crds/index.ts';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultStores,
} from '../../platform/azure/vaultStores.ts';
import { connectKubernetes, type HttpKubeClient } from '../../platform/kube/client.ts';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { encodeDocument, pointDocumentSchema } from '../../vault/documents.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { type LogLine, recordingLogger } from '../fakes/silentLogger.ts';
import {
  askAsAgent,
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  create,
  eventually,
  failover,
  machineReport,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  type RunningOperator,
  readList,
  recoveryVault,
  replicationPolicy,
  reportStatus,
  secret,
  startOperator,
  untilCondition,
} from '../operator/harness.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { type KubernetesServer, startKubernetes } from '../servers/kubernetes.ts';

const world = { clock: systemClock, random: systemRandom };
const recovery = generateRecoveryKey(systemRandom);
let server: KubernetesServer;
let azurite: Azurite;
let kube: HttpKubeClient;
let namespace: string;
let count = 0;
let running: RunningOperator[];
let lines: LogLine[];

beforeAll(async () => {
  [server, azurite] = await Promise.all([startKubernetes(), startAzurite()]);
  kube = connectKubernetes({ kubeconfig: server.kubeconfigPath });
  server.kubectl(['apply', '--server-side', '-f', path.join(import.meta.dirname, '../../crds')]);
  server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
});

afterAll(async () => {
  kube?.close();
  await azurite?.stop();
  await server?.stop();
});

beforeEach(() => {
  count += 1;
  namespace = `operator-${count}`;
  server.kubectl(['create', 'namespace', namespace]);
  running = [];
  lines = [];
});

afterEach(async () => {
  for (const one of running) await one.stop();
});

function access(connectionString = azurite.connectionString) {
  return {
    connectionString,
    container: `vault-${count}`,
    patience: { stallMs: 2_000, totalMs: 2_000 },
  };
}

function stores(): VaultStores {
  return openVaultStores(world, access());
}

/** The connection string comes from the Secret, as in production; only Azure Resource Manager is in memory. */
function operate(
  options: { namespace?: string; holder?: string; kube?: HttpKubeClient } = {},
): RunningOperator {
  const client = options.kube ?? kube;
  const where = options.namespace ?? namespace;
  const started = startOperator({
    kube: client,
    namespace: where,
    watchNamespace: where,
    holder: options.holder ?? 'first cluster',
    leaderElect: true,
    log: recordingLogger(lines),
    stores: (connection) => {
      const mine = {
        ...access(connection.storage.connectionString),
        container: connection.storage.container,
      };
      const { objects, pages } = openVaultStores(world, mine);
      const compute = new MemoryCompute({ pages });
      return {
        objects,
        pages,
        compute,
        images: compute,
        ensureContainer: async () => {
          await ensureVaultContainer(world, mine);
        },
        close: async () => {},
      };
    },
  });
  running.push(started);
  return started;
}

function inNamespace<T extends KubeObject>(object: T, where = namespace): T {
  return { ...object, metadata: { ...object.metadata, namespace: where } };
}

async function createAll(
  where = namespace,
  connectionString = azurite.connectionString,
): Promise<void> {
  await create(
    kube,
    secret('azure', { clientSecret: 'secret', connectionString }, where),
    secret('passphrase', { passphrase: PASSPHRASE }, where),
    inNamespace(vault(), where),
    replicationPolicy('policy', where),
    processServer('ps', {}, where),
    protectedVM('web', {}, where),
  );
}

function vault(): RecoveryVault {
  return recoveryVault({
    recipients: [recovery.publicString],
    spec: { containerName: `vault-${count}` },
  });
}

function at(name: string, where = namespace) {
  return named(name, where);
}

async function machineIdOf(name = 'web', where = namespace): Promise<string> {
  return await eventually(async () => {
    const machine = await kube.get<ProtectedVM>(farshoreTypes.protectedVM, at(name, where));
    const id = machine?.status?.machineId;
    if (id === undefined)
      throw new Error(`${name} has no machineId: ${JSON.stringify(machine?.status)}`);
    return id;
  });
}

async function putPoint(machineId: string, lsn: bigint): Promise<void> {
  const snapshot = { key: 'replica', snapshot: 'then' };
  await stores().objects.putIfAbsent(
    vaultLayout.point(machineId, lsn),
    encodeDocument(pointDocumentSchema, {
      machineId,
      lsn,
      timeMs: systemClock.now() - 20_000,
      consistency: 'Crash',
      segment: { seq: 0, digest: 'a'.repeat(64), writerEpoch: 1 },
      disks: [
        {
          index: 0,
          name: 'system',
          sizeBytes: 8 << 20,
          root: 'b'.repeat(64),
          replica: snapshot,
          leaves: snapshot,
        },
      ],
      createdAt: systemClock.now(),
    }),
  );
}

describe('a machine on a real API server', () => {
  it('goes from applied manifests to Ready, and its status passes the schema', async () => {
    operate();
    await createAll();
    await untilCondition(kube, farshoreTypes.recoveryVault, at('vault'), {
      type: 'Ready',
      status: 'True',
    });
    const bootstrap = await bootstrapOf(kube, 'ps-bootstrap', namespace);
    const { objects } = stores();
    const asked = await askWithToken(objects, bootstrap);
    expect(await awaitAnswer(objects, asked.id)).toMatchObject({ outcome: 'accepted' });
    const machineId = await machineIdOf();
    await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
      type: 'Accepted',
      status: 'True',
    });
    const wrong = await askAsAgent(objects, { name: 'web', via: 'ps', passphrase: 'wrong' });
    expect(await awaitAnswer(objects, wrong.id)).toMatchObject({ code: 'WrongPassphrase' });
    const agent = await askAsAgent(objects, { name: 'web', via: 'ps' });
    expect(await awaitAnswer(objects, agent.id)).toMatchObject({ outcome: 'accepted', machineId });
    await reportStatus(objects, 'ps', [
      machineReport(machineId, {
        resync: {
          reason: 'Initial',
          bytesTotal: 1000,
          bytesDone: 250,
          bytesSent: 200,
          startedMs: systemClock.now() - 1000,
          bytesPerSecond: 250.5,
        },
      }),
    ]);
    await eventually(async () => {
      const machine = await kube.get<ProtectedVM>(farshoreTypes.protectedVM, at('web'));
      expect(machine?.status).toMatchObject({
        phase: 'InitialReplication',
        initialReplication: { percent: 25, etaSeconds: 3 },
        offeredDisks: [{ device: '/dev/sda' }],
      });
    });
    await putPoint(machineId, 12n);
    await reportStatus(objects, 'ps', [
      machineReport(machineId, {
        uploadedBarrier: { lsn: 12n, timeMs: systemClock.now(), consistency: 'Crash' },
      }),
    ]);
    await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
      type: 'Ready',
      status: 'True',
    });
    const machine = await kube.get<ProtectedVM>(farshoreTypes.protectedVM, at('web'));
    expect(machine?.status).toMatchObject({
      phase: 'Protected',
      recoveryPoints: { count: 1, newestCrash: { name: '12' } },
      positions: { captured: '30', recoveryPoint: '12' },
    });
    expect(server.kubectl(['-n', namespace, 'get', 'protectedvms', 'web'])).toContain('web');
    const metrics = (await running[0]?.operator.metrics.registry.metrics()) ?? '';
    expect(metrics).toMatch(
      new RegExp(`farshore_rpo_seconds\\{namespace="${namespace}",machine="web"\\} \\d`),
    );
    const events = server.kubectl(['-n', namespace, 'get', 'events', '-o', 'name']);
    expect(events.trim()).not.toBe('');
    expect(lines.filter((line) => line.level === 'error')).toEqual([]);
  });

  it('keeps the list’s generation over a restart, and rises RPO when all others are dead', async () => {
    const first = operate();
    await createAll();
    const bootstrap = await bootstrapOf(kube, 'ps-bootstrap', namespace);
    const { objects } = stores();
    await awaitAnswer(objects, (await askWithToken(objects, bootstrap)).id);
    const machineId = await machineIdOf();
    const list = async () =>
      await readList(objects, { processServer: 'ps', pinned: bootstrap.controllerPublicKey });
    await reportStatus(objects, 'ps', [
      machineReport(machineId, {
        uploadedBarrier: { lsn: 10n, timeMs: systemClock.now() - 7_200_000, consistency: 'Crash' },
      }),
    ]);
    const before = await eventually(async () => {
      const found = await list();
      expect(found?.machines[0]?.dataKey.map((one) => one.kind)).toContain('processserver');
      // The size arrives with the first report, and is part of the list.
      expect(found?.machines[0]?.disks[0]?.sizeBytes).toBe(8 << 20);
      return found;
    });
    await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
      type: 'RecoveryPointCurrent',
      status: 'False',
      reason: 'ThresholdExceeded',
    });
    await first.stop();
    operate();
    await kube.patch(farshoreTypes.protectedVM, at('web'), { merge: { spec: { paused: true } } });
    await eventually(async () => {
      const after = await list();
      expect(after?.machines[0]?.paused).toBe(true);
      expect(after?.generation).toBe((before?.generation ?? 0) + 1);
    });
    const rpo = async () => {
      const metrics = (await running[1]?.operator.metrics.registry.metrics()) ?? '';
      return Number(/farshore_rpo_seconds\{[^}]*\} ([0-9.]+)/.exec(metrics)?.[1] ?? Number.NaN);
    };
    const then = await eventually(async () => {
      const seconds = await rpo();
      expect(seconds).toBeGreaterThan(7190);
      return seconds;
    });
    await eventually(async () => expect(await rpo()).toBeGreaterThan(then));
  });

  it('says what is wrong with a vault: silent, refused key', async () => {
    operate();
    const type = farshoreTypes.recoveryVault;
    const dead = azurite.connectionString.replaceAll(`:${azurite.port}/`, ':9/');
    await createAll(namespace, dead);
    await untilCondition(kube, type, at('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'VaultUnreachable',
    });
    await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
      type: 'Accepted',
      status: 'False',
      reason: 'VaultNotReady',
    });
    const change = async (connectionString: string) =>
      await kube.patch(kubeTypes.secret, at('azure'), {
        merge: { data: { connectionString: Buffer.from(connectionString).toString('base64') } },
      });
    const wrongKey = Buffer.alloc(64, 7).toString('base64');
    await change(azurite.connectionString.replace(/AccountKey=[^;]+/, `AccountKey=${wrongKey}`));
    await untilCondition(kube, type, at('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'CredentialsRefused',
    });
    await change(azurite.connectionString);
    await untilCondition(kube, type, at('vault'), { type: 'Ready', status: 'True' });
    await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
      type: 'Accepted',
      status: 'True',
    });
  });

  it('makes a StatefulSet that the API server takes', async () => {
    operate();
    await createAll();
    const sts = processServer('sts', {
      mode: 'StatefulSet',
      replicas: 2,
      cache: { size: '10Gi' },
      image: 'farshore:1',
      resources: { requests: { cpu: '500m', memory: '512Mi' } },
    });
    const { exposure: _, ...spec } = sts.spec;
    await create(kube, inNamespace({ ...sts, spec }));
    await eventually(async () => {
      const set = await kube.get<KubeObject & { spec: object }>(kubeTypes.statefulSet, at('sts'));
      expect(set?.spec).toMatchObject({ replicas: 2, podManagementPolicy: 'Parallel' });
      for (const name of ['sts', 'sts-0', 'sts-1'])
        expect(await kube.get(kubeTypes.service, at(name))).toBeDefined();
    });
    await eventually(async () => {
      const found = await kube.get<ProcessServer>(farshoreTypes.processServer, at('sts'));
      expect(found?.status).toMatchObject({ replicas: 2 });
      expect(found?.status?.selector).toContain('app.kubernetes.io/instance=sts');
    });
  });

  it('refuses failovers that can’t be, and says why for good', async () => {
    operate();
    await createAll();
    await machineIdOf();
    await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
      type: 'Accepted',
      status: 'True',
    });
    await create(
      kube,
      failover('no-point', { recoveryPoint: { type: 'Name', name: '77' } }, namespace),
      failover('no-machine', { machineRef: { name: 'nobody' } }, namespace),
    );
    const type = farshoreTypes.failover;
    await untilCondition(kube, type, at('no-point'), {
      type: 'Accepted',
      status: 'False',
      reason: 'PointNotFound',
    });
    await untilCondition(kube, type, at('no-point'), { type: 'Stalled', status: 'True' });
    await untilCondition(kube, type, at('no-machine'), {
      type: 'Accepted',
      status: 'False',
      reason: 'MachineNotFound',
    });
    await kube.remove(type, at('no-point'));
    await eventually(async () => expect(await kube.get(type, at('no-point'))).toBeUndefined());
  });

  it('gives the name of a machine to one cluster alone', async () => {
    operate();
    await createAll();
    const machineId = await machineIdOf();
    const other = `${namespace}-other`;
    server.kubectl(['create', 'namespace', other]);
    operate({ namespace: other, holder: 'second cluster' });
    await createAll(other);
    const condition = await untilCondition(kube, farshoreTypes.protectedVM, at('web', other), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    expect(condition.message).toContain(`${namespace}/web`);
    await untilCondition(kube, farshoreTypes.recoveryVault, at('vault', other), {
      type: 'InControl',
      status: 'False',
      reason: 'HeldByOther',
    });
    expect(await machineIdOf()).toBe(machineId);
  });
});

describe('the process', () => {
  it('opens a vault, serves health and metrics, and ends in order on SIGTERM', async () => {
    const child = spawn(
      process.execPath,
      [
        path.join(import.meta.dirname, '../../operator/main.ts'),
        `--kubeconfig=${server.kubeconfigPath}`,
        `--namespace=${namespace}`,
        `--operator-namespace=${namespace}`,
        '--metrics-port=0',
        '--poll-seconds=1',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const exited = once(child, 'exit');
    try {
      const said: string[] = [];
      createInterface(child.stderr).on('line', (line) => said.push(line));
      const port = await eventually(() => {
        const line = said.find((one) => one.includes('serving metrics'));
        if (line === undefined) throw new Error(`no port yet: ${said.join('\n')}`);
        return (JSON.parse(line) as { port: number }).port;
      });
      const get = async (route: string) => await fetch(`http://127.0.0.1:${port}${route}`);
      await eventually(async () => expect((await get('/readyz')).status).toBe(200));
      expect((await get('/healthz')).status).toBe(200);
      await createAll();
      await untilCondition(kube, farshoreTypes.recoveryVault, at('vault'), {
        type: 'Ready',
        status: 'True',
      });
      await untilCondition(kube, farshoreTypes.protectedVM, at('web'), {
        type: 'Accepted',
        status: 'True',
      });
      const metrics = await (await get('/metrics')).text();
      expect(metrics).toContain('farshore_leader 1');
      expect(metrics).toContain('farshore_rpo_threshold_seconds{');
    } finally {
      child.kill('SIGTERM');
    }
    expect((await exited)[0]).toBe(0);
  });
});
