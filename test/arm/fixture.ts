/** What tests of the Azure side start from: Azurite, the emulator, an adapter over both, and blobs that are VHDs. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  BlobServiceClient,
  type ContainerClient,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { encodeVhdFooter } from '../../dataplane/journal/vhd.ts';
import { customCloud } from '../../platform/azure/cloud.ts';
import { AzureCompute, type AzureComputeOptions } from '../../platform/azure/compute.ts';
import { azureCredential } from '../../platform/azure/login.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import type { StorageAccount } from './context.ts';
import {
  type ArmEmulator,
  type EmulatorOptions,
  emulatorDefaults,
  startEmulator,
} from './emulator.ts';

const MIB = 1 << 20;

export const testGroup = 'recovery';
export const testLocation = 'westeurope';

export interface ArmFixture {
  directory: string;
  azurite: Azurite;
  account: StorageAccount;
  container: ContainerClient;
  emulator: ArmEmulator;
  stop(): Promise<void>;
}

/** The emulator's options over an Azurite: one resource group and one network with two subnets. */
export function emulatorOptions(directory: string, account: StorageAccount): EmulatorOptions {
  return {
    directory,
    storageAccounts: [account],
    resourceGroups: [{ name: testGroup, location: testLocation }],
    networks: [
      {
        resourceGroup: testGroup,
        name: 'production',
        location: testLocation,
        prefix: '10.1.0.0/16',
        subnets: [
          { name: 'servers', prefix: '10.1.0.0/24' },
          { name: 'tiny', prefix: '10.1.9.0/29' },
        ],
      },
    ],
  };
}

export function storageAccount(azurite: Azurite, location = testLocation): StorageAccount {
  return {
    id: `/subscriptions/${emulatorDefaults.subscriptionId}/resourceGroups/${testGroup}/providers/Microsoft.Storage/storageAccounts/${azurite.accountName}`,
    location,
    blobEndpoint: azurite.blobEndpoint,
    accountName: azurite.accountName,
    accountKey: azurite.accountKey,
  };
}

export async function startArmFixture(): Promise<ArmFixture> {
  const directory = await mkdtemp(path.join(tmpdir(), 'farshore-arm-'));
  const azurite = await startAzurite();
  const account = storageAccount(azurite);
  const container = new BlobServiceClient(
    azurite.blobEndpoint,
    new StorageSharedKeyCredential(azurite.accountName, azurite.accountKey),
  ).getContainerClient('vault');
  await container.create();
  const emulator = await startEmulator(emulatorOptions(path.join(directory, 'arm'), account));
  return {
    directory,
    azurite,
    account,
    container,
    emulator,
    stop: async () => {
      await emulator.close();
      await azurite.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The adapter as `main.ts` files make it, impatient enough for tests. */
export function computeFor(
  emulator: { url: string; ca: string },
  change: Partial<AzureComputeOptions> & { clientSecret?: string; tenantId?: string } = {},
): AzureCompute {
  const cloud =
    change.cloud ??
    customCloud({
      resourceManager: emulator.url,
      authorityHost: emulator.url,
      ca: emulator.ca,
    });
  return new AzureCompute({
    cloud,
    subscriptionId: emulatorDefaults.subscriptionId,
    credential: azureCredential(cloud, {
      kind: 'ServicePrincipal',
      tenantId: change.tenantId ?? emulatorDefaults.tenantId,
      clientId: emulatorDefaults.clientId,
      clientSecret: change.clientSecret ?? emulatorDefaults.clientSecret,
    }),
    retry: { attempts: 3, firstWaitMs: 10, longestWaitMs: 3_000 },
    pollMs: 50,
    ...change,
  });
}

/** Uploads a raw image as a fixed VHD, its empty megabytes left out. Returns the blob's URL. */
export async function uploadVhd(
  container: ContainerClient,
  options: { name: string; image: string | Uint8Array },
): Promise<string> {
  const image = await imageReader(options.image);
  try {
    const blob = container.getPageBlobClient(options.name);
    await blob.create(image.size + 512);
    const empty = Buffer.alloc(MIB);
    for (let offset = 0; offset < image.size; offset += MIB) {
      const bytes = await image.read(offset);
      if (!bytes.equals(empty)) await blob.uploadPages(bytes, offset, MIB);
    }
    const footer = encodeVhdFooter({ bodySize: image.size, uniqueId: randomBytes(16) });
    await blob.uploadPages(footer, image.size, 512);
    return blob.url;
  } finally {
    await image.close();
  }
}

async function imageReader(image: string | Uint8Array): Promise<{
  size: number;
  read(offset: number): Promise<Buffer>;
  close(): Promise<void>;
}> {
  if (typeof image !== 'string')
    return {
      size: image.length,
      read: async (offset) => Buffer.from(image.subarray(offset, offset + MIB)),
      close: async () => undefined,
    };
  const file = await open(image, 'r');
  return {
    size: (await file.stat()).size,
    read: async (offset) => {
      const buffer = Buffer.alloc(MIB);
      await file.read(buffer, 0, MIB, offset);
      return buffer;
    },
    close: () => file.close(),
  };
}
