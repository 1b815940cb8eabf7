import { rootCertificates } from 'node:tls';
import type { TokenCredential } from '@azure/identity';
import { AzureAuthorityHosts } from '@azure/identity';
import { describe, expect, test } from 'vitest';
import type { RecoveryVaultSpecCloud } from '../../crds/index.ts';
import { cloudOf, trustOf } from './cloud.ts';
import { AzureCompute } from './compute.ts';

const custom: RecoveryVaultSpecCloud = {
  type: 'Custom',
  custom: {
    resourceManagerEndpoint: 'https://management.local.azurestack.external/',
    loginEndpoint: 'https://login.local.azurestack.external/',
    blobEndpoint: 'https://farshore.blob.local.azurestack.external',
    disableInstanceDiscovery: true,
    caBundle: '-----BEGIN CERTIFICATE-----\nlocal\n-----END CERTIFICATE-----\n',
  },
};

describe('a vault’s cloud', () => {
  test.each<[RecoveryVaultSpecCloud['type'], string, string]>([
    ['AzurePublic', 'https://management.azure.com', AzureAuthorityHosts.AzurePublicCloud],
    [
      'AzureUSGovernment',
      'https://management.usgovcloudapi.net',
      AzureAuthorityHosts.AzureGovernment,
    ],
    ['AzureChina', 'https://management.chinacloudapi.cn', AzureAuthorityHosts.AzureChina],
  ])(
    '%s is managed and logged in to at its own endpoints, by tokens for it',
    (type, arm, login) => {
      expect(cloudOf({ type })).toEqual({
        resourceManager: arm,
        authorityHost: login,
        tokenScope: `${arm}/.default`,
        disableInstanceDiscovery: false,
      });
    },
  );

  test('Custom is at the endpoints that it names, with the authorities that it names', () => {
    expect(cloudOf(custom)).toEqual({
      resourceManager: 'https://management.local.azurestack.external',
      authorityHost: 'https://login.local.azurestack.external',
      tokenScope: 'https://management.local.azurestack.external/.default',
      disableInstanceDiscovery: true,
      ca: custom.custom?.caBundle,
    });
  });

  test.each([true, false])(
    'Custom asks Microsoft’s directory about its authority only when it is to: disabled %s',
    (disableInstanceDiscovery) => {
      const { custom: endpoints } = custom;
      if (endpoints === undefined) throw new TypeError('a custom cloud without endpoints');
      const spec = { ...custom, custom: { ...endpoints, disableInstanceDiscovery } };
      expect(cloudOf(spec).disableInstanceDiscovery).toBe(disableInstanceDiscovery);
    },
  );

  test('is trusted by its own authorities besides the public ones, and by these alone without', () => {
    const ca = custom.custom?.caBundle ?? '';
    const trusted = trustOf(cloudOf(custom)).tlsOptions?.ca ?? '';
    expect(trusted).toContain(ca);
    expect(trusted).toContain(rootCertificates[0]);
    expect(trustOf(cloudOf({ type: 'AzurePublic' }))).toEqual({});
  });
});

test.each<[RecoveryVaultSpecCloud]>([
  [{ type: 'AzurePublic' }],
  [{ type: 'AzureUSGovernment' }],
  [{ type: 'AzureChina' }],
  [custom],
])(
  'every client of Azure Resource Manager asks for tokens of its own cloud: $type',
  async (spec) => {
    const cloud = cloudOf(spec);
    const asked: string[] = [];
    const credential: TokenCredential = {
      getToken: async (scopes) => {
        asked.push(...[scopes].flat());
        throw new Error('no token here');
      },
    };
    const compute = new AzureCompute({
      cloud,
      credential,
      subscriptionId: 'subscription',
      retry: { attempts: 1, firstWaitMs: 1, longestWaitMs: 1 },
    });
    const ref = { resourceGroup: 'recovery', name: 'web' };
    // One call of each client: resources, network, compute.
    for (const call of [
      compute.resourceGroupExists('recovery'),
      compute.nic(ref),
      compute.disk(ref),
    ])
      await expect(call).rejects.toThrow();
    expect(new Set(asked)).toEqual(new Set([cloud.tokenScope]));
    expect(asked.length).toBeGreaterThanOrEqual(3);
  },
);
