/**
 * From a ProtectedVM's target and a RecoveryVault to what Azure Resource Manager is asked to make: a whole failover over the adapters
 * that the operator uses, of a machine that is made up.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { resolveTarget } from '../../controllers/protectedvm/target.ts';
import type { ProtectedVM } from '../../crds/index.ts';
import { AzureDiskImageReader } from '../../platform/azure/diskImageReader.ts';
import { openVaultStores, type VaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { runFailover } from '../../recovery/failover.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import type { ExistingResource } from '../arm/emulator.ts';
import { type ArmFixture, computeFor, startArmFixture, testGroup } from '../arm/fixture.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import { failoverEntry } from '../fixtures/failoverEntry.ts';
import { ModelMachine } from '../fixtures/modelMachine.ts';
import { protectedVM, recoveryVault } from '../operator/manifests.ts';

const world = { clock: systemClock, random: systemRandom };
const location = 'westeurope';
let fixture: ArmFixture;
let stores: VaultStores;
let count = 0;

beforeAll(async () => {
  fixture = await startArmFixture();
  const { control } = fixture.emulator;
  await control.change({ bootMachines: false });
  await control.addResourceGroup({ name: 'shop', location });
  await control.addResourceGroup({ name: 'hub', location });
  await control.addNetwork({
    ...{ resourceGroup: 'hub', name: 'front', location, prefix: '10.7.0.0/16' },
    subnets: [{ name: 'web', prefix: '10.7.1.0/24' }],
  });
  await control.addNetwork({
    ...{ resourceGroup: testGroup, name: 'test', location, prefix: '10.8.0.0/16' },
    subnets: [{ name: 'bubble', prefix: '10.8.0.0/24' }],
  });
  const { connectionString } = fixture.azurite;
  stores = openVaultStores(world, { connectionString, container: 'vault' });
});

afterAll(async () => {
  await fixture?.stop();
});

/** Brings a fresh machine up; returns the ledger's entry, and what stands in Azure afterwards by kind. */
async function bringUp(
  target: Partial<ProtectedVM['spec']['target']>,
  type: 'Test' | 'Unplanned' = 'Unplanned',
): Promise<{ document: FailoverDocument } & Record<'disks' | 'nics' | 'vms', ExistingResource[]>> {
  const name = `web-${++count}`;
  const machine = new ModelMachine({ ...world, objects: stores.objects }, { name });
  await machine.enterCatalog();
  machine.scribble();
  await machine.barrier();
  const { spec } = protectedVM(name);
  const vault = recoveryVault({
    recipients: [],
    spec: {
      storageAccount: { name: 'account', resourceId: fixture.account.id },
      networks: {
        production: { network: 'production', subnet: 'servers' },
        test: { network: 'test', subnet: 'bubble' },
      },
    },
  });
  const entry = failoverEntry({
    name,
    failoverId: Buffer.from(systemRandom.bytes(16)).toString('hex'),
    acceptedAt: systemClock.now(),
    request: {
      type,
      machineId: machine.machineId,
      machineName: name,
      target: resolveTarget(
        { spec: { ...spec, target: { ...spec.target, ...target } } },
        vault,
        type === 'Test' ? 'Test' : 'Production',
      ),
    },
  });
  await LedgerEntry.accept(stores.objects, entry);
  const document = await runFailover(
    name,
    {
      ...world,
      ...stores,
      logger: silentLogger,
      compute: computeFor(fixture.emulator),
      images: new AzureDiskImageReader(world, { caBundle: fixture.emulator.ca }),
      openDataKey: async () => machine.dataKey,
      assertInControl: async () => {},
      pollMs: 50,
    },
    { signal: new AbortController().signal },
  );
  const made = (await fixture.emulator.control.resources()).filter(
    (one) => one.tags['farshore-failover'] === document.failoverId,
  );
  const of = (kind: string) => made.filter((one) => one.type.endsWith(`/${kind}`));
  return {
    document,
    disks: of('disks').sort((a, b) => a.name.localeCompare(b.name)),
    nics: of('networkInterfaces').sort((a, b) => a.name.localeCompare(b.name)),
    vms: of('virtualMachines'),
  };
}

const bodies = (resources: readonly ExistingResource[]) => resources.map((one) => one.request);

test('everything that a target names is asked for: group, size, zone, generation, disk type, interfaces, tags', async () => {
  const tags = { owner: 'shop', tier: 'web' };
  const { document, disks, nics, vms } = await bringUp({
    name: 'shop-front',
    size: 'Standard_D4s_v5',
    resourceGroup: 'shop',
    generation: 'V2',
    diskType: 'Premium_LRS',
    zone: '2',
    nics: [{ resourceGroup: 'hub', network: 'front', subnet: 'web', ip: '10.7.1.77' }, {}],
    tags,
  });
  expect(document.outcome).toBe('FailedOver');
  for (const one of [...disks, ...nics, ...vms]) {
    expect(one.id).toContain('/resourceGroups/shop/');
    expect(one.tags).toMatchObject(tags);
  }
  const disk = {
    location,
    zones: ['2'],
    sku: { name: 'Premium_LRS' },
    properties: {
      creationData: { createOption: 'Import', storageAccountId: fixture.account.id },
    },
  };
  // The data disk comes first by name, and boots nothing.
  expect(bodies(disks)).toMatchObject([
    disk,
    { ...disk, properties: { ...disk.properties, osType: 'Linux', hyperVGeneration: 'V2' } },
  ]);
  expect(disks[0]?.request.properties).not.toHaveProperty('hyperVGeneration');
  expect(bodies(nics).map(addressOf)).toEqual([
    ['hub', 'front', 'web', 'Static', '10.7.1.77'],
    [testGroup, 'production', 'servers', 'Dynamic', undefined],
  ]);
  expect(vms.map((vm) => vm.name)).toEqual(['shop-front']);
  expect(bodies(vms)).toMatchObject([
    {
      location,
      zones: ['2'],
      properties: {
        hardwareProfile: { vmSize: 'Standard_D4s_v5' },
        storageProfile: {
          osDisk: { osType: 'Linux', managedDisk: { id: disks[1]?.id } },
          dataDisks: [{ lun: 0, managedDisk: { id: disks[0]?.id } }],
        },
        networkProfile: {
          networkInterfaces: [
            { id: nics[0]?.id, properties: { primary: true } },
            { id: nics[1]?.id, properties: { primary: false } },
          ],
        },
      },
    },
  ]);
});

test('what a target does not name is the vault’s, or the CRD’s default, or left to Azure', async () => {
  const { document, disks, nics, vms } = await bringUp({});
  expect(document.outcome).toBe('FailedOver');
  for (const one of [...disks, ...nics, ...vms]) {
    expect(one.id).toContain(`/resourceGroups/${testGroup}/`);
    expect(one.request).not.toHaveProperty('zones');
    expect(Object.keys(one.tags).every((tag) => tag.startsWith('farshore'))).toBe(true);
  }
  expect(bodies(disks)).toMatchObject([
    { sku: { name: 'StandardSSD_LRS' } },
    { sku: { name: 'StandardSSD_LRS' }, properties: { hyperVGeneration: 'V1' } },
  ]);
  expect(bodies(nics).map(addressOf)).toEqual([
    [testGroup, 'production', 'servers', 'Dynamic', undefined],
  ]);
});

test('zone-redundant disks of a machine in a zone are asked for in no zone, as Azure wants it', async () => {
  const { document, disks, vms } = await bringUp({ diskType: 'Premium_ZRS', zone: '3' });
  expect(document).toMatchObject({ outcome: 'FailedOver' });
  expect(disks).toHaveLength(2);
  for (const one of disks) expect(one.request).not.toHaveProperty('zones');
  expect(bodies(vms)).toMatchObject([{ zones: ['3'] }]);
});

test('a Test is attached to the test network by an address that Azure chooses, whatever the target names', async () => {
  const nics = [{ resourceGroup: 'hub', network: 'front', subnet: 'web', ip: '10.7.1.99' }];
  const made = await bringUp({ nics }, 'Test');
  expect(made.document.outcome).toBe('FailedOver');
  expect(bodies(made.nics).map(addressOf)).toEqual([
    [testGroup, 'test', 'bubble', 'Dynamic', undefined],
  ]);
});

test('a size that can not boot the generation is refused before anything is made', async () => {
  for (const target of [
    { size: 'Standard_A1_v2', generation: 'V2' },
    { size: 'Standard_D2s_v6' },
  ] as const) {
    const { document, disks } = await bringUp(target);
    expect(document.failure).toMatchObject({ step: 'Validate', code: 'GenerationNotSupported' });
    expect(disks).toEqual([]);
  }
});

/** Group, network and subnet of a network interface as it was asked for, and how its address is found. */
function addressOf(body: Record<string, unknown>): (string | undefined)[] {
  const { ipConfigurations } = body.properties as {
    ipConfigurations: {
      properties: {
        subnet: { id: string };
        privateIPAllocationMethod: string;
        privateIPAddress?: string;
      };
    }[];
  };
  const [one] = ipConfigurations.map((configuration) => configuration.properties);
  const id = one?.subnet.id.split('/') ?? [];
  return [id[4], id[8], id[10], one?.privateIPAllocationMethod, one?.privateIPAddress];
}
