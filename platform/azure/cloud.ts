/**
 * Which Azure: its endpoints, whom its certificates are signed by, and how we log in. Nothing is read from the environment, so
 * that one operator can serve vaults in several clouds.
 */
import { rootCertificates } from 'node:tls';

import {
  ClientSecretCredential,
  type TokenCredential,
  WorkloadIdentityCredential,
} from '@azure/identity';

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
  ca?: string;
}): AzureCloud {
  return {
    ...cloudOf(endpoints.resourceManager, endpoints.authorityHost),
    ...(endpoints.tokenScope === undefined ? {} : { tokenScope: endpoints.tokenScope }),
    ...(endpoints.ca === undefined ? {} : { ca: endpoints.ca }),
    disableInstanceDiscovery: true,
  };
}

export type AzureIdentity =
  | { kind: 'ServicePrincipal'; tenantId: string; clientId: string; clientSecret: string }
  /** The pod's projected service account token, exchanged for one of Entra's. */
  | { kind: 'WorkloadIdentity'; tenantId: string; clientId: string; tokenFile: string };

/** What to log in with. The credential keeps and renews its tokens. */
export function azureCredential(cloud: AzureCloud, identity: AzureIdentity): TokenCredential {
  const options = {
    authorityHost: cloud.authorityHost,
    disableInstanceDiscovery: cloud.disableInstanceDiscovery,
    retryOptions: { maxRetries: 2 },
    ...trustOf(cloud),
  };
  if (identity.kind === 'ServicePrincipal')
    return new ClientSecretCredential(
      identity.tenantId,
      identity.clientId,
      identity.clientSecret,
      options,
    );
  return new WorkloadIdentityCredential({
    ...options,
    tenantId: identity.tenantId,
    clientId: identity.clientId,
    tokenFilePath: identity.tokenFile,
  });
}

/** TLS settings for a pipeline of an Azure SDK. Node's `ca` replaces the public authorities, so they are named again. */
export function trustOf(cloud: Pick<AzureCloud, 'ca'>): { tlsOptions?: { ca: string } } {
  if (cloud.ca === undefined) return {};
  return { tlsOptions: { ca: [...rootCertificates, cloud.ca].join('\n') } };
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
