/** hack/demo as its user runs it: to its good end, and with the recovered disk's boot sector overwritten before its machine starts. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { farshoreTypes, type RecoveryVault } from '../../crds/index.ts';
import { NAMESPACE, VAULT } from '../../hack/demonstration/manifests.ts';
import { connectKubernetes } from '../../platform/kube/client.ts';
import { remoteControl } from '../arm/client.ts';
import { DemonstrationRun } from './demonstrationRun.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const workplace = makeWorkplace();

afterAll(async () => {
  await workplace.leave();
});

test('hack/demo shows a machine that has at least the record that its last barrier promised, and leaves nothing behind', async () => {
  const report = path.join(workplace.folder, 'good.json');
  const run = new DemonstrationRun(workplace, ['--json', report, '--seconds', '2']);
  expect(await run.ended, run.said).toBe(0);
  expect(run.said).toMatch(/the barrier promised record \d+; the booted machine has record \d+/);
  const found = JSON.parse(readFileSync(report, 'utf8')) as Record<string, unknown>;
  const positive = expect.toSatisfy((value: unknown) => typeof value === 'number' && value > 0);
  expect(found).toMatchObject({
    ...{ ok: true, booted: true, rootsMatch: true },
    initialReplication: { bytes: positive, seconds: positive },
    barriers: { count: positive, freezeMsMax: positive },
    ...{ rpoSeconds: positive, rtoSeconds: positive },
    recoveryPoint: { lsn: expect.stringMatching(/^\d+$/), time: expect.any(String) },
    ...{ recordAtBarrier: positive, recordRecovered: positive },
  });
  expect(Number(found.recordRecovered)).toBeGreaterThanOrEqual(Number(found.recordAtBarrier));
  expect(run.leftovers()).toEqual([]);
}, 400_000);

test('hack/demo ends in failure when the recovered machine does not come up, and leaves nothing behind', async () => {
  const report = path.join(workplace.folder, 'report.json');
  const run = new DemonstrationRun(workplace, [
    ...['--json', report, '--seconds', '2', '--boot-timeout', '15s'],
  ]);
  await run.saying(/starting a process server/, 120_000);
  const emulator = await eventually({ what: 'the demonstration’s vault', timeoutMs: 20_000 }, () =>
    emulatorOf(path.join(run.folder ?? '', 'kubernetes/kubeconfig')),
  );
  await remoteControl(emulator).change({ wipeBootSector: true });

  expect(await run.ended, run.said).toBe(1);
  expect(run.said).toMatch(/FAILED: .*did not pass its health check within 15 s/);
  expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({
    ...{ ok: false, booted: false, rootsMatch: true, recordRecovered: null },
    error: expect.stringMatching(/health check/),
  });
  expect(run.leftovers()).toEqual([]);
}, 400_000);

/** Where the demonstration's Azure is, as its own RecoveryVault says. */
async function emulatorOf(kubeconfig: string): Promise<{ url: string; ca: string } | undefined> {
  const kube = connectKubernetes({ kubeconfig });
  try {
    const found = await kube.get<RecoveryVault>(farshoreTypes.recoveryVault, {
      namespace: NAMESPACE,
      name: VAULT,
    });
    const custom = found?.spec.cloud.custom;
    return custom?.caBundle === undefined
      ? undefined
      : { url: custom.resourceManagerEndpoint, ca: custom.caBundle };
  } finally {
    kube.close();
  }
}
