/** The demonstration can fail: with the recovered disk's boot sector overwritten before its machine starts, it must say so. */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { farshoreTypes, type RecoveryVault } from '../../crds/index.ts';
import { NAMESPACE, VAULT } from '../../hack/demonstration/manifests.ts';
import { connectKubernetes } from '../../platform/kube/client.ts';
import { remoteControl } from '../arm/client.ts';
import { eventually, makeWorkplace, requireRoot } from './workplace.ts';

const workplace = makeWorkplace();
const demo = path.resolve(import.meta.dirname, '../../hack/demo');

beforeAll(() => {
  requireRoot();
});

afterAll(async () => {
  await workplace.leave();
});

test('hack/demo ends in failure when the recovered machine does not come up, and leaves nothing behind', async () => {
  // All that it makes is under its TMPDIR: what is found there is this demonstration's.
  const temporary = path.join(workplace.folder, 'temporary');
  mkdirSync(temporary);
  const report = path.join(workplace.folder, 'report.json');
  const child = spawn(demo, ['--json', report, '--seconds', '2', '--boot-timeout', '15s'], {
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  workplace.undo.add('end the demonstration', async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await ended;
  });
  const emulator = await eventually(
    { what: 'the demonstration’s vault', timeoutMs: 120_000, everyMs: 500 },
    async () => {
      if (child.exitCode !== null) throw new Error(`it ended at once: ${said}`);
      const [folder = ''] = readdirSync(temporary).filter((one) =>
        one.startsWith('farshore-demo-'),
      );
      return await emulatorOf(path.join(temporary, folder, 'kubernetes/kubeconfig'));
    },
  );
  await remoteControl(emulator).change({ wipeBootSector: true });

  expect(await ended, said).toBe(1);
  expect(said).toMatch(/FAILED: .*did not pass its health check within 15 s/);
  expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({
    ...{ ok: false, booted: false, rootsMatch: true, recordRecovered: null },
    error: expect.stringMatching(/health check/),
  });
  expect(readdirSync(temporary).filter((one) => one.startsWith('farshore-'))).toEqual([]);
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
