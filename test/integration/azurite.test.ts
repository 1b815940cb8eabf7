import { BlobServiceClient } from '@azure/storage-blob';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultStores,
} from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { objectStoreConformance } from '../conformance/objectStore.ts';
import { pageBlobStoreConformance } from '../conformance/pageBlobStore.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';

const deps = { clock: systemClock, random: systemRandom };
/** Of a real account, instead of Azurite: docs/VERIFY-ON-AZURE.md. */
const account = process.env.FARSHORE_CONNECTION_STRING;
const container = account === undefined ? 'vault' : `conformance-${Date.now().toString(36)}`;
let azurite: Azurite | undefined;
let connectionString: string;
let stores: VaultStores;

beforeAll(async () => {
  azurite = account === undefined ? await startAzurite() : undefined;
  connectionString = account ?? azurite?.connectionString ?? '';
  const access = { connectionString, container, prefix: 'a/b' };
  expect(await ensureVaultContainer(deps, access)).toBe('created');
  expect(await ensureVaultContainer(deps, access)).toBe('exists');
  stores = openVaultStores(deps, access);
});

afterAll(async () => {
  await azurite?.stop();
  if (account !== undefined)
    await BlobServiceClient.fromConnectionString(account).deleteContainer(container);
});

describe('AzureBlobStore on Azurite', () => {
  objectStoreConformance(() => stores.objects);
});

describe('AzurePageBlobStore on Azurite', () => {
  pageBlobStoreConformance(() => stores.pages);
});

describe('a prefix', () => {
  test('makes a vault of its own in the container: what another one holds is not in it', async () => {
    const at = (prefix: string) => {
      return openVaultStores(deps, { connectionString, container, prefix });
    };
    const [shop, bank, whole] = [at('shop'), at('bank/'), at('')];
    const body = new TextEncoder().encode('{}');
    expect(await shop.objects.putIfAbsent('vault.json', body)).toMatchObject({
      outcome: 'created',
    });
    expect(await bank.objects.putIfAbsent('vault.json', body)).toMatchObject({
      outcome: 'created',
    });
    await shop.pages.create('replicas/m/0.vhd', { size: 1 << 20, sequenceNumber: 1 });
    expect(await bank.pages.info('replicas/m/0.vhd')).toBeUndefined();
    expect(shop.pages.url('replicas/m/0.vhd')).toContain(`/${container}/shop/replicas/m/0.vhd`);
    const keysOf = async (stores: VaultStores, prefix: string) => {
      const keys: string[] = [];
      for await (const { key } of stores.objects.list(prefix)) keys.push(key);
      return keys;
    };
    expect(await keysOf(bank, '')).toEqual(['vault.json']);
    expect(await keysOf(shop, 'vault')).toEqual(['vault.json']);
    expect(await keysOf(whole, 'shop/')).toContain('shop/vault.json');
    await bank.objects.remove('vault.json');
    expect(await shop.objects.head('vault.json')).toBeDefined();
  });
});
