/** From a RecoveryVault to what its stores are made from: the spec with its Secrets read. */
import { createHash } from 'node:crypto';
import type { RecoveryVault } from '../../crds/index.ts';
import type { KubeClient } from '../../platform/kubernetes.ts';
import type { VaultLocation } from '../../vault/bootstrap.ts';
import { namespaceOf } from '../environment.ts';
import type { VaultConnection } from '../openvaults/stores.ts';
import { secretText } from '../secrets.ts';

/** Where blobs of an account are when no connection string says so. */
const BLOB_SUFFIX = {
  AzurePublic: 'blob.core.windows.net',
  AzureUSGovernment: 'blob.core.usgovcloudapi.net',
  AzureChina: 'blob.core.chinacloudapi.cn',
} as const;

/** Throws SecretError, KubeError. */
export async function resolveConnection(
  kube: KubeClient,
  vault: RecoveryVault,
): Promise<VaultConnection> {
  const { spec } = vault;
  const namespace = namespaceOf(vault);
  const read = (ref: { name: string; key: string }) =>
    secretText(kube, { namespace, name: ref.name }, ref.key);
  const { servicePrincipal, storage } = spec.credentials;
  return {
    cloud: spec.cloud,
    storage: {
      account: spec.storageAccount.name,
      container: spec.containerName,
      prefix: spec.prefix,
      connectionString:
        storage === undefined ? undefined : (await read(storage.connectionStringSecretRef)).trim(),
    },
    servicePrincipal: {
      tenantId: servicePrincipal.tenantId,
      clientId: servicePrincipal.clientId,
      clientSecret: (await read(servicePrincipal.clientSecretRef)).trim(),
    },
    subscriptionId: spec.subscriptionId,
  };
}

/** Changes when the stores have to be made anew. Says nothing of the secrets in it. */
export function fingerprint(connection: VaultConnection): string {
  return createHash('sha256').update(JSON.stringify(connection)).digest('hex');
}

/**
 * How process servers and appliers reach the vault. Without a connection string they use their own identity: a service principal's
 * secret, which may manage machines, never leaves this cluster.
 */
export function locationOf(connection: VaultConnection): VaultLocation {
  const { cloud, storage } = connection;
  const caBundle = cloud.custom?.caBundle;
  return {
    container: storage.container,
    prefix: storage.prefix,
    ...(storage.connectionString === undefined
      ? { blobEndpoint: blobEndpointOf(connection) }
      : { connectionString: storage.connectionString }),
    ...(caBundle === undefined ? {} : { caBundle }),
  };
}

export function blobEndpointOf(connection: Pick<VaultConnection, 'cloud' | 'storage'>): string {
  const { cloud, storage } = connection;
  if (cloud.type === 'Custom' && cloud.custom !== undefined) return cloud.custom.blobEndpoint;
  const suffix = cloud.type === 'Custom' ? BLOB_SUFFIX.AzurePublic : BLOB_SUFFIX[cloud.type];
  return `https://${storage.account}.${suffix}`;
}
