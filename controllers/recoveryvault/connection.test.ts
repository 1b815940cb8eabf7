import { describe, expect, test } from 'vitest';
import type { RecoveryVault } from '../../crds/index.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { create, recoveryVault, secret } from '../../test/operator/manifests.ts';
import type { VaultConnection } from '../openvaults/stores.ts';
import { blobEndpointOf, fingerprint, locationOf, resolveConnection } from './connection.ts';

const endpoints = {
  resourceManagerEndpoint: 'https://management.example',
  loginEndpoint: 'https://login.example',
  blobEndpoint: 'https://blobs.example/farshore',
  disableInstanceDiscovery: true,
};
const custom = { type: 'Custom' as const, custom: endpoints };
const servicePrincipal = {
  tenantId: 'tenant',
  clientId: 'client',
  clientSecretRef: { name: 'azure', key: 'clientSecret' },
};

async function connectionOf(spec: Partial<RecoveryVault['spec']> = {}): Promise<VaultConnection> {
  const kube = new FakeKube();
  await create(
    kube,
    secret('azure', {
      clientSecret: 'secret\n',
      renewed: 'another secret',
      connectionString: ' AccountName=farshore;AccountKey=a2V5 \n',
    }),
  );
  return await resolveConnection(kube, recoveryVault({ recipients: [], spec }));
}

describe('the connection', () => {
  test('is the spec with its Secrets read, without the line ends that files have', async () => {
    expect(await connectionOf()).toEqual({
      cloud: { type: 'AzurePublic' },
      storage: {
        account: 'farshore',
        container: 'vault',
        prefix: '',
        connectionString: 'AccountName=farshore;AccountKey=a2V5',
      },
      servicePrincipal: { tenantId: 'tenant', clientId: 'client', clientSecret: 'secret' },
      subscriptionId: '00000000-0000-0000-0000-000000000000',
    });
  });

  test('without a connection string is by the service principal', async () => {
    const { storage } = await connectionOf({ credentials: { servicePrincipal } });
    expect(storage.connectionString).toBeUndefined();
  });

  test.each<[string, Partial<RecoveryVault['spec']>]>([
    ['the Secret', { credentials: { servicePrincipal: withSecret({ name: 'none' }) } }],
    ['the entry', { credentials: { servicePrincipal: withSecret({ key: 'none' }) } }],
  ])('that lacks %s says which', async (_, spec) => {
    await expect(connectionOf(spec)).rejects.toThrow(/none/);
  });

  test.each<[string, Partial<RecoveryVault['spec']>, Partial<RecoveryVault['spec']>?]>([
    ['cloud.type', { cloud: { type: 'AzureChina' } }],
    ['cloud.custom', { cloud: custom }],
    [
      'cloud.custom.disableInstanceDiscovery',
      ownCloud({ disableInstanceDiscovery: false }),
      ownCloud({}),
    ],
    ['cloud.custom.caBundle', ownCloud({ caBundle: 'pem' }), ownCloud({})],
    ['storageAccount.name', { storageAccount: { name: 'other', resourceId: '/other' } }],
    ['containerName', { containerName: 'other' }],
    ['prefix', { prefix: 'shop' }],
    ['credentials.servicePrincipal.tenantId', principal({ tenantId: 'other' })],
    ['credentials.servicePrincipal.clientId', principal({ clientId: 'other' })],
    ['what the Secret of the client holds', principal(withSecret({ key: 'renewed' }))],
    ['credentials.storage', { credentials: { servicePrincipal } }],
    ['subscriptionId', { subscriptionId: '11111111-1111-1111-1111-111111111111' }],
  ])('is made anew when %s changes, and only then', async (_, after, before = {}) => {
    const [first, same, other] = [
      await connectionOf(before),
      await connectionOf(before),
      await connectionOf(after),
    ];
    expect(fingerprint(same)).toBe(fingerprint(first));
    expect(fingerprint(other)).not.toBe(fingerprint(first));
  });
});

describe('where blobs are', () => {
  test.each<[RecoveryVault['spec']['cloud'], string]>([
    [{ type: 'AzurePublic' }, 'https://farshore.blob.core.windows.net'],
    [{ type: 'AzureUSGovernment' }, 'https://farshore.blob.core.usgovcloudapi.net'],
    [{ type: 'AzureChina' }, 'https://farshore.blob.core.chinacloudapi.cn'],
    [custom, 'https://blobs.example/farshore'],
  ])('$type', async (cloud, expected) => {
    expect(blobEndpointOf(await connectionOf({ cloud }))).toBe(expected);
  });
});

describe('what process servers and appliers are told', () => {
  test('is the connection string, and never the service principal', async () => {
    const told = locationOf(await connectionOf({ prefix: 'shop' }));
    expect(told).toEqual({
      container: 'vault',
      prefix: 'shop',
      connectionString: 'AccountName=farshore;AccountKey=a2V5',
    });
    expect(JSON.stringify(told)).not.toContain('secret');
  });

  test('is the endpoint of the cloud where there is no connection string: they have an identity of their own', async () => {
    const { cloud } = ownCloud({ caBundle: 'pem' });
    const told = locationOf(await connectionOf({ cloud, credentials: { servicePrincipal } }));
    expect(told).toEqual({
      container: 'vault',
      prefix: '',
      blobEndpoint: 'https://blobs.example/farshore',
      caBundle: 'pem',
    });
  });
});

function ownCloud(change: Partial<typeof endpoints> & { caBundle?: string }) {
  return { cloud: { ...custom, custom: { ...endpoints, ...change } } };
}

function withSecret(change: { name?: string; key?: string }) {
  return {
    ...servicePrincipal,
    clientSecretRef: { ...servicePrincipal.clientSecretRef, ...change },
  };
}

function principal(change: Partial<typeof servicePrincipal>) {
  const storage = { connectionStringSecretRef: { name: 'azure', key: 'connectionString' } };
  return { credentials: { servicePrincipal: { ...servicePrincipal, ...change }, storage } };
}
