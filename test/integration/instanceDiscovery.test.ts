/**
 * Whether Microsoft's public directory is asked about a cloud's authority: a proxy that everything beyond this machine must pass, and
 * that lets nothing through, sees it. In a file of its own, for the SDK reads the proxy's variables once in a process.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RecoveryVaultSpecCloud } from '../../crds/index.ts';
import { cloudOf } from '../../platform/azure/cloud.ts';
import { azureCredential } from '../../platform/azure/login.ts';
import { emulatorDefaults } from '../arm/emulator.ts';
import { type ArmFixture, computeFor, startArmFixture, testGroup } from '../arm/fixture.ts';

let fixture: ArmFixture;
let proxy: Server;
const asked: string[] = [];
const before = { ...process.env };

beforeAll(async () => {
  proxy = createServer((request, response) => {
    asked.push(request.url ?? '');
    response.writeHead(502).end();
  });
  proxy.on('connect', (request, socket) => {
    asked.push(request.url ?? '');
    socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
  });
  await new Promise<void>((resolve) => {
    proxy.listen(0, '127.0.0.1', resolve);
  });
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  Object.assign(process.env, { HTTPS_PROXY: url, HTTP_PROXY: url, NO_PROXY: '127.0.0.1' });
  fixture = await startArmFixture();
});

afterAll(async () => {
  for (const name of ['HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  await fixture?.stop();
  proxy?.close();
});

async function signIn(disableInstanceDiscovery: boolean): Promise<boolean> {
  const { url, ca } = fixture.emulator;
  const spec: RecoveryVaultSpecCloud = {
    type: 'Custom',
    custom: {
      resourceManagerEndpoint: url,
      loginEndpoint: url,
      blobEndpoint: fixture.azurite.blobEndpoint,
      disableInstanceDiscovery,
      caBundle: ca,
    },
  };
  const cloud = cloudOf(spec);
  const credential = azureCredential(cloud, { kind: 'ServicePrincipal', ...emulatorDefaults });
  asked.length = 0;
  return await computeFor(fixture.emulator, { cloud, credential }).resourceGroupExists(testGroup);
}

test('with disableInstanceDiscovery a Custom cloud signs in where nothing but its own endpoints can be reached', async () => {
  expect(await signIn(true)).toBe(true);
  expect(asked).toEqual([]);
});

test('without it Microsoft’s directory is asked about the authority first', async () => {
  // Whether it signs in all the same is the SDK's affair: it differs with how the directory fails.
  await signIn(false).catch(() => false);
  expect(asked[0]).toBe('login.microsoftonline.com:443');
});
