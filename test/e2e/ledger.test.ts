/** A Failover happens once: deleted and applied again, or applied in a second, fresh cluster, it is adopted and nothing is made twice. */
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Failover, farshoreTypes, type RecoveryVault } from '../../crds/index.ts';
import type { Cloud } from '../../hack/demonstration/cloud.ts';
import {
  applyMachine,
  applyTakeover,
  failoverManifest,
  installCrds,
  NAMESPACE,
  VAULT,
} from '../../hack/demonstration/manifests.ts';
import { tail } from '../../hack/demonstration/process.ts';
import { getObject } from '../../hack/demonstration/watch.ts';
import type { KubeObject } from '../../platform/kubernetes.ts';
import { startKubernetes } from '../servers/kubernetes.ts';
import { ModelSite } from './modelSite.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const NAME = 'shop-disaster';
const workplace = makeWorkplace();
let site: ModelSite;

beforeAll(async () => {
  site = await ModelSite.start(workplace);
});

afterAll(async () => {
  await workplace.leave();
});

test('a Failover that is applied again, here and in a second cluster, is adopted: one create a resource', async () => {
  const model = await site.addMachine('shop');
  await site.createFailover({ type: 'Unplanned', name: NAME, machine: 'shop' });
  await site.untilOutcome(NAME, 'FailedOver');
  const created = await site.cloud.arm.control.creations();
  expect(Object.values(created)).toEqual([1, 1, 1, 1]);

  const place = { namespace: NAMESPACE, name: NAME };
  await site.kube.remove(farshoreTypes.failover, place);
  await eventually({ what: 'the Failover is gone', timeoutMs: 30_000 }, async () =>
    (await site.failover(NAME)) === undefined ? true : undefined,
  );
  await site.createFailover({ type: 'Unplanned', name: NAME, machine: 'shop' });
  const again = await site.failoverHas(NAME, 'Accepted', 'True');
  expect(again).toMatchObject({ reason: 'AdoptedFromLedger' });
  const shown = (await site.failover(NAME))?.status;
  expect(shown).toMatchObject({ phase: 'FailedOver', machineId: model.machineId });
  expect(await site.cloud.arm.control.creations()).toEqual(created);

  // The first cluster is lost; a second one takes over, and Git applies the Failover there too.
  await site.operator.kill();
  await site.cloud.kubernetes.stop();
  const kubernetes = await startKubernetes({ dir: path.join(workplace.folder, 'second') });
  workplace.undo.add('stop the second Kubernetes', () => kubernetes.stop());
  const second = { ...site.cloud, kubernetes };
  installCrds(second);
  const operator = site.startOperator({ cloud: second });
  const { recoveryKey } = site;
  const secondSite = { ...site.site, cloud: second };
  applyTakeover(secondSite, { recoveryKey, fromEpoch: 7 });
  const watching = await vaultHas(second, { type: 'InControl', status: 'False' });
  expect(watching.message).toMatch(/set spec.takeControlFromEpoch to 1\./);
  applyTakeover(secondSite, { recoveryKey, fromEpoch: 1 });
  await vaultHas(second, { type: 'InControl', status: 'True' });
  applyMachine(
    second,
    model.disks.map(({ index, name }) => ({ name, device: `/dev/sd${index}` })),
    { name: 'shop' },
  );
  const wish = { type: 'Unplanned' as const, name: NAME, machine: 'shop' };
  const manifest = failoverManifest({ ...wish, spec: { desiredState: 'Committed' } });
  kubernetes.kubectl(['apply', '-f', '-'], { input: JSON.stringify(manifest) });
  const committed = await eventually(
    { what: 'the adopted Failover is committed', timeoutMs: 60_000, everyMs: 500 },
    () => {
      const seen = getObject<Failover & KubeObject>(second, 'failover', NAME);
      if (seen?.status?.phase === 'Committed') return seen;
      throw new Error(`${JSON.stringify(seen?.status?.conditions)}\n${tail(operator)}`);
    },
  );
  expect(committed.status?.conditions?.find((one) => one.type === 'Accepted')).toMatchObject({
    status: 'True',
    reason: 'AdoptedFromLedger',
  });
  expect(await site.cloud.arm.control.creations()).toEqual(created);
  expect((await site.madeBy(NAME)).length).toBe(4);
  expect(await site.temporaryKeys(NAME, model.machineId)).toEqual([]);

  // The recovery key goes back to where it is kept: the cluster has a key of its own by now.
  await operator.kill();
  kubernetes.kubectl(['delete', 'secret', 'recovery-key', '-n', NAMESPACE]);
  const spec = { vaultKeySecretRef: null, takeControlFromEpoch: null };
  kubernetes.kubectl([
    ...['patch', 'recoveryvault', VAULT, '-n', NAMESPACE, '--type=merge'],
    ...['-p', JSON.stringify({ metadata: { annotations: { changed: 'now' } }, spec })],
  ]);
  site.startOperator({ cloud: second });
  const generation = getObject<RecoveryVault>(second, 'recoveryvault', VAULT)?.metadata.generation;
  const kept = await vaultHas(second, { type: 'InControl', status: 'True', generation });
  expect(kept.message).toMatch(/epoch 2/);
}, 180_000);

async function vaultHas(
  cloud: Cloud,
  wanted: { type: string; status: string; generation?: number | undefined },
): Promise<{ message: string }> {
  const { type, status, generation = 1 } = wanted;
  return await eventually(
    { what: `the vault: ${type}=${status}`, timeoutMs: 60_000, everyMs: 500 },
    () => {
      const vault = getObject<RecoveryVault>(cloud, 'recoveryvault', VAULT);
      const found = vault?.status?.conditions?.find((one) => one.type === type);
      const isNew = (found?.observedGeneration ?? 0) >= generation;
      if (found?.status === status && isNew) return { message: found.message ?? '' };
      throw new Error(JSON.stringify(vault?.status?.conditions));
    },
  );
}
