/** The compute adapter's way in: secrets, tenants, audiences, certificates, workload tokens. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { customCloud } from '../../platform/azure/cloud.ts';
import { azureCredential } from '../../platform/azure/login.ts';
import { spawnEmulator } from '../arm/client.ts';
import { emulatorDefaults } from '../arm/emulator.ts';
import { computeFor, emulatorOptions, testGroup } from '../arm/fixture.ts';
import { errorOf, expectCode, workbenchOfFile } from '../arm/workbench.ts';

const bench = workbenchOfFile();

describe('who we are', () => {
  test('a wrong secret, a wrong tenant and a token for another audience are AuthenticationFailed', async () => {
    const { emulator } = bench.fixture;
    const ref = bench.fresh('disk');
    const wrongSecret = computeFor(emulator, { clientSecret: 'wrong' });
    const error = await expectCode(wrongSecret.disk(ref), 'AuthenticationFailed');
    expect(error.message).toContain('AADSTS7000215');
    const wrongTenant = computeFor(emulator, { tenantId: '99999999-9999-4999-8999-999999999999' });
    const unknown = await expectCode(wrongTenant.disk(ref), 'AuthenticationFailed');
    expect(unknown.message).toContain('AADSTS90002');
    const otherAudience = computeFor(emulator, {
      cloud: customCloud({
        resourceManager: emulator.url,
        authorityHost: emulator.url,
        tokenScope: 'https://management.azure.com/.default',
        ca: emulator.ca,
      }),
    });
    await expectCode(otherAudience.disk(ref), 'AuthenticationFailed');
  });

  test('a login service that is down is Unreachable, not a wrong secret', async () => {
    await bench.fixture.emulator.control.addFault({
      kind: 'error',
      status: 503,
      code: 'ServiceUnavailable',
      message: 'The service is down.',
      operation: 'POST login',
      times: 10,
    });
    const error = await expectCode(
      computeFor(bench.fixture.emulator).disk(bench.fresh('disk')),
      'Unreachable',
    );
    expect(error.message).toContain('503');
  });

  test('a certificate that nobody vouches for is not talked to', async () => {
    const { url } = bench.fixture.emulator;
    const cloud = customCloud({ resourceManager: url, authorityHost: url });
    const error = await errorOf(
      computeFor(bench.fixture.emulator, { cloud }).disk(bench.fresh('disk')),
    );
    expect(error.code).toBe('Unreachable');
    expect(error.message).toMatch(/certificate/i);
  });

  test("a workload's federated token logs in, and a wrong one does not", async () => {
    const directory = path.join(bench.fixture.directory, 'workload');
    const emulator = await spawnEmulator({
      ...emulatorOptions(directory, bench.fixture.account),
      workloadToken: 'federated-token',
    });
    try {
      const cloud = customCloud({
        resourceManager: emulator.url,
        authorityHost: emulator.url,
        ca: emulator.ca,
      });
      for (const [token, works] of [
        ['federated-token', true],
        ['forged-token', false],
      ] as const) {
        const tokenFile = path.join(bench.fixture.directory, token);
        await writeFile(tokenFile, token);
        const credential = azureCredential(cloud, {
          kind: 'WorkloadIdentity',
          tenantId: emulatorDefaults.tenantId,
          clientId: emulatorDefaults.clientId,
          tokenFile,
        });
        const exists = computeFor(emulator, { cloud, credential }).resourceGroupExists(testGroup);
        if (works) expect(await exists).toBe(true);
        else await expectCode(exists, 'AuthenticationFailed');
      }
    } finally {
      await emulator.stop();
    }
  });
});
