import { describe, expect, test } from 'vitest';
import type { ProtectedVM, RecoveryVault } from '../../crds/index.ts';
import { protectedVM, recoveryVault } from '../../test/operator/manifests.ts';
import type { FailoverTarget } from '../../vault/documents/failover.ts';
import { resolveTarget } from './target.ts';

type Target = ProtectedVM['spec']['target'];

const plain: FailoverTarget = {
  name: 'web',
  resourceGroup: 'recovery',
  location: 'westeurope',
  size: 'Standard_B2s',
  osType: 'Linux',
  generation: 'V1',
  diskType: 'StandardSSD_LRS',
  nics: [{ resourceGroup: 'recovery', network: 'production', subnet: 'default' }],
  tags: {},
  storageAccountId:
    '/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/farshore',
};

function resolved(
  target: Partial<Target>,
  options: { kind?: 'Production' | 'Test'; vault?: Partial<RecoveryVault['spec']> } = {},
): FailoverTarget {
  const { kind = 'Production', vault = {} } = options;
  const machine = protectedVM();
  const spec = { ...machine.spec, target: { ...machine.spec.target, ...target } };
  return resolveTarget({ spec }, recoveryVault({ recipients: [], spec: vault }), kind);
}

describe('a target', () => {
  test('that names nothing is in the vault’s group, region and production network', () => {
    expect(resolved({})).toEqual(plain);
  });

  test.each<[string, Partial<Target>, Partial<FailoverTarget>]>([
    ['name', { name: 'web-in-azure' }, { name: 'web-in-azure' }],
    ['size', { size: 'Standard_D4s_v5' }, { size: 'Standard_D4s_v5' }],
    ['generation', { generation: 'V2' }, { generation: 'V2' }],
    ['diskType', { diskType: 'Premium_ZRS' }, { diskType: 'Premium_ZRS' }],
    ['zone', { zone: '2' }, { zone: '2' }],
    ['tags', { tags: { owner: 'shop', tier: 'web' } }, { tags: { owner: 'shop', tier: 'web' } }],
    // The group of the machine is not that of the network.
    ['resourceGroup', { resourceGroup: 'shop' }, { resourceGroup: 'shop' }],
  ])('that names its own %s has it, and all else as before', (_, target, expected) => {
    expect(resolved(target)).toEqual({ ...plain, ...expected });
  });

  test.each<[string, Partial<RecoveryVault['spec']>, Partial<FailoverTarget>]>([
    ['location', { location: 'northeurope' }, { location: 'northeurope' }],
    [
      'resource group, networks included',
      { resourceGroup: 'other' },
      {
        resourceGroup: 'other',
        nics: [{ resourceGroup: 'other', network: 'production', subnet: 'default' }],
      },
    ],
    [
      'storage account',
      { storageAccount: { name: 'other', resourceId: '/other' } },
      { storageAccountId: '/other' },
    ],
  ])('takes the vault’s %s', (_, vault, expected) => {
    expect(resolved({}, { vault })).toEqual({ ...plain, ...expected });
  });
});

describe('the network interfaces', () => {
  const networks = {
    production: { resourceGroup: 'hub', network: 'production', subnet: 'default' },
    test: { resourceGroup: 'lab', network: 'test', subnet: 'bubble' },
  };

  test.each<[string, Target['nics'], FailoverTarget['nics']]>([
    [
      'one that names nothing is on the vault’s production network, in that network’s group',
      [{}],
      [{ resourceGroup: 'hub', network: 'production', subnet: 'default' }],
    ],
    [
      'none at all is one there too',
      [],
      [{ resourceGroup: 'hub', network: 'production', subnet: 'default' }],
    ],
    [
      'one with an address alone is on the vault’s production network',
      [{ ip: '10.0.0.9' }],
      [
        {
          resourceGroup: 'hub',
          network: 'production',
          subnet: 'default',
          privateIp: '10.0.0.9',
        },
      ],
    ],
    [
      'a network of its own is in the vault’s group, not in that of the vault’s network',
      [{ network: 'shop', subnet: 'front' }],
      [{ resourceGroup: 'recovery', network: 'shop', subnet: 'front' }],
    ],
    [
      'a network of its own in its own group, and a second interface, in this order',
      [{ resourceGroup: 'shop', network: 'shop', subnet: 'front', ip: '10.9.0.4' }, {}],
      [
        { resourceGroup: 'shop', network: 'shop', subnet: 'front', privateIp: '10.9.0.4' },
        { resourceGroup: 'hub', network: 'production', subnet: 'default' },
      ],
    ],
  ])('%s', (_, nics, expected) => {
    expect(resolved({ nics }, { vault: { networks } }).nics).toEqual(expected);
  });

  test('of a Test are all in the vault’s test network, and Azure chooses their addresses', () => {
    const nics = [
      { resourceGroup: 'shop', network: 'shop', subnet: 'front', ip: '10.9.0.4' },
      { ip: '10.0.0.9' },
    ];
    const target = resolved({ nics, zone: '3' }, { kind: 'Test', vault: { networks } });
    const bubble = { resourceGroup: 'lab', network: 'test', subnet: 'bubble' };
    expect(target).toEqual({ ...plain, zone: '3', nics: [bubble, bubble] });
  });

  test('of a Test are in the vault’s group when its test network names none', () => {
    const vault = { networks: { ...networks, test: { network: 'test', subnet: 'bubble' } } };
    expect(resolved({}, { kind: 'Test', vault }).nics).toEqual([
      { resourceGroup: 'recovery', network: 'test', subnet: 'bubble' },
    ]);
  });
});
