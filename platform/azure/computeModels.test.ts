import type { ResourceSku, ResourceSkuRestrictions } from '@azure/arm-compute';
import { describe, expect, test } from 'vitest';
import { toVmSizes, vmParameters } from './computeModels.ts';

const sku: ResourceSku = {
  resourceType: 'virtualMachines',
  name: 'Standard_D2s_v5',
  locations: ['WestEurope'],
  locationInfo: [
    { location: 'WestEurope', zones: ['3', '1', '2'] },
    { location: 'northeurope', zones: ['1'] },
  ],
  capabilities: [
    { name: 'vCPUs', value: '2' },
    { name: 'MemoryGB', value: '8' },
    { name: 'MaxDataDiskCount', value: '4' },
    { name: 'MaxNetworkInterfaces', value: '2' },
    { name: 'PremiumIO', value: 'True' },
    { name: 'HyperVGenerations', value: 'V1,V2' },
  ],
};

function sizeOf(change: Partial<ResourceSku>) {
  return toVmSizes([{ ...sku, ...change }], 'westeurope')[0];
}

describe('a VM size', () => {
  test('has the capabilities, the generations and this region’s zones that Azure names', () => {
    expect(sizeOf({})).toEqual({
      name: 'Standard_D2s_v5',
      cores: 2,
      memoryBytes: 8 * 2 ** 30,
      maxDataDisks: 4,
      maxNics: 2,
      premiumDisks: true,
      generations: ['V1', 'V2'],
      zones: ['1', '2', '3'],
    });
  });

  test('that the subscription may not use in the region is none; one that it may not use in a zone lacks that zone', () => {
    const region: ResourceSkuRestrictions = { type: 'Location', values: ['westeurope'] };
    expect(sizeOf({ restrictions: [region] })).toBeUndefined();
    const zone: ResourceSkuRestrictions = { type: 'Zone', restrictionInfo: { zones: ['2'] } };
    expect(sizeOf({ restrictions: [zone] })?.zones).toEqual(['1', '3']);
  });

  test('of which Azure says nothing more has no zones, no premium disks and boots by BIOS', () => {
    expect(sizeOf({ capabilities: [], locationInfo: [] })).toMatchObject({
      maxNics: 1,
      premiumDisks: false,
      generations: ['V1'],
      zones: [],
    });
  });

  test('is asked for by name in this region alone', () => {
    expect(toVmSizes([sku], 'northeurope')).toEqual([]);
    expect(sizeOf({ resourceType: 'disks' })).toBeUndefined();
  });
});

test('a machine is made in its zone, of its size, with its disks by LUN and its first interface primary', () => {
  const options = {
    location: 'westeurope',
    size: 'Standard_D2s_v5',
    zone: '2',
    osDiskId: '/os',
    osType: 'Linux' as const,
    dataDisks: [
      { lun: 0, id: '/a' },
      { lun: 1, id: '/b' },
    ],
    nicIds: ['/n0', '/n1'],
    tags: { owner: 'shop' },
  };
  const made = vmParameters(options);
  expect(made).toMatchObject({
    location: 'westeurope',
    zones: ['2'],
    tags: { owner: 'shop' },
    hardwareProfile: { vmSize: 'Standard_D2s_v5' },
    storageProfile: {
      osDisk: { osType: 'Linux', createOption: 'Attach', managedDisk: { id: '/os' } },
      dataDisks: [
        { lun: 0, managedDisk: { id: '/a' } },
        { lun: 1, managedDisk: { id: '/b' } },
      ],
    },
    networkProfile: {
      networkInterfaces: [
        { id: '/n0', primary: true },
        { id: '/n1', primary: false },
      ],
    },
    diagnosticsProfile: { bootDiagnostics: { enabled: true } },
  });
  expect('zones' in vmParameters({ ...options, zone: undefined })).toBe(false);
});
