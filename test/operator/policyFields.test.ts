/** What a ReplicationPolicy and its change do: to the signed list, to the catalog, to conditions, to what the policy itself shows. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  farshoreTypes,
  type ProtectedVM,
  type ReplicationPolicy,
  type ReplicationPolicySpec,
} from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { Assignment, CatalogDocument } from '../../vault/documents.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { FakeKube } from '../fakes/kube.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import {
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  create,
  eventually,
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
} from './harness.ts';

const policies = farshoreTypes.replicationPolicy;
const machines = farshoreTypes.protectedVM;
const recovery = generateRecoveryKey(systemRandom);
let kube: FakeKube;
let objects: MemoryObjectStore;
let operator: RunningOperator;
let pinned: string;

beforeEach(async () => {
  kube = new FakeKube();
  objects = new MemoryObjectStore({ clock: systemClock });
  const pages = new MemoryPageBlobStore({ clock: systemClock });
  const compute = new MemoryCompute({ pages });
  operator = startOperator({
    kube,
    log: silentLogger,
    stores: () => ({
      objects,
      pages,
      compute,
      images: compute,
      ensureContainer: async () => {},
      close: async () => {},
    }),
  });
  await create(
    kube,
    secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
    secret('passphrase', { passphrase: PASSPHRASE }),
    recoveryVault({ recipients: [recovery.publicString] }),
    replicationPolicy(),
    processServer(),
    protectedVM(),
  );
  const bootstrap = await bootstrapOf(kube, 'ps-bootstrap');
  pinned = bootstrap.controllerPublicKey;
  const asked = await askWithToken(objects, bootstrap);
  expect(await awaitAnswer(objects, asked.id)).toMatchObject({ outcome: 'accepted' });
});

afterEach(async () => {
  await operator.stop();
});

async function change(spec: { [Field in keyof ReplicationPolicySpec]?: unknown }): Promise<void> {
  await kube.patch(policies, named('policy'), { merge: { spec } });
}

async function machineIdOf(name = 'web'): Promise<string> {
  return await eventually(() => {
    const id = kube.peek<ProtectedVM>(machines, named(name))?.status?.machineId;
    if (id === undefined) throw new Error(`${name} has no machineId yet`);
    return id;
  });
}

/** What the process server is told of machine web, once it satisfies everything. */
async function untilAssigned(look: (assignment: Assignment) => void): Promise<void> {
  await eventually(async () => {
    const list = await readList(objects, { processServer: 'ps', pinned });
    const [assignment] = list?.machines ?? [];
    if (assignment === undefined) throw new Error('web is not assigned yet');
    look(assignment);
  });
}

async function untilCatalog(look: (entry: CatalogDocument) => void): Promise<void> {
  const machineId = await machineIdOf();
  await eventually(async () => {
    const entry = await new Catalog({ store: objects }).read(machineId);
    if (entry === undefined) throw new Error('web is not in the catalog yet');
    look(entry.document);
  });
}

test('the intervals reach the process server, and a change of them too', async () => {
  await untilAssigned(({ policy }) =>
    expect(policy).toEqual({ crashConsistentSeconds: 60, appConsistentSeconds: 0 }),
  );
  await change({ crashConsistentInterval: '15s' });
  await untilAssigned(({ policy }) =>
    expect(policy).toEqual({ crashConsistentSeconds: 15, appConsistentSeconds: 0 }),
  );
  await change({ crashConsistentInterval: '1h', appConsistentInterval: '2h' });
  await untilAssigned(({ policy }) =>
    expect(policy).toEqual({ crashConsistentSeconds: 3_600, appConsistentSeconds: 7_200 }),
  );
  await change({ appConsistentInterval: null });
  await untilAssigned(({ policy }) => expect(policy.appConsistentSeconds).toBe(0));
});

test('the hooks’ directory and timeout reach the process server, and their end too', async () => {
  const hooks = { directory: '/etc/farshore/hooks.d', timeout: '90s' };
  await change({ appConsistentInterval: '1h', hooks });
  await untilAssigned(({ policy }) =>
    expect(policy.hooks).toEqual({ directory: '/etc/farshore/hooks.d', timeoutSeconds: 90 }),
  );
  await change({ hooks: { directory: '/srv/quiesce', timeout: '2m' } });
  await untilAssigned(({ policy }) =>
    expect(policy.hooks).toEqual({ directory: '/srv/quiesce', timeoutSeconds: 120 }),
  );
  await change({ hooks: null });
  await untilAssigned(({ policy }) => expect(policy.hooks).toBeUndefined());
});

test('the retention stands in the catalog, where appliers read it, and follows the policy that a machine names', async () => {
  await untilCatalog(({ policy }) =>
    expect(policy).toEqual({ name: 'policy', retentionSeconds: 86_400 }),
  );
  await change({ retention: '48h' });
  await untilCatalog(({ policy }) =>
    expect(policy).toEqual({ name: 'policy', retentionSeconds: 172_800 }),
  );
  const brief = replicationPolicy('brief');
  brief.spec.retention = '1h';
  await create(kube, brief);
  await kube.patch(machines, named('web'), { merge: { spec: { policyRef: { name: 'brief' } } } });
  await untilCatalog(({ policy }) =>
    expect(policy).toEqual({ name: 'brief', retentionSeconds: 3_600 }),
  );
});

test('the threshold decides whether a machine’s newest barrier is too old', async () => {
  const machineId = await machineIdOf();
  const timeMs = systemClock.now() - 300_000;
  await reportStatus(objects, 'ps', [
    machineReport(machineId, { uploadedBarrier: { lsn: 10n, timeMs, consistency: 'Crash' } }),
  ]);
  const current = { type: 'RecoveryPointCurrent' };
  await untilCondition(kube, machines, named('web'), { ...current, status: 'True' });
  await change({ rpoThreshold: '2m' });
  const told = await untilCondition(kube, machines, named('web'), {
    ...current,
    status: 'False',
    reason: 'ThresholdExceeded',
  });
  expect(told.message).toContain('2m');
  expect(await operator.operator.metrics.registry.metrics()).toContain(
    'farshore_rpo_threshold_seconds{namespace="default",machine="web"} 120',
  );
  await change({ rpoThreshold: '10m' });
  await untilCondition(kube, machines, named('web'), { ...current, status: 'True' });
});

test('a machine goes on under the policy that it last saw when that is deleted, and says so', async () => {
  await change({ crashConsistentInterval: '30s' });
  await untilAssigned(({ policy }) => expect(policy.crashConsistentSeconds).toBe(30));
  await kube.remove(policies, named('policy'));
  await untilCondition(kube, machines, named('web'), {
    type: 'Accepted',
    status: 'False',
    reason: 'PolicyNotFound',
  });
  // Something that has every list looked at again.
  await kube.patch(farshoreTypes.processServer, named('ps'), { merge: { spec: { port: 9555 } } });
  await eventually(async () => expect((await bootstrapOf(kube, 'ps-bootstrap')).port).toBe(9555));
  await untilAssigned(({ policy }) => expect(policy.crashConsistentSeconds).toBe(30));
});

test('a policy shows who follows it, and the worst RPO among them', async () => {
  await create(kube, protectedVM('db'));
  const barriers = [
    machineReport(await machineIdOf(), barrierOf(100_000)),
    machineReport(await machineIdOf('db'), barrierOf(400_000)),
  ];
  await reportStatus(objects, 'ps', barriers);
  for (const name of ['web', 'db'])
    await untilCondition(kube, machines, named(name), {
      type: 'RecoveryPointCurrent',
      status: 'True',
    });
  const status = await followedAs('late');
  expect(status).toMatchObject({ machines: 2, observedGeneration: 1 });
  expect(status?.worstRpoSeconds).toBeGreaterThanOrEqual(400);
  expect(status?.worstRpoSeconds).toBeLessThan(460);
  expect(status?.conditions?.map(({ type, status: is }) => [type, is]).sort()).toEqual([
    ['Ready', 'True'],
    ['Reconciling', 'False'],
    ['Stalled', 'False'],
  ]);
  const unnamed = await followedAs('unnamed', { machines: [] });
  expect(unnamed).toMatchObject({ machines: 0 });
  expect(unnamed?.worstRpoSeconds).toBeUndefined();
});

function barrierOf(ageMs: number) {
  const timeMs = systemClock.now() - ageMs;
  return { uploadedBarrier: { lsn: 10n, timeMs, consistency: 'Crash' as const } };
}

/** The first status of a policy that comes to be when machines name it already. */
async function followedAs(name: string, options = { machines: ['web', 'db'] }) {
  for (const machine of options.machines)
    await kube.patch(machines, named(machine), { merge: { spec: { policyRef: { name } } } });
  await create(kube, replicationPolicy(name));
  return await eventually(() => {
    const { status } = kube.peek<ReplicationPolicy>(policies, named(name)) ?? {};
    if (status?.machines !== options.machines.length) throw new Error(`no status of ${name} yet`);
    return status;
  });
}
