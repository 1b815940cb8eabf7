/** The stand-ins for what lies outside the source site: a Kubernetes API server, Azurite for the storage account, the ARM emulator. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { BlobServiceClient } from '@azure/storage-blob';
import { type EmulatorProcess, spawnEmulator } from '../../test/arm/client.ts';
import type { EmulatorOptions } from '../../test/arm/emulator.ts';
import { type Azurite, startAzurite } from '../../test/servers/azurite.ts';
import { type KubernetesServer, startKubernetes } from '../../test/servers/kubernetes.ts';
import type { Undo } from './undo.ts';

export interface Cloud {
  kubernetes: KubernetesServer;
  azurite: Azurite;
  arm: Emulator;
  container: string;
  location: string;
  resourceGroup: string;
  network: string;
  storageAccountId: string;
}

/** What the rest needs of the emulator; a process of its own here, another process's own in tests. */
export type Emulator = Pick<
  EmulatorProcess,
  'url' | 'ca' | 'tenantId' | 'clientId' | 'clientSecret' | 'subscriptionId' | 'control' | 'stop'
>;

export interface CloudOptions {
  folder: string;
  undo: Undo;
  settings?: EmulatorOptions['settings'];
  /** The address of this machine on which the storage account is reached; 127.0.0.1 when left out. */
  storageHost?: string;
  /** What stands between Farshore and the storage account; nothing when left out. */
  front?: (azurite: Azurite) => Promise<Azurite>;
  startArm?: (options: EmulatorOptions) => Promise<Emulator>;
}

const LOCATION = 'westeurope';
const RESOURCE_GROUP = 'recovery';
const NETWORK = 'recovery';
const CONTAINER = 'farshore';

export async function startCloud(options: CloudOptions): Promise<Cloud> {
  const { folder, undo } = options;
  for (const name of ['azurite', 'azure']) mkdirSync(path.join(folder, name));
  const [kubernetes, storage] = await together([
    startKubernetes({ dir: path.join(folder, 'kubernetes') }).then((server) => {
      undo.add('stop Kubernetes', () => server.stop());
      return server;
    }),
    startAzurite({
      dir: path.join(folder, 'azurite'),
      ...(options.storageHost === undefined ? {} : { host: options.storageHost }),
    }).then((server) => {
      undo.add('stop Azurite', () => server.stop());
      return server;
    }),
  ]);
  await BlobServiceClient.fromConnectionString(storage.connectionString)
    .getContainerClient(CONTAINER)
    .create();
  const azurite = (await options.front?.(storage)) ?? storage;
  const subscriptionId = '5b1fd4c4-0c4e-4bb0-9c57-0a7f3a5d0001';
  const storageAccountId = `/subscriptions/${subscriptionId}/resourceGroups/${RESOURCE_GROUP}/providers/Microsoft.Storage/storageAccounts/${azurite.accountName}`;
  const arm = await (options.startArm ?? spawnEmulator)({
    directory: path.join(folder, 'azure'),
    subscriptionId,
    resourceGroups: [{ name: RESOURCE_GROUP, location: LOCATION }],
    networks: [
      {
        resourceGroup: RESOURCE_GROUP,
        name: NETWORK,
        location: LOCATION,
        prefix: '10.0.0.0/8',
        subnets: [
          { name: 'production', prefix: '10.1.0.0/24' },
          { name: 'test', prefix: '10.2.0.0/24' },
        ],
      },
    ],
    storageAccounts: [{ id: storageAccountId, location: LOCATION, ...accountOf(azurite) }],
    settings: { keepImported: true, ...options.settings },
  });
  undo.add('stop the emulator of Azure Resource Manager', () => arm.stop());
  return {
    kubernetes,
    azurite,
    arm,
    container: CONTAINER,
    location: LOCATION,
    resourceGroup: RESOURCE_GROUP,
    network: NETWORK,
    storageAccountId,
  };
}

/** As Promise.all, but rejects only when all have ended: none starts something after the others were undone. */
async function together<A, B>(starting: [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(starting);
  return await Promise.all(starting);
}

function accountOf(azurite: Azurite) {
  const { blobEndpoint, accountName, accountKey } = azurite;
  return { blobEndpoint, accountName, accountKey };
}
