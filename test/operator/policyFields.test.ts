/** What a ReplicationPolicy and its change do: to the signed list, to the catalog, to conditions, to what the policy itself shows. */
import { expect } from 'vitest';
import {
  farshoreTypes,
  type ReplicationPolicy,
  type ReplicationPolicySpec,
} from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { Assignment } from '../../vault/documents/assignments.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import { create, named, protectedVM, replicationPolicy } from './manifests.ts';
import { type MemoryWorld, test as worldTest } from './memoryWorld.ts';
import { bootstrapOf, listOf, machineReport, reportStatus } from './peers.ts';
import type { RunningOperator } from './runningOperator.ts';
import { eventually, untilCondition } from './waiting.ts';

const policies = farshoreTypes.replicationPolicy;
const machines = farshoreTypes.protectedVM;

/** Machine web, assigned to a process server that was taken in, under a policy that the test changes. */
class PolicySite {
  readonly operator: RunningOperator;
  readonly #world: MemoryWorld;
  readonly #pinned: string;

  private constructor(parts: { world: MemoryWorld; operator: RunningOperator; pinned: string }) {
    this.#world = parts.world;
    this.operator = parts.operator;
    this.#pinned = parts.pinned;
  }

  static async make(world: MemoryWorld): Promise<PolicySite> {
    const operator = world.operate();
    await world.createAll();
    const { bootstrap } = await world.enrolProcessServer();
    return new PolicySite({ world, operator, pinned: bootstrap.controllerPublicKey });
  }

  async change(spec: { [Field in keyof ReplicationPolicySpec]?: unknown }): Promise<void> {
    await this.#world.kube.patch(policies, named('policy'), { merge: { spec } });
  }

  /** What the process server is told of machine web, once it satisfies everything. */
  async untilAssigned(look: (assignment: Assignment) => void): Promise<void> {
    await eventually(async () => {
      const [assignment] = (await listOf(this.#world.objects, this.#pinned)).machines;
      if (assignment === undefined) throw new Error('web is not assigned yet');
      look(assignment);
    });
  }

  async untilCatalog(look: (entry: CatalogDocument) => void): Promise<void> {
    const machineId = await this.#world.machineIdOf();
    await eventually(async () => {
      const entry = await new Catalog({ store: this.#world.objects }).read(machineId);
      if (entry === undefined) throw new Error('web is not in the catalog yet');
      look(entry.document);
    });
  }
}

const test = worldTest.extend(
  'site',
  { auto: true },
  async ({ world }) => await PolicySite.make(world),
);

test('the intervals reach the process server, and a change of them too', async ({ site }) => {
  await site.untilAssigned(({ policy }) =>
    expect(policy).toEqual({ crashConsistentSeconds: 60, appConsistentSeconds: 0 }),
  );
  await site.change({ crashConsistentInterval: '15s' });
  await site.untilAssigned(({ policy }) =>
    expect(policy).toEqual({ crashConsistentSeconds: 15, appConsistentSeconds: 0 }),
  );
  await site.change({ crashConsistentInterval: '1h', appConsistentInterval: '2h' });
  await site.untilAssigned(({ policy }) =>
    expect(policy).toEqual({ crashConsistentSeconds: 3_600, appConsistentSeconds: 7_200 }),
  );
  await site.change({ appConsistentInterval: null });
  await site.untilAssigned(({ policy }) => expect(policy.appConsistentSeconds).toBe(0));
});

test('the hooks’ directory and timeout reach the process server, and their end too', async ({
  site,
}) => {
  const hooks = { directory: '/etc/farshore/hooks.d', timeout: '90s' };
  await site.change({ appConsistentInterval: '1h', hooks });
  await site.untilAssigned(({ policy }) =>
    expect(policy.hooks).toEqual({ directory: '/etc/farshore/hooks.d', timeoutSeconds: 90 }),
  );
  await site.change({ hooks: { directory: '/srv/quiesce', timeout: '2m' } });
  await site.untilAssigned(({ policy }) =>
    expect(policy.hooks).toEqual({ directory: '/srv/quiesce', timeoutSeconds: 120 }),
  );
  await site.change({ hooks: null });
  await site.untilAssigned(({ policy }) => expect(policy.hooks).toBeUndefined());
});

test('the retention stands in the catalog, where appliers read it, and follows the policy that a machine names', async ({
  site,
  world,
}) => {
  const { kube } = world;
  await site.untilCatalog(({ policy }) =>
    expect(policy).toMatchObject({ name: 'policy', retentionSeconds: 86_400 }),
  );
  await site.change({ retention: '48h' });
  await site.untilCatalog(({ policy }) =>
    expect(policy).toMatchObject({ name: 'policy', retentionSeconds: 172_800 }),
  );
  const brief = replicationPolicy('brief');
  brief.spec.retention = '1h';
  await create(kube, brief);
  await kube.patch(machines, named('web'), { merge: { spec: { policyRef: { name: 'brief' } } } });
  await site.untilCatalog(({ policy }) =>
    expect(policy).toMatchObject({ name: 'brief', retentionSeconds: 3_600 }),
  );
});

test('the share to be verified stands in the catalog too', async ({ site }) => {
  await site.untilCatalog(({ policy }) => expect(policy.verifiedSharePerDay).toBe(1));
  await site.change({ sampledVerification: { sharePerDay: 0 } });
  await site.untilCatalog(({ policy }) => expect(policy.verifiedSharePerDay).toBe(0));
});

test('the window of resyncs reaches the process server, its end and an exception for one machine too', async ({
  site,
  world,
}) => {
  const resyncWindow = {
    days: ['Mon', 'Tue'],
    from: '20:00',
    to: '06:00',
    timeZone: 'Europe/Zurich',
    urgent: ['VaultGap'],
  };
  await site.change({ resyncWindow });
  await site.untilAssigned(({ policy }) => expect(policy.resyncWindow).toEqual(resyncWindow));
  const annotate = async (value: string | null) =>
    await world.kube.patch(machines, named('web'), {
      merge: { metadata: { annotations: { 'farshore.dev/resync-now': value } } },
    });
  await annotate('true');
  await site.untilAssigned(({ policy }) => expect(policy.resyncWindow).toBeUndefined());
  await annotate(null);
  await site.untilAssigned(({ policy }) => expect(policy.resyncWindow).toEqual(resyncWindow));
  await site.change({ resyncWindow: { timeZone: 'Europe/Atlantis' } });
  const told = await untilCondition(world.kube, policies, named('policy'), {
    type: 'Ready',
    status: 'False',
    reason: 'TimeZoneUnknown',
  });
  expect(told.message).toContain('Europe/Atlantis');
  await site.untilAssigned(({ policy }) => expect(policy.resyncWindow).toBeUndefined());
});

test('the threshold decides whether a machine’s newest barrier is too old', async ({
  site,
  world,
}) => {
  const { kube, objects } = world;
  const machineId = await world.machineIdOf();
  const timeMs = systemClock.now() - 300_000;
  await reportStatus(objects, 'ps', [
    machineReport(machineId, { uploadedBarrier: { lsn: 10n, timeMs, consistency: 'Crash' } }),
  ]);
  const current = { type: 'RecoveryPointCurrent' };
  await untilCondition(kube, machines, named('web'), { ...current, status: 'True' });
  await site.change({ rpoThreshold: '2m' });
  const told = await untilCondition(kube, machines, named('web'), {
    ...current,
    status: 'False',
    reason: 'ThresholdExceeded',
  });
  expect(told.message).toContain('2m');
  expect(await site.operator.operator.metrics.registry.metrics()).toContain(
    'farshore_rpo_threshold_seconds{namespace="default",machine="web"} 120',
  );
  await site.change({ rpoThreshold: '10m' });
  await untilCondition(kube, machines, named('web'), { ...current, status: 'True' });
});

test('a machine goes on under the policy that it last saw when that is deleted, and says so', async ({
  site,
  world,
}) => {
  const { kube } = world;
  await site.change({ crashConsistentInterval: '30s' });
  await site.untilAssigned(({ policy }) => expect(policy.crashConsistentSeconds).toBe(30));
  await kube.remove(policies, named('policy'));
  await untilCondition(kube, machines, named('web'), {
    type: 'Accepted',
    status: 'False',
    reason: 'PolicyNotFound',
  });
  // Something that has every list looked at again.
  await kube.patch(farshoreTypes.processServer, named('ps'), { merge: { spec: { port: 9555 } } });
  await eventually(async () => expect((await bootstrapOf(kube, 'ps-bootstrap')).port).toBe(9555));
  await site.untilAssigned(({ policy }) => expect(policy.crashConsistentSeconds).toBe(30));
});

test('a policy shows who follows it, and the worst RPO among them', async ({ world }) => {
  const { kube, objects } = world;
  await create(kube, protectedVM('db'));
  const barriers = [
    machineReport(await world.machineIdOf(), barrierOf(100_000)),
    machineReport(await world.machineIdOf('db'), barrierOf(400_000)),
  ];
  await reportStatus(objects, 'ps', barriers);
  for (const name of ['web', 'db'])
    await untilCondition(kube, machines, named(name), {
      type: 'RecoveryPointCurrent',
      status: 'True',
    });
  const status = await followedAs(world, 'late');
  expect(status).toMatchObject({ machines: 2, observedGeneration: 1 });
  expect(status?.worstRpoSeconds).toBeGreaterThanOrEqual(400);
  expect(status?.worstRpoSeconds).toBeLessThan(460);
  expect(status?.conditions?.map(({ type, status: is }) => [type, is]).sort()).toEqual([
    ['Ready', 'True'],
    ['Reconciling', 'False'],
    ['Stalled', 'False'],
  ]);
  const unnamed = await followedAs(world, 'unnamed', { machines: [] });
  expect(unnamed).toMatchObject({ machines: 0 });
  expect(unnamed?.worstRpoSeconds).toBeUndefined();
});

function barrierOf(ageMs: number) {
  const timeMs = systemClock.now() - ageMs;
  return { uploadedBarrier: { lsn: 10n, timeMs, consistency: 'Crash' as const } };
}

/** The first status of a policy that comes to be when machines name it already. */
async function followedAs(
  { kube }: MemoryWorld,
  name: string,
  options = { machines: ['web', 'db'] },
) {
  for (const machine of options.machines)
    await kube.patch(machines, named(machine), { merge: { spec: { policyRef: { name } } } });
  await create(kube, replicationPolicy(name));
  return await eventually(() => {
    const { status } = kube.peek<ReplicationPolicy>(policies, named(name)) ?? {};
    if (status?.machines !== options.machines.length) throw new Error(`no status of ${name} yet`);
    return status;
  });
}
