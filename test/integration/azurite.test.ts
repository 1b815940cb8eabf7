import { afterAll, beforeAll, describe, expect } from 'vitest';
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
let azurite: Azurite;
let stores: VaultStores;

beforeAll(async () => {
  azurite = await startAzurite();
  const access = { connectionString: azurite.connectionString, container: 'vault', prefix: 'a/b' };
  expect(await ensureVaultContainer(deps, access)).toBe('created');
  expect(await ensureVaultContainer(deps, access)).toBe('exists');
  stores = openVaultStores(deps, access);
});
afterAll(() => azurite?.stop());

describe('AzureBlobStore on Azurite', () => {
  objectStoreConformance(() => stores.objects);
});

describe('AzurePageBlobStore on Azurite', () => {
  pageBlobStoreConformance(() => stores.pages);
});
