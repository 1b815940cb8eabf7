/** The controllers' runtime against a real API server that is cut off, restarted and compacted. */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { Controller } from '../../controllers/runtime/controller.ts';
import { EventRecorder } from '../../controllers/runtime/eventRecorder.ts';
import { addFinalizer, removeFinalizer } from '../../controllers/runtime/finalizers.ts';
import { Informer } from '../../controllers/runtime/informer.ts';
import { LeaderElection } from '../../controllers/runtime/leaderElection.ts';
import { StatusWriter } from '../../controllers/runtime/statusWriter.ts';
import {
  API_GROUP_VERSION,
  farshoreTypes,
  type ReplicationPolicy,
  type ReplicationPolicyStatus,
} from '../../crds/index.ts';
import { connectKubernetes, type HttpKubeClient } from '../../platform/kube/client.ts';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { type LogLine, recordingLogger } from '../fakes/silentLogger.ts';
import { CuttableProxy } from '../servers/cuttableProxy.ts';
import { type FarshoreCluster, startFarshoreCluster } from '../servers/farshoreCluster.ts';
import type { KubernetesServer } from '../servers/kubernetes.ts';

type ConfigMap = KubeObject & { data?: Record<string, string> };

const type = kubeTypes.configMap;
let cluster: FarshoreCluster;
let server: KubernetesServer;
let client: HttpKubeClient;
let namespace: string;
let count = 0;
let undo: (() => void | Promise<void>)[];

beforeAll(async () => {
  cluster = await startFarshoreCluster();
  ({ client, server } = cluster);
});

afterAll(async () => {
  await cluster?.close();
});

beforeEach(() => {
  undo = [];
  count += 1;
  namespace = `runtime-${count}`;
  server.kubectl(['create', 'namespace', namespace]);
});

afterEach(async () => {
  for (const step of undo.reverse()) await step();
});

function configMap(name: string, value: string): ConfigMap {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { namespace, name }, data: { value } };
}

const put = (name: string, value: string) => client.apply<ConfigMap>(type, configMap(name, value));

/** A way to the API server that can be cut. */
async function proxied(): Promise<{ proxy: CuttableProxy; client: HttpKubeClient }> {
  const target = new URL(server.url);
  const proxy = await CuttableProxy.to({ host: target.hostname, port: Number(target.port) });
  const kubeconfig = path.join(server.directory, `proxied-${proxy.port}`);
  const direct = readFileSync(server.kubeconfigPath, 'utf8');
  writeFileSync(kubeconfig, direct.replace(server.url, `https://127.0.0.1:${proxy.port}`));
  const through = connectKubernetes({ kubeconfig });
  undo.push(async () => {
    through.close();
    await proxy.close();
  });
  return { proxy, client: through };
}

async function informed(options: { client?: HttpKubeClient; pageSize?: number } = {}) {
  const logger = recordingLogger();
  const stop = new AbortController();
  const informer = new Informer<ConfigMap>(
    { client: options.client ?? client, clock: systemClock, random: systemRandom, logger },
    { type, namespace, pageSize: options.pageSize ?? 500, backoff: { maxMs: 1_000 } },
  );
  const running = informer.run(stop.signal);
  undo.push(async () => {
    stop.abort(new Error('the test has ended'));
    await running;
  });
  await informer.untilSynced(AbortSignal.timeout(20_000));
  const values = () =>
    Object.fromEntries(informer.list().map((object) => [object.metadata.name, object.data?.value]));
  const shows = (expected: Record<string, string>) =>
    vi.waitFor(() => expect(values()).toEqual(expected), { timeout: 60_000, interval: 50 });
  return { informer, shows, lines: logger.lines as LogLine[] };
}

const codes = (lines: LogLine[]) => lines.map((line) => line.fields.code);

describe('the informer', () => {
  it('lists in pages and follows changes', async () => {
    const expected: Record<string, string> = {};
    for (let i = 0; i < 25; i++) {
      await put(`m${i}`, String(i));
      expected[`m${i}`] = String(i);
    }
    const { shows } = await informed({ pageSize: 7 });
    await shows(expected);
    await put('m3', 'new');
    await client.remove(type, { namespace, name: 'm4' });
    expected.m3 = 'new';
    delete expected.m4;
    await shows(expected);
  });

  it('goes on where it was after its connection was cut', async () => {
    const { proxy, client: through } = await proxied();
    await put('a', '1');
    const { shows, lines } = await informed({ client: through });
    proxy.cut();
    await put('a', '2');
    await put('b', '1');
    await vi.waitFor(() => expect(codes(lines)).toContain('Unreachable'), { timeout: 20_000 });
    await shows({ a: '1' });
    proxy.restore();
    await shows({ a: '2', b: '1' });
    expect(codes(lines)).not.toContain('Gone');
  });

  it('goes on after the API server was killed and started again', async () => {
    await put('a', '1');
    const { shows } = await informed();
    await server.restartApiServer();
    await put('a', '2');
    await put('b', '1');
    await shows({ a: '2', b: '1' });
    await put('b', '2');
    await shows({ a: '2', b: '2' });
  });

  it('lists again when its place in history is gone (410), and misses neither changes nor deletions', async () => {
    const { proxy, client: through } = await proxied();
    await put('a', '1');
    await put('b', '1');
    const { shows, lines } = await informed({ client: through });
    proxy.cut();
    await put('a', '2');
    await client.remove(type, { namespace, name: 'b' });
    await put('c', '1');
    await server.compact();
    await server.restartApiServer();
    proxy.restore();
    await shows({ a: '2', c: '1' });
    expect(codes(lines)).toContain('Gone');
    await put('c', '2');
    await shows({ a: '2', c: '2' });
  });
});

describe('a controller', () => {
  it('brings every object to what it asks, also those that came while the API server was away', async () => {
    const logger = recordingLogger();
    const stop = new AbortController();
    const deps = { client, clock: systemClock, random: systemRandom, logger };
    const informer = new Informer<ConfigMap>(deps, { type, namespace, backoff: { maxMs: 1_000 } });
    const controller = new Controller(deps, {
      name: 'copy',
      backoff: { maxMs: 1_000 },
      reconcile: async (key) => {
        const object = informer.get(key);
        if (object === undefined || object.data?.copy === object.data?.value) return undefined;
        await client.patch(type, object.metadata, {
          merge: { data: { copy: object.data?.value } },
        });
        return undefined;
      },
    }).watch(informer);
    const running = Promise.all([informer.run(stop.signal), controller.run(stop.signal)]);
    undo.push(async () => {
      stop.abort(new Error('the test has ended'));
      await running;
    });
    const copied = (name: string, value: string) =>
      vi.waitFor(
        async () =>
          expect((await client.get<ConfigMap>(type, { namespace, name }))?.data?.copy).toBe(value),
        { timeout: 60_000, interval: 100 },
      );
    await put('a', '1');
    await copied('a', '1');
    await server.restartApiServer();
    await put('b', '1');
    await put('a', '2');
    await copied('b', '1');
    await copied('a', '2');
  });

  it('holds a deleted object by its finalizer until it lets go', async () => {
    const object = await client.create(type, configMap('a', '1'));
    const finalizer = 'farshore.dev/finalizer';
    await addFinalizer(client, { type, object, finalizer });
    await client.remove(type, object.metadata);
    const held = await client.get<ConfigMap>(type, object.metadata);
    expect(held?.metadata.deletionTimestamp).toBeDefined();
    if (held === undefined) return;
    await removeFinalizer(client, { type, object: held, finalizer });
    expect(await client.get(type, object.metadata)).toBeUndefined();
  });
});

describe('leader election', () => {
  it('never has two at work, when the leader is cut off and when it goes', async () => {
    const cutOff = await proxied();
    const log: string[] = [];
    let atWork = 0;
    let most = 0;
    const lead = (identity: string, through: HttpKubeClient) => {
      const stop = new AbortController();
      const election = new LeaderElection(
        { client: through, clock: systemClock, random: systemRandom, logger: recordingLogger() },
        {
          lease: { namespace, name: 'operator' },
          identity,
          leaseDurationMs: 4_000,
          renewDeadlineMs: 2_500,
          retryPeriodMs: 300,
        },
      );
      const done = election.run(stop.signal, async (signal) => {
        atWork += 1;
        most = Math.max(most, atWork);
        log.push(`${identity} leads`);
        await new Promise<void>((resolve) =>
          signal.addEventListener('abort', () => resolve(), { once: true }),
        );
        log.push(`${identity} stops`);
        atWork -= 1;
      });
      undo.push(async () => {
        stop.abort(new Error('the test has ended'));
        await done;
      });
      return { stop, done };
    };
    const heard = (line: string) =>
      vi.waitFor(() => expect(log).toContain(line), { timeout: 30_000, interval: 20 });

    lead('first', cutOff.client);
    await heard('first leads');
    const second = lead('second', client);
    cutOff.proxy.cut();
    await heard('second leads');
    expect(log).toEqual(['first leads', 'first stops', 'second leads']);

    cutOff.proxy.restore();
    second.stop.abort(new Error('goodbye'));
    await second.done;
    await vi.waitFor(() => expect(log.at(-1)).toBe('first leads'), { timeout: 30_000 });
    expect(most).toBe(1);
  });
});

describe('status', () => {
  it('is one owner’s: stated by server-side apply, with conditions stamped', async () => {
    const policies = farshoreTypes.replicationPolicy;
    const writer = new StatusWriter({ client, clock: systemClock, random: systemRandom });
    const read = async () => {
      const object = await client.get<ReplicationPolicy>(policies, { namespace, name: 'p' });
      if (object === undefined) throw new Error('gone');
      return object;
    };
    await client.create<KubeObject>(policies, {
      apiVersion: API_GROUP_VERSION,
      kind: 'ReplicationPolicy',
      metadata: { namespace, name: 'p' },
      spec: {},
    } as KubeObject);
    const ready = {
      type: 'Ready',
      status: 'True',
      reason: 'Succeeded',
      message: 'as it should be',
    } as const;
    const first = await read();
    await writer.write<ReplicationPolicyStatus>(policies, first, {
      conditions: [ready],
      machines: 3,
      worstRpoSeconds: 20,
    });
    const second = await read();
    expect(second.status).toMatchObject({
      machines: 3,
      worstRpoSeconds: 20,
      observedGeneration: 1,
      conditions: [{ ...ready, observedGeneration: 1 }],
    });
    expect(second.spec).toEqual(first.spec);
    expect(second.metadata.generation).toBe(1);

    await writer.write<ReplicationPolicyStatus>(policies, second, {
      conditions: [{ ...ready, status: 'False', reason: 'Progressing' }],
      machines: 4,
    });
    const third = await read();
    expect(third.status?.worstRpoSeconds).toBeUndefined();
    expect(third.status?.machines).toBe(4);
    const { managedFields } = third.metadata as unknown as {
      managedFields: { manager: string; operation: string; subresource?: string }[];
    };
    expect(managedFields.filter(({ subresource }) => subresource === 'status')).toMatchObject([
      { manager: 'farshore', operation: 'Apply' },
    ]);

    await client.remove(policies, third.metadata);
    expect(
      await writer.write<ReplicationPolicyStatus>(policies, third, { conditions: [ready] }),
    ).toEqual({
      outcome: 'gone',
    });
    await client.create<KubeObject>(policies, {
      apiVersion: API_GROUP_VERSION,
      kind: 'ReplicationPolicy',
      metadata: { namespace, name: 'p' },
      spec: {},
    } as KubeObject);
    expect(
      await writer.write<ReplicationPolicyStatus>(policies, third, { conditions: [ready] }),
    ).toEqual({
      outcome: 'gone',
    });
    const namesake = await read();
    await writer.write<ReplicationPolicyStatus>(policies, namesake, {
      conditions: [{ ...ready, status: 'Unknown', reason: 'Pending' }],
    });
    expect((await read()).status?.conditions).toMatchObject([{ status: 'Unknown' }]);
  });
});

describe('events', () => {
  it('are seen by kubectl describe, and counted', async () => {
    const recorder = new EventRecorder(
      { client, clock: systemClock, random: systemRandom, logger: recordingLogger() },
      { controller: 'farshore.dev/operator', instance: 'operator-0' },
    );
    const object = await client.create(type, configMap('a', '1'));
    const happening = {
      type: 'Warning',
      reason: 'TrackingLost',
      message: 'The tracer lost writes.',
    } as const;
    for (let i = 0; i < 3; i++) recorder.record(object, happening);
    await recorder.flush();
    const { items } = await client.list<KubeObject & { series?: { count: number } }>(
      kubeTypes.event,
      {
        namespace,
        limit: 0,
      },
    );
    expect(items.map((event) => event.series?.count)).toEqual([3]);
    expect(server.kubectl(['describe', '-n', namespace, 'configmap/a'])).toMatch(
      /Warning\s+TrackingLost.*The tracer lost writes\./,
    );
  });
});
