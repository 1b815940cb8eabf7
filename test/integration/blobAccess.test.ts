import { inspect } from 'node:util';
import {
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureVaultContainer, openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { CertificateAuthority, createAuthority } from '../../vault/authority.ts';
import { collect, objectStoreConformance, pattern } from '../conformance/objectStore.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';

const deps = { clock: systemClock, random: systemRandom };
const patience = { stallMs: 5000, totalMs: 5000 };
let azurite: Azurite;
let caBundle: string;

beforeAll(async () => {
  const made = await createAuthority(deps, { vaultId: '00'.repeat(16) });
  const authority = await CertificateAuthority.open(deps, made);
  caBundle = made.certificatePem;
  const tls = await authority.issueProcessServerWithKey({ name: 'blob', hosts: ['127.0.0.1'] });
  azurite = await startAzurite({ tls: { ...tls, caCertificatePem: caBundle } });
  await ensureVaultContainer(deps, {
    connectionString: azurite.connectionString,
    container: 'vault',
    caBundle,
  });
});
afterAll(() => azurite?.stop());

const base = () => ({ container: 'vault', caBundle, patience });

/** Entra's kind of token; Azurite looks at its claims. */
function tokenCredential(claims: object = {}) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = {
    aud: 'https://storage.azure.com',
    iss: 'https://sts.windows.net/00000000-0000-0000-0000-000000000000/',
    nbf: now - 60,
    iat: now - 60,
    exp: now + 3600,
    ...claims,
  };
  const scopes: (string | string[])[] = [];
  return {
    scopes,
    getToken: async (scope: string | string[]) => {
      scopes.push(scope);
      return {
        token: `${part({ typ: 'JWT', alg: 'none' })}.${part(body)}.c2ln`,
        expiresOnTimestamp: (now + 3600) * 1000,
      };
    },
  };
}

describe('an endpoint whose certificate is by an authority of its own', () => {
  test('is refused without that authority, at once and with the reason', async () => {
    const { objects } = openVaultStores(deps, {
      connectionString: azurite.connectionString,
      container: 'vault',
      patience: { stallMs: 5000, totalMs: 60_000 },
    });
    const started = performance.now();
    await expect(objects.get('vault.json')).rejects.toMatchObject({
      code: 'VaultUnreachable',
      message: expect.stringMatching(/certificate is not trusted.*CA bundle/),
    });
    expect(performance.now() - started).toBeLessThan(5000);
  });

  describe('works with it and an identity', () => {
    objectStoreConformance(
      () =>
        openVaultStores(deps, {
          blobEndpoint: azurite.blobEndpoint,
          credential: tokenCredential(),
          prefix: 'identity',
          ...base(),
        }).objects,
    );
  });
});

describe('an identity', () => {
  test('is asked for the storage scope, or for the one that a cloud of its own has', async () => {
    const access = { blobEndpoint: `${azurite.blobEndpoint}/`, ...base() };
    const credential = tokenCredential();
    await openVaultStores(deps, { ...access, credential }).objects.head('x');
    expect(credential.scopes.flat()).toEqual(['https://storage.azure.com/.default']);
    const other = tokenCredential();
    await openVaultStores(deps, {
      ...access,
      credential: other,
      tokenScope: 'https://s.local/.default',
    }).objects.head('x');
    expect(other.scopes.flat()).toEqual(['https://s.local/.default']);
  });

  test('that gives no token, or a token that is refused, is told as a refused key', async () => {
    const access = { blobEndpoint: azurite.blobEndpoint, ...base() };
    const failing = {
      getToken: async () => {
        throw Object.assign(new Error('invalid_client: the secret is wrong'), {
          name: 'AuthenticationError',
          statusCode: 401,
        });
      },
    };
    const refused = { code: 'VaultRefusedKey' };
    await expect(
      openVaultStores(deps, { ...access, credential: failing }).objects.get('x'),
    ).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('the secret is wrong'),
    });
    const expired = tokenCredential({ exp: 1_000_000 });
    await expect(
      openVaultStores(deps, { ...access, credential: expired }).objects.get('x'),
    ).rejects.toMatchObject(refused);
  });
});

test('a snapshot is copied over HTTPS by the account key', async () => {
  const { pages } = openVaultStores(deps, {
    connectionString: azurite.connectionString,
    ...base(),
  });
  await pages.create('key/p', { size: 1024, sequenceNumber: 0 });
  const fence = await pages.fence('key/p', { sequenceNumber: 1, leaseSeconds: 15 });
  const { snapshot } = await pages.snapshot('key/p', { fence, metadata: {} });
  expect(await pages.startCopy({ from: 'key/p', snapshot, to: 'key/copy' })).toBe('started');
  await expect.poll(() => pages.copyState('key/copy')).toEqual({ state: 'success' });
});

test('a shared access signature reads and writes, and what it lacks is told as refused', async () => {
  const key = new StorageSharedKeyCredential(azurite.accountName, azurite.accountKey);
  const sasToken = (permissions: string) =>
    generateBlobSASQueryParameters(
      {
        containerName: 'vault',
        permissions: ContainerSASPermissions.parse(permissions),
        expiresOn: new Date(Date.now() + 3_600_000),
      },
      key,
    ).toString();
  const open = (permissions: string) =>
    openVaultStores(deps, {
      blobEndpoint: azurite.blobEndpoint,
      sasToken: sasToken(permissions),
      ...base(),
    });
  const { objects, pages } = open('racwdl');
  expect((await objects.putIfAbsent('sas/a', pattern(10))).outcome).toBe('created');
  expect((await collect(objects.list('sas/'))).map((one) => one.key)).toEqual(['sas/a']);
  await pages.create('sas/p', { size: 1024, sequenceNumber: 0 });
  const fence = await pages.fence('sas/p', { sequenceNumber: 1, leaseSeconds: 15 });
  await pages.write('sas/p', pattern(512), 0, fence);
  // Azurite refuses a container's signature on a snapshot, so copies by signature are for a real account to show.
  expect(pages.url('sas/p')).not.toContain('sig=');
  const reader = open('rl');
  expect(await reader.objects.head('sas/a')).toMatchObject({ size: 10 });
  const refused = await reader.objects.put('sas/b', pattern(1)).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: 'VaultRefusedKey' });
  // Errors are logged with their causes: no part of them may hold the signature.
  expect(inspect(refused, { depth: 10 })).not.toMatch(/sig=|BEGIN CERTIFICATE|x-ms-version/);
});
