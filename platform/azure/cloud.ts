/**
 * Which Azure: its endpoints and whom its certificates are signed by. Nothing is read from the environment, so that one operator
 * can serve vaults in several clouds.
 */
import { rootCertificates } from 'node:tls';
import type { RecoveryVaultSpecCloud } from '../../crds/index.ts';

export interface AzureCloud {
  /** https://management.azure.com, without a slash at the end. */
  resourceManager: string;
  /** https://login.microsoftonline.com */
  authorityHost: string;
  /** What tokens are asked for. The SDKs' own default is the public cloud's, also when their endpoint is another's. */
  tokenScope: string;
  /** For clouds that the public login service does not know. */
  disableInstanceDiscovery: boolean;
  /** PEM, trusted besides the public authorities. */
  ca?: string;
}

const azureClouds: Readonly<Record<Exclude<RecoveryVaultSpecCloud['type'], 'Custom'>, AzureCloud>> =
  {
    AzurePublic: cloudAt({
      resourceManager: 'https://management.azure.com',
      authorityHost: 'https://login.microsoftonline.com',
    }),
    AzureUSGovernment: cloudAt({
      resourceManager: 'https://management.usgovcloudapi.net',
      authorityHost: 'https://login.microsoftonline.us',
    }),
    AzureChina: cloudAt({
      resourceManager: 'https://management.chinacloudapi.cn',
      authorityHost: 'https://login.chinacloudapi.cn',
    }),
  };

/** The cloud that a RecoveryVault's spec names. */
export function cloudOf(spec: RecoveryVaultSpecCloud): AzureCloud {
  if (spec.type !== 'Custom') return azureClouds[spec.type];
  const { custom } = spec;
  // The CRD refuses it.
  if (custom === undefined) throw new TypeError('a custom cloud without endpoints');
  return customCloud({
    resourceManager: custom.resourceManagerEndpoint,
    authorityHost: custom.loginEndpoint,
    disableInstanceDiscovery: custom.disableInstanceDiscovery,
    ...(custom.caBundle === undefined ? {} : { ca: custom.caBundle }),
  });
}

/** A cloud of one's own: Azure Stack, or a test. */
export function customCloud(endpoints: {
  resourceManager: string;
  authorityHost: string;
  /** Where Azure Resource Manager is not its own token audience. */
  tokenScope?: string;
  /** Whether the public login service is left out [true]: it does not know most such clouds. */
  disableInstanceDiscovery?: boolean;
  ca?: string;
}): AzureCloud {
  return {
    ...cloudAt(endpoints),
    ...(endpoints.tokenScope === undefined ? {} : { tokenScope: endpoints.tokenScope }),
    ...(endpoints.ca === undefined ? {} : { ca: endpoints.ca }),
    disableInstanceDiscovery: endpoints.disableInstanceDiscovery ?? true,
  };
}

const trustByAuthority = new Map<string, { tlsOptions: { ca: string } }>();

/**
 * TLS settings for a pipeline of an Azure SDK. Node's `ca` replaces the public authorities, so they are named again. The same
 * object for the same authority: the SDKs keep connections by it.
 */
export function trustOf(cloud: Pick<AzureCloud, 'ca'>): { tlsOptions?: { ca: string } } {
  if (cloud.ca === undefined) return {};
  const known = trustByAuthority.get(cloud.ca);
  if (known !== undefined) return known;
  const trust = { tlsOptions: { ca: [...rootCertificates, cloud.ca].join('\n') } };
  trustByAuthority.set(cloud.ca, trust);
  return trust;
}

function cloudAt(endpoints: { resourceManager: string; authorityHost: string }): AzureCloud {
  const resourceManager = endpoints.resourceManager.replace(/\/+$/, '');
  return {
    resourceManager,
    authorityHost: endpoints.authorityHost.replace(/\/+$/, ''),
    tokenScope: `${resourceManager}/.default`,
    disableInstanceDiscovery: false,
  };
}
