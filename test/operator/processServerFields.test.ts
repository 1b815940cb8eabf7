/** What a ProcessServer's fields do to its bootstrap files, certificates, enrolments and lists, and what it shows of its replicas. */
import { X509Certificate } from 'node:crypto';
import { describe, expect } from 'vitest';
import { farshoreTypes, type ProcessServer } from '../../crds/index.ts';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Catalog } from '../../vault/catalog.ts';
import {
  create,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  replicationPolicy,
  secret,
} from './manifests.ts';
import { type MemoryWorld, test as worldTest } from './memoryWorld.ts';
import {
  askAsAgent,
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  listOf,
  machineReport,
  reportStatus,
} from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

const type = farshoreTypes.processServer;

/** An operator, a vault and a policy; no process server yet. */
const test = worldTest.extend('operator', { auto: true }, async ({ world }) => {
  const operator = world.operate();
  await create(world.kube, world.vault(), replicationPolicy());
  return operator;
});

function stateful(spec: Partial<ProcessServer['spec']>): ProcessServer {
  const server = processServer('sts', {
    mode: 'StatefulSet',
    cache: { size: '10Gi' },
    image: 'farshore:1',
    ...spec,
  });
  if (spec.exposure === undefined) delete server.spec.exposure;
  return server;
}

function seen({ kube }: MemoryWorld, name = 'ps'): ProcessServer['status'] {
  return kube.peek<ProcessServer>(type, named(name))?.status;
}

async function change({ kube }: MemoryWorld, name: string, spec: object): Promise<void> {
  await kube.patch(type, named(name), { merge: { spec } });
}

describe('where agents reach it', () => {
  test('stands in its bootstrap file and in its certificate, and so does its port', async ({
    world,
  }) => {
    const { kube, objects } = world;
    await create(kube, processServer());
    const bootstrap = await bootstrapOf(kube, 'ps-bootstrap');
    expect(bootstrap).toMatchObject({
      port: 9443,
      endpoints: ['ps.example:9443', '[2001:db8::1]:9443'],
    });
    const asked = await askWithToken(objects, bootstrap);
    const answer = await awaitAnswer(objects, asked.id);
    if (answer.outcome !== 'accepted') throw new Error(answer.message);
    const names = new X509Certificate(answer.certificatePem).subjectAltName ?? '';
    expect(names).toContain('DNS:ps.example');
    expect(names).toContain('IP Address:2001:DB8:0:0:0:0:0:1');
    await change(world, 'ps', { port: 9555, exposure: { endpoints: ['other.example:9555'] } });
    await eventually(async () =>
      expect(await bootstrapOf(kube, 'ps-bootstrap')).toMatchObject({
        port: 9555,
        endpoints: ['other.example:9555'],
      }),
    );
  });

  test('is known of a load balancer only once it has an address: until then there is no bootstrap file', async ({
    world,
  }) => {
    const { kube } = world;
    await create(kube, stateful({ exposure: { serviceType: 'LoadBalancer' } }));
    const service = await eventually(() => {
      const found = kube.peek<KubeObject & { spec: { type: string } }>(
        kubeTypes.service,
        named('sts-0'),
      );
      if (found === undefined) throw new Error('no Service yet');
      return found;
    });
    expect(service.spec.type).toBe('LoadBalancer');
    await untilCondition(kube, type, named('sts'), { type: 'Accepted', status: 'True' });
    expect(kube.peek(kubeTypes.secret, named('sts-0-bootstrap'))).toBeUndefined();
    kube.seed(kubeTypes.service, {
      ...service,
      status: { loadBalancer: { ingress: [{ ip: '192.0.2.9' }] } },
    } as KubeObject);
    // Whatever has it looked at again.
    await change(world, 'sts', { port: 9444 });
    expect((await bootstrapOf(kube, 'sts-0-bootstrap')).endpoints).toEqual(['192.0.2.9:9444']);
  });
});

test('agents enrol with the passphrase of the entry that it names, and with no other', async ({
  world,
}) => {
  const { kube, objects } = world;
  const other = secret('other', { phrase: 'another passphrase altogether' });
  await create(kube, other, processServer(), protectedVM());
  await world.machineIdOf('web');
  const ask = async (passphrase: string) =>
    await awaitAnswer(
      objects,
      (await askAsAgent(objects, { name: 'web', via: 'ps', passphrase })).id,
    );
  expect(await ask(PASSPHRASE)).toMatchObject({ outcome: 'accepted' });
  await change(world, 'ps', { passphraseSecretRef: { name: 'other', key: 'phrase' } });
  expect(await ask(PASSPHRASE)).toMatchObject({ outcome: 'refused', code: 'WrongPassphrase' });
  expect(await ask('another passphrase altogether')).toMatchObject({ outcome: 'accepted' });
  await change(world, 'ps', { passphraseSecretRef: { name: 'nowhere', key: 'phrase' } });
  // Everything else that it does goes on; the agent waits, and it is said for what.
  const waits = await askAsAgent(objects, { name: 'web', via: 'ps' });
  await eventually(() => {
    const told = seen(world)?.conditions?.find((one) => one.reason === 'SecretNotFound');
    expect(told).toMatchObject({ status: 'False', message: expect.stringContaining('nowhere') });
  });
  await change(world, 'ps', { passphraseSecretRef: { name: 'passphrase', key: 'passphrase' } });
  expect(await awaitAnswer(objects, waits.id)).toMatchObject({ outcome: 'accepted' });
});

test('more replicas get bootstrap files and share the machines out; fewer give theirs to those that stay', async ({
  world,
}) => {
  const { kube, objects } = world;
  await create(
    kube,
    stateful({ replicas: 1 }),
    ...['a', 'b'].map((name) => protectedVM(name, { processServerRef: { name: 'sts' } })),
  );
  const ownerOf = async (name: string) => {
    const entry = await new Catalog({ store: objects }).read(await world.machineIdOf(name));
    return entry?.document;
  };
  await eventually(async () => {
    expect((await ownerOf('a'))?.processServer).toBe('sts-0');
    expect((await ownerOf('b'))?.processServer).toBe('sts-0');
  });
  await eventually(() =>
    expect(seen(world, 'sts')).toMatchObject({
      replicas: 1,
      selector: expect.stringContaining('app.kubernetes.io/instance=sts'),
    }),
  );
  await change(world, 'sts', { replicas: 2 });
  expect((await bootstrapOf(kube, 'sts-1-bootstrap')).name).toBe('sts-1');
  await create(kube, protectedVM('c', { processServerRef: { name: 'sts' } }));
  await eventually(async () => expect((await ownerOf('c'))?.processServer).toBe('sts-1'));
  await eventually(() => expect(seen(world, 'sts')?.replicas).toBe(2));
  await change(world, 'sts', { replicas: 1 });
  await eventually(async () =>
    // Under a higher epoch, as whoever served it may still believe that it does.
    expect(await ownerOf('c')).toMatchObject({ processServer: 'sts-0', writerEpoch: 2 }),
  );
  await eventually(() => expect(seen(world, 'sts')?.replicas).toBe(1));
});

test('its bandwidth is in its signed list, in bytes, and changes there', async ({ world }) => {
  const { kube, objects } = world;
  await create(
    kube,
    processServer('ps', {
      bandwidth: {
        limit: '80M',
        windows: [
          { days: ['Mon'], from: '08:00', to: '18:00', timeZone: 'Europe/Zurich', limit: '8M' },
          { from: '22:00', to: '06:00', timeZone: 'UTC' },
        ],
      },
    }),
    protectedVM(),
  );
  const { controllerPublicKey } = await bootstrapOf(kube, 'ps-bootstrap');
  const bandwidth = async () => (await listOf(objects, controllerPublicKey)).bandwidth;
  await eventually(async () =>
    expect(await bandwidth()).toEqual({
      bytesPerSecond: 10_000_000,
      windows: [
        {
          days: ['Mon'],
          from: '08:00',
          to: '18:00',
          timeZone: 'Europe/Zurich',
          bytesPerSecond: 1_000_000,
        },
        { from: '22:00', to: '06:00', timeZone: 'UTC' },
      ],
    }),
  );
  await change(world, 'ps', { bandwidth: { limit: '512k', windows: null } });
  await eventually(async () =>
    expect(await bandwidth()).toEqual({ bytesPerSecond: 64_000, windows: [] }),
  );
});

test('what a replica reports is shown, and given to the metrics', async ({ operator, world }) => {
  const { kube, objects } = world;
  await create(kube, processServer(), protectedVM());
  const machineId = await world.machineIdOf('web');
  const heartbeatMs = systemClock.now() - 1_000;
  await reportStatus(objects, 'ps', [machineReport(machineId)], {
    heartbeatMs,
    version: '2.0.1',
    cache: { totalBytes: 4_000, freeBytes: 3_000, oldestNotUploadedMs: heartbeatMs - 9_000 },
    throughput: { inBytesPerSecond: 70, outBytesPerSecond: 50 },
  });
  await eventually(() =>
    expect(seen(world)).toMatchObject({
      replicas: 1,
      selector: '',
      machines: 1,
      bootstrapSecretName: 'ps-bootstrap',
      heartbeatTime: new Date(heartbeatMs).toISOString(),
      assignments: { controllerEpoch: 1, generation: expect.any(Number) },
      observedGeneration: 1,
      replicaStatuses: [
        {
          name: 'ps',
          version: '2.0.1',
          machines: 1,
          heartbeatTime: new Date(heartbeatMs).toISOString(),
          cache: {
            totalBytes: 4_000,
            freeBytes: 3_000,
            oldestNotUploadedTime: new Date(heartbeatMs - 9_000).toISOString(),
          },
          throughput: { inBytesPerSecond: 70, outBytesPerSecond: 50 },
        },
      ],
    }),
  );
  const text = await operator.operator.metrics.registry.metrics();
  for (const [name, value] of [
    ['cache_total_bytes', 4_000],
    ['cache_free_bytes', 3_000],
    ['in_bytes_per_second', 70],
    ['out_bytes_per_second', 50],
    ['machines', 1],
  ])
    expect(text).toContain(
      `farshore_process_server_${name}{namespace="default",process_server="ps"} ${value}`,
    );
});
