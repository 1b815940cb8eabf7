/**
 * Which Azure: its endpoints and whom its certificates are signed by. Nothing is read from the environment, so that one operator
 * can serve vaults in several clouds.
 */
import { rootCertificates } from 'node:tls';

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

export type AzureCloudName = 'AzurePublic' | 'AzureUSGovernment' | 'AzureChina';

export const azureClouds: Readonly<Record<AzureCloudName, AzureCloud>> = {
  AzurePublic: cloudOf('https://management.azure.com', 'https://login.microsoftonline.com'),
  AzureUSGovernment: cloudOf(
    'https://management.usgovcloudapi.net',
    'https://login.microsoftonline.us',
  ),
  AzureChina: cloudOf('https://management.chinacloudapi.cn', 'https://login.chinacloudapi.cn'),
};

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
    ...cloudOf(endpoints.resourceManager, endpoints.authorityHost),
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

function cloudOf(resourceManager: string, authorityHost: string): AzureCloud {
  const endpoint = resourceManager.replace(/\/+$/, '');
  return {
    resourceManager: endpoint,
    authorityHost: authorityHost.replace(/\/+$/, ''),
    tokenScope: `${endpoint}/.default`,
    disableInstanceDiscovery: false,
  };
}
