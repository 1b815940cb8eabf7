import { ComputeManagementClient } from '@azure/arm-compute';
import { NetworkManagementClient } from '@azure/arm-network';
import { ResourceManagementClient } from '@azure/arm-resources';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { customCloud, trustOf } from '../../platform/azure/cloud.ts';
import { azureCredential } from '../../platform/azure/login.ts';
import { emulatorDefaults, startEmulator } from '../arm/emulator.ts';
import {
  type ArmFixture,
  computeFor,
  emulatorOptions,
  startArmFixture,
  testGroup,
  testLocation,
  uploadVhd,
} from '../arm/fixture.ts';

const MIB = 1 << 20;
const poll = { updateIntervalInMs: 20 };

let fixture: ArmFixture;
let compute: ComputeManagementClient;
let network: NetworkManagementClient;
let resources: ResourceManagementClient;

beforeAll(async () => {
  fixture = await startArmFixture();
  await fixture.emulator.control.change({ bootMachines: false });
  const { url, ca } = fixture.emulator;
  const cloud = customCloud({ resourceManager: url, authorityHost: url, ca });
  const credential = azureCredential(cloud, { kind: 'ServicePrincipal', ...emulatorDefaults });
  const { subscriptionId } = emulatorDefaults;
  const options = { endpoint: url, ...trustOf(cloud) };
  const scoped = { ...options, credentials: { scopes: [cloud.tokenScope] } };
  compute = new ComputeManagementClient(credential, subscriptionId, scoped);
  network = new NetworkManagementClient(credential, subscriptionId, scoped);
  resources = new ResourceManagementClient(credential, subscriptionId, options);
});

afterAll(async () => {
  await fixture?.stop();
});

async function importedDisk(name: string): Promise<string> {
  const body = Buffer.alloc(2 * MIB, 7);
  const sourceUri = await uploadVhd(fixture.container, { name: `${name}.vhd`, image: body });
  const disk = await compute.disks.createOrUpdate(
    testGroup,
    name,
    {
      location: testLocation,
      osType: 'Linux',
      hyperVGeneration: 'V1',
      creationData: { createOption: 'Import', sourceUri, storageAccountId: fixture.account.id },
    },
    poll,
  );
  return disk.id ?? '';
}

test('the SDKs find groups, networks, subnets and locations', async () => {
  expect((await resources.resourceGroups.get(testGroup)).location).toBe(testLocation);
  await expect(resources.resourceGroups.get('elsewhere')).rejects.toMatchObject({
    statusCode: 404,
    code: 'ResourceGroupNotFound',
  });
  const made = await resources.resourceGroups.createOrUpdate('more', { location: testLocation });
  expect(made.name).toBe('more');
  const subnet = await network.subnets.get(testGroup, 'production', 'servers');
  expect(subnet.addressPrefix).toBe('10.1.0.0/24');
  const networks: string[] = [];
  for await (const one of network.virtualNetworks.list(testGroup)) networks.push(one.name ?? '');
  expect(networks).toEqual(['production']);
  const sizes: string[] = [];
  for await (const one of compute.virtualMachineSizes.list(testLocation))
    sizes.push(one.name ?? '');
  expect(sizes).toContain('Standard_B2s');
});

test('a snapshot of a disk outlives it and makes another', async () => {
  const sourceResourceId = await importedDisk('origin');
  const snapshot = await compute.snapshots.createOrUpdate(
    testGroup,
    'kept',
    { location: testLocation, creationData: { createOption: 'Copy', sourceResourceId } },
    poll,
  );
  await compute.disks.delete(testGroup, 'origin', poll);
  await expect(compute.disks.get(testGroup, 'origin')).rejects.toMatchObject({ statusCode: 404 });
  const copy = await compute.disks.createOrUpdate(
    testGroup,
    'copy',
    {
      location: testLocation,
      creationData: { createOption: 'Copy', sourceResourceId: snapshot.id },
    },
    poll,
  );
  expect(copy.diskSizeBytes).toBe(2 * MIB);
  await compute.snapshots.delete(testGroup, 'kept', poll);
  await expect(compute.snapshots.get(testGroup, 'kept')).rejects.toMatchObject({ statusCode: 404 });
});

test('a machine is stopped, deallocated and started again; its disk says so', async () => {
  const disk = await importedDisk('machine-os');
  const subnet = await network.subnets.get(testGroup, 'production', 'servers');
  const nic = await network.networkInterfaces.createOrUpdate(
    testGroup,
    'machine-nic',
    {
      location: testLocation,
      ipConfigurations: [{ name: 'a', subnet: { id: subnet.id }, primary: true }],
    },
    poll,
  );
  await compute.virtualMachines.createOrUpdate(
    testGroup,
    'machine',
    {
      location: testLocation,
      hardwareProfile: { vmSize: 'Standard_B1s' },
      storageProfile: {
        osDisk: { createOption: 'Attach', osType: 'Linux', managedDisk: { id: disk } },
      },
      networkProfile: { networkInterfaces: [{ id: nic.id ?? '' }] },
    },
    poll,
  );
  const power = async () => {
    const view = await compute.virtualMachines.instanceView(testGroup, 'machine');
    return view.statuses?.at(-1)?.code;
  };
  const diskState = async () => (await compute.disks.get(testGroup, 'machine-os')).diskState;
  expect([await power(), await diskState()]).toEqual(['PowerState/running', 'Attached']);
  await compute.virtualMachines.powerOff(testGroup, 'machine', poll);
  expect(await power()).toBe('PowerState/stopped');
  await compute.virtualMachines.deallocate(testGroup, 'machine', poll);
  expect([await power(), await diskState()]).toEqual(['PowerState/deallocated', 'Reserved']);
  await compute.virtualMachines.start(testGroup, 'machine', poll);
  expect([await power(), await diskState()]).toEqual(['PowerState/running', 'Attached']);
  // No boot diagnostics were asked for.
  await expect(
    compute.virtualMachines.retrieveBootDiagnosticsData(testGroup, 'machine'),
  ).rejects.toMatchObject({ statusCode: 409 });
});

test('a generation V2 machine is no machine of a size that has none, and is not started with a BIOS', async () => {
  const adapter = computeFor(fixture.emulator);
  const ref = (name: string) => ({ resourceGroup: testGroup, name });
  const common = { location: testLocation, tags: {} };
  const image = Buffer.alloc(MIB, 1);
  const disk = await adapter.importDisk(ref('uefi-os'), {
    ...common,
    sourceUrl: await uploadVhd(fixture.container, { name: 'uefi.vhd', image }),
    storageAccountId: fixture.account.id,
    type: 'Standard_LRS',
    os: { type: 'Linux', generation: 'V2' },
  });
  const subnet = await network.subnets.get(testGroup, 'production', 'servers');
  const nic = await adapter.createNic(ref('uefi-nic'), { ...common, subnetId: subnet.id ?? '' });
  const vm = {
    ...{ ...common, osType: 'Linux' as const, osDiskId: disk.id },
    ...{ dataDisks: [], nicIds: [nic.id] },
  };
  await expect(
    adapter.createVm(ref('uefi'), { ...vm, size: 'Standard_A1_v2' }),
  ).rejects.toMatchObject({ code: 'InvalidRequest', azureCode: 'BadRequest' });
  const { control } = fixture.emulator;
  await control.change({ bootMachines: true });
  try {
    const made = await adapter.createVm(ref('uefi'), { ...vm, size: 'Standard_D2s_v6' });
    expect(made.power).toBe('running');
    expect(fixture.emulator.machineProcesses()).toEqual([]);
    expect(await adapter.serialLog(ref('uefi'))).toContain('nothing was started');
  } finally {
    await control.change({ bootMachines: false });
  }
});

test('a call without a token, or of another subscription, gets nowhere', async () => {
  const { url, ca } = fixture.emulator;
  const cloud = customCloud({ resourceManager: url, authorityHost: url, ca });
  const stranger = computeFor(fixture.emulator, { cloud, subscriptionId: 'somebody-elses' });
  expect(await stranger.resourceGroupExists(testGroup)).toBe(false);
  await expect(stranger.vmSizes(testLocation)).rejects.toMatchObject({
    code: 'NotFound',
    azureCode: 'SubscriptionNotFound',
  });
});

test('what was half made when the emulator died is not there, and keeps nothing', async () => {
  const directory = `${fixture.directory}/half`;
  const options = {
    ...emulatorOptions(directory, fixture.account),
    settings: { bootMachines: false, operationsMs: { 'PUT virtualMachines': 60_000 } },
  };
  const first = await startEmulator(options);
  const client = computeFor(first, { deadlinesMs: { virtualMachine: 200 } });
  const image = Buffer.alloc(MIB, 1);
  const sourceUrl = await uploadVhd(fixture.container, { name: 'half.vhd', image });
  const ref = (name: string) => ({ resourceGroup: testGroup, name });
  const common = { location: testLocation, tags: {} };
  const disk = await client.importDisk(ref('half-os'), {
    ...common,
    sourceUrl,
    storageAccountId: fixture.account.id,
    type: 'Standard_LRS',
    os: { type: 'Linux', generation: 'V1' },
  });
  const subnet = { resourceGroup: testGroup, network: 'production', subnet: 'servers' };
  const subnetId = (await client.subnet(subnet))?.id ?? '';
  const nic = await client.createNic(ref('half-nic'), { ...common, subnetId });
  const vm = { ...common, size: 'Standard_B1s', osType: 'Linux' as const, dataDisks: [] };
  await expect(
    client.createVm(ref('half'), { ...vm, osDiskId: disk.id, nicIds: [nic.id] }),
  ).rejects.toMatchObject({ code: 'OperationSlow' });
  expect((await client.disk(ref('half-os')))?.state).toBe('Attached');
  await first.close();

  const second = await startEmulator({ ...options, resourceGroups: [], networks: [] });
  try {
    const again = computeFor(second);
    expect(await again.vm(ref('half'))).toBeUndefined();
    expect((await again.disk(ref('half-os')))?.state).toBe('Unattached');
    await again.removeNic(ref('half-nic'));
    await again.removeDisk(ref('half-os'));
    expect(await second.control.resources()).toEqual([]);
  } finally {
    await second.close();
  }
});
