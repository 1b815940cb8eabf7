/** The operator against a real API server and Azurite: what schemas, CEL, server-side apply and a real blob service make of it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { farshoreTypes, type ProcessServer, type ProtectedVM } from '../../crds/index.ts';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { create, failover, processServer } from '../operator/manifests.ts';
import {
  askAsAgent,
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  machineReport,
  putPoint,
  readList,
  reportStatus,
} from '../operator/peers.ts';
import { ServerWorld } from '../operator/serverWorld.ts';
import { eventually, untilCondition } from '../operator/waiting.ts';

let world: ServerWorld;

beforeAll(async () => {
  world = await ServerWorld.start();
});

afterAll(async () => {
  await world?.close();
});

beforeEach(() => {
  world.beginTest();
});

afterEach(async () => {
  await world.endTest();
});

describe('a machine on a real API server', () => {
  it('goes from applied manifests to Ready, and its status passes the schema', async () => {
    const { kube, namespace, server } = world;
    world.operate();
    await world.createAll();
    await untilCondition(kube, farshoreTypes.recoveryVault, world.at('vault'), {
      type: 'Ready',
      status: 'True',
    });
    const bootstrap = await bootstrapOf(kube, 'ps-bootstrap', namespace);
    const { objects } = world.stores();
    const asked = await askWithToken(objects, bootstrap);
    expect(await awaitAnswer(objects, asked.id)).toMatchObject({ outcome: 'accepted' });
    const machineId = await world.machineIdOf();
    await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
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
      const machine = await kube.get<ProtectedVM>(farshoreTypes.protectedVM, world.at('web'));
      expect(machine?.status).toMatchObject({
        phase: 'InitialReplication',
        initialReplication: { percent: 25, etaSeconds: 3 },
        offeredDisks: [{ device: '/dev/sda' }],
      });
    });
    await putPoint(objects, machineId);
    await reportStatus(objects, 'ps', [
      machineReport(machineId, {
        uploadedBarrier: { lsn: 12n, timeMs: systemClock.now(), consistency: 'Crash' },
      }),
    ]);
    await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
      type: 'Ready',
      status: 'True',
    });
    const machine = await kube.get<ProtectedVM>(farshoreTypes.protectedVM, world.at('web'));
    expect(machine?.status).toMatchObject({
      phase: 'Protected',
      recoveryPoints: { count: 1, newestCrash: { name: '12' } },
      positions: { captured: '30', recoveryPoint: '12' },
    });
    expect(server.kubectl(['-n', namespace, 'get', 'protectedvms', 'web'])).toContain('web');
    const metrics = (await world.running[0]?.operator.metrics.registry.metrics()) ?? '';
    expect(metrics).toMatch(
      new RegExp(`farshore_rpo_seconds\\{namespace="${namespace}",machine="web"\\} \\d`),
    );
    const events = server.kubectl(['-n', namespace, 'get', 'events', '-o', 'name']);
    expect(events.trim()).not.toBe('');
    expect(world.lines.filter((line) => line.level === 'error')).toEqual([]);
  });

  it('keeps the list’s generation over a restart, and rises RPO when all others are dead', async () => {
    const { kube, namespace } = world;
    const first = world.operate();
    await world.createAll();
    const bootstrap = await bootstrapOf(kube, 'ps-bootstrap', namespace);
    const { objects } = world.stores();
    await awaitAnswer(objects, (await askWithToken(objects, bootstrap)).id);
    const machineId = await world.machineIdOf();
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
    await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
      type: 'RecoveryPointCurrent',
      status: 'False',
      reason: 'ThresholdExceeded',
    });
    await first.stop();
    world.operate();
    await kube.patch(farshoreTypes.protectedVM, world.at('web'), {
      merge: { spec: { paused: true } },
    });
    await eventually(async () => {
      const after = await list();
      expect(after?.machines[0]?.paused).toBe(true);
      expect(after?.generation).toBe((before?.generation ?? 0) + 1);
    });
    const rpo = async () => {
      const metrics = (await world.running[1]?.operator.metrics.registry.metrics()) ?? '';
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
    const { azurite, kube } = world;
    world.operate();
    const type = farshoreTypes.recoveryVault;
    const dead = azurite.connectionString.replaceAll(`:${azurite.port}/`, ':9/');
    await world.createAll({ connectionString: dead });
    await untilCondition(kube, type, world.at('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'VaultUnreachable',
    });
    await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
      type: 'Accepted',
      status: 'False',
      reason: 'VaultNotReady',
    });
    const change = async (connectionString: string) =>
      await kube.patch(kubeTypes.secret, world.at('azure'), {
        merge: { data: { connectionString: Buffer.from(connectionString).toString('base64') } },
      });
    const wrongKey = Buffer.alloc(64, 7).toString('base64');
    await change(azurite.connectionString.replace(/AccountKey=[^;]+/, `AccountKey=${wrongKey}`));
    await untilCondition(kube, type, world.at('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'CredentialsRefused',
    });
    await change(azurite.connectionString);
    await untilCondition(kube, type, world.at('vault'), { type: 'Ready', status: 'True' });
    await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
      type: 'Accepted',
      status: 'True',
    });
  });

  it('makes a StatefulSet that the API server takes', async () => {
    const { kube } = world;
    world.operate();
    await world.createAll();
    const sts = processServer('sts', {
      mode: 'StatefulSet',
      replicas: 2,
      cache: { size: '10Gi' },
      image: 'farshore:1',
      resources: { requests: { cpu: '500m', memory: '512Mi' } },
    });
    const { exposure: _, ...spec } = sts.spec;
    await create(kube, world.inNamespace({ ...sts, spec }));
    await eventually(async () => {
      const set = await kube.get<KubeObject & { spec: object }>(
        kubeTypes.statefulSet,
        world.at('sts'),
      );
      expect(set?.spec).toMatchObject({ replicas: 2, podManagementPolicy: 'Parallel' });
      for (const name of ['sts', 'sts-0', 'sts-1'])
        expect(await kube.get(kubeTypes.service, world.at(name))).toBeDefined();
    });
    await eventually(async () => {
      const found = await kube.get<ProcessServer>(farshoreTypes.processServer, world.at('sts'));
      expect(found?.status).toMatchObject({ replicas: 2 });
      expect(found?.status?.selector).toContain('app.kubernetes.io/instance=sts');
    });
  });

  it('refuses failovers that can’t be, and says why for good', async () => {
    const { kube, namespace } = world;
    world.operate();
    await world.createAll();
    await world.machineIdOf();
    await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
      type: 'Accepted',
      status: 'True',
    });
    await create(
      kube,
      failover('no-point', { recoveryPoint: { type: 'Name', name: '77' } }, namespace),
      failover('no-machine', { machineRef: { name: 'nobody' } }, namespace),
    );
    const type = farshoreTypes.failover;
    await untilCondition(kube, type, world.at('no-point'), {
      type: 'Accepted',
      status: 'False',
      reason: 'PointNotFound',
    });
    await untilCondition(kube, type, world.at('no-point'), { type: 'Stalled', status: 'True' });
    await untilCondition(kube, type, world.at('no-machine'), {
      type: 'Accepted',
      status: 'False',
      reason: 'MachineNotFound',
    });
    await kube.remove(type, world.at('no-point'));
    await eventually(async () =>
      expect(await kube.get(type, world.at('no-point'))).toBeUndefined(),
    );
  });

  it('gives the name of a machine to one cluster alone', async () => {
    const { kube, namespace, server } = world;
    world.operate();
    await world.createAll();
    const machineId = await world.machineIdOf();
    const other = `${namespace}-other`;
    server.kubectl(['create', 'namespace', other]);
    world.operate({ namespace: other, holder: 'second cluster' });
    await world.createAll({ namespace: other });
    const condition = await untilCondition(
      kube,
      farshoreTypes.protectedVM,
      world.at('web', other),
      {
        type: 'Accepted',
        status: 'False',
        reason: 'NameTaken',
      },
    );
    expect(condition.message).toContain(`${namespace}/web`);
    await untilCondition(kube, farshoreTypes.recoveryVault, world.at('vault', other), {
      type: 'InControl',
      status: 'False',
      reason: 'HeldByOther',
    });
    expect(await world.machineIdOf()).toBe(machineId);
  });
});

describe('the process', () => {
  it('opens a vault, serves health and metrics, and ends in order on SIGTERM', async () => {
    const { kube, namespace, server } = world;
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
      await world.createAll();
      await untilCondition(kube, farshoreTypes.recoveryVault, world.at('vault'), {
        type: 'Ready',
        status: 'True',
      });
      await untilCondition(kube, farshoreTypes.protectedVM, world.at('web'), {
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
