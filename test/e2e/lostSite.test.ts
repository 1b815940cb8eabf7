/**
 * Recovery when everything of the site is gone: source disks, agent, process server, applier, the API server with all its objects. What
 * is left is the vault, Azure, the manifests in somebody's Git and a recovery key.
 */
import { rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ProtectedVM, RecoveryVault } from '../../crds/index.ts';
import type { Cloud } from '../../hack/demonstration/cloud.ts';
import { startOperator } from '../../hack/demonstration/farshore.ts';
import {
  applyMachine,
  applyTakeover,
  installCrds,
  MACHINE,
  RECOVERED,
  VAULT,
} from '../../hack/demonstration/manifests.ts';
import { tail } from '../../hack/demonstration/process.ts';
import { verdictOf } from '../../hack/demonstration/verdict.ts';
import { getObject, isTrue } from '../../hack/demonstration/watch.ts';
import { lastDurableRecord } from '../machines/workload.ts';
import { startKubernetes } from '../servers/kubernetes.ts';
import { isolate } from './isolation.ts';
import {
  createFailover,
  OPERATOR_FLAGS,
  type ProtectedSite,
  startProtectedSite,
  untilNewPoint,
  untilPhase,
} from './protectedSite.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const workplace = makeWorkplace();
let site: ProtectedSite;

beforeAll(async () => {
  site = await startProtectedSite(workplace);
});

afterAll(async () => {
  await workplace.leave();
});

test('a fresh cluster that reaches only vault and Azure brings the machine up, with all that the last barrier promised', async () => {
  const { points, source, cloud } = site;
  await untilNewPoint(site, { points, after: (await points()).length });
  const epoch = getObject<RecoveryVault>(cloud, 'recoveryvault', VAULT)?.status?.controllerEpoch;
  await loseEverything();

  const vaultPort = Number(new URL(cloud.azurite.blobEndpoint).port);
  const azurePort = Number(new URL(cloud.arm.url).port);
  const { inside, reaches } = await isolate(workplace, [vaultPort, azurePort]);
  expect(reaches(site.site.processServerPort)).toBe(false);
  expect(reaches(Number(new URL(cloud.kubernetes.url).port))).toBe(false);

  const kubernetes = await startKubernetes({
    dir: path.join(workplace.folder, 'fresh-kubernetes'),
    inside,
  });
  workplace.undo.add('stop the fresh Kubernetes', () => kubernetes.stop());
  const fresh: Cloud = { ...cloud, kubernetes };
  installCrds(fresh);
  const operator = startOperator(
    fresh,
    { ...workplace, metricsPort: 0 },
    { inside, flags: OPERATOR_FLAGS },
  );
  // As docs/examples/README.md says: the site's manifests from Git, and the takeover instead of the vault.
  applyTakeover(
    { ...site.site, cloud: fresh },
    { recoveryKey: site.recoveryKey, fromEpoch: epoch ?? 0 },
  );
  applyMachine(fresh, source.disks);
  await eventually({ what: 'the machine is accepted', timeoutMs: 60_000, everyMs: 500 }, () => {
    const machine = getObject<ProtectedVM>(fresh, 'protectedvm', MACHINE);
    if (isTrue(machine, 'Accepted')) return true;
    throw new Error(`${JSON.stringify(machine?.status?.conditions)}\n${tail(operator)}`);
  });
  const machine = getObject<ProtectedVM>(fresh, 'protectedvm', MACHINE);
  expect(machine?.status?.machineId).toBe(site.machineId);

  createFailover(fresh, {
    ...{ type: 'Unplanned', name: 'disaster' },
    spec: { healthCheck: { serialConsole: { contains: RECOVERED, timeout: '3m' } } },
  });
  const at = { cloud: fresh, operator };
  const up = await untilPhase(at, { failover: 'disaster', phase: 'FailedOver' });
  const verdict = verdictOf(up, { saysWhatItRecovered: true });
  expect(verdict).toMatchObject({ rootsMatch: true, booted: true, trouble: undefined });
  const promised = lastDurableRecord(
    source.durableLog ?? '',
    Date.parse(up.status?.recoveryPoint?.time ?? ''),
  );
  expect(promised).toBeGreaterThan(0);
  expect(verdict.recordRecovered).toBeGreaterThanOrEqual(promised);
}, 240_000);

async function loseEverything(): Promise<void> {
  const { agent, processServer, applier, operator, source, cloud } = site;
  await Promise.all([agent, processServer, applier, operator].map((one) => one.kill()));
  await source.halt();
  await cloud.kubernetes.stop();
  for (const lost of [
    ...[agent.state, agent.run, processServer.cache, cloud.kubernetes.directory],
    path.join(workplace.folder, 'applier'),
  ])
    rmSync(lost, { recursive: true, force: true });
  await source.destroy();
}
