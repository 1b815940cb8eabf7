import { describe, expect, test } from 'vitest';
import type { VmSize } from '../../platform/ports.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverTarget } from '../../vault/documents/failover.ts';
import { targetProblems } from './validate.ts';

const GIB = 2 ** 30;
const TIB = 2 ** 40;
const size: VmSize = {
  name: 'Standard_B2s',
  cores: 2,
  memoryBytes: 4 * GIB,
  maxDataDisks: 1,
  maxNics: 1,
  premiumDisks: false,
  generations: ['V1', 'V2'],
  zones: ['1', '2'],
};
const nic = { resourceGroup: 'hub', network: 'production', subnet: 'default' };
const target: FailoverTarget = {
  name: 'web',
  resourceGroup: 'recovery',
  location: 'westeurope',
  size: 'Standard_B2s',
  osType: 'Linux',
  generation: 'V1',
  diskType: 'StandardSSD_LRS',
  nics: [nic],
  tags: {},
  storageAccountId: '/account',
};

async function codesOf(
  change: Partial<FailoverTarget>,
  options: { offered?: Partial<VmSize>; sizes?: readonly number[] } = {},
): Promise<string[]> {
  const { offered = {}, sizes = [GIB] } = options;
  const disks: CatalogDocument['disks'] = sizes.map((sizeBytes, index) => ({
    index,
    name: `disk${index}`,
    device: `/dev/sd${index}`,
    sizeBytes,
  }));
  const compute = {
    resourceGroupExists: async (name: string) => name === 'recovery',
    subnet: async (asked: { resourceGroup: string; network: string; subnet: string }) =>
      asked.resourceGroup === 'hub' && asked.subnet === 'default'
        ? { id: '/subnet', location: asked.network === 'abroad' ? 'northeurope' : 'westeurope' }
        : undefined,
    vmSizes: async (location: string) =>
      location === 'westeurope' ? [{ ...size, ...offered }] : [],
  };
  const wanted = { target: { ...target, ...change }, disks };
  return (await targetProblems({ compute }, wanted)).map((problem) => problem.code);
}

describe('a target', () => {
  test('that exists and fits has no problem', async () => {
    expect(await codesOf({})).toEqual([]);
    expect(await codesOf({ zone: '2', generation: 'V2' }, { sizes: [GIB, TIB] })).toEqual([]);
  });

  test.each<[string, Partial<FailoverTarget>, Parameters<typeof codesOf>[1]?]>([
    ['ResourceGroupNotFound', { resourceGroup: 'elsewhere' }],
    ['SubnetNotFound', { nics: [{ ...nic, resourceGroup: 'recovery' }] }],
    ['SubnetNotFound', { nics: [{ ...nic, subnet: 'none' }] }],
    ['SubnetElsewhere', { nics: [{ ...nic, network: 'abroad' }] }],
    ['SizeNotAvailable', { size: 'Standard_M128s' }],
    ['ZoneNotAvailable', { zone: '3' }],
    ['ZoneNotAvailable', { zone: '1' }, { offered: { zones: [] } }],
    ['GenerationNotSupported', { generation: 'V2' }, { offered: { generations: ['V1'] } }],
    ['GenerationNotSupported', {}, { offered: { generations: ['V2'] } }],
    ['TooManyNics', { nics: [nic, nic] }],
    ['TooManyDisks', {}, { sizes: [GIB, GIB, GIB] }],
    ['PremiumNotSupported', { diskType: 'Premium_LRS' }],
    ['PremiumNotSupported', { diskType: 'Premium_ZRS' }],
    ['OsDiskTooLarge', {}, { sizes: [3 * TIB] }],
    ['OsDiskTooLarge', { generation: 'V2' }, { sizes: [5 * TIB] }],
    ['DiskTooLarge', {}, { sizes: [GIB, 33 * TIB] }],
  ])('is refused: %s', async (code, change, options) => {
    expect(await codesOf(change, options)).toEqual([code]);
  });

  test('boots by UEFI from a disk that is too large for a BIOS', async () => {
    expect(await codesOf({ generation: 'V2' }, { sizes: [3 * TIB] })).toEqual([]);
  });

  test('has premium disks where the size takes them', async () => {
    const offered = { premiumDisks: true };
    expect(await codesOf({ diskType: 'Premium_LRS' }, { offered })).toEqual([]);
  });

  test('is told everything that is wrong with it', async () => {
    const change = { resourceGroup: 'elsewhere', size: 'none', nics: [{ ...nic, subnet: 'x' }] };
    expect(await codesOf(change)).toEqual([
      'ResourceGroupNotFound',
      'SubnetNotFound',
      'SizeNotAvailable',
    ]);
  });
});
