/** What people apply: the smallest resources that the operator accepts, and how they reach an API server. */
import {
  API_GROUP_VERSION,
  type Failover,
  farshoreTypes,
  type ProcessServer,
  type ProtectedVM,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../../crds/index.ts';
import {
  type KubeClient,
  type KubeObject,
  kubeTypes,
  type ResourceType,
  type SecretObject,
} from '../../platform/kubernetes.ts';

export const PASSPHRASE = 'correct horse battery staple';

export function secret(name: string, data: Record<string, string>, namespace = 'default') {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace },
    data: Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
    ),
  } satisfies SecretObject;
}

export function recoveryVault(options: {
  recipients: string[];
  name?: string;
  spec?: Partial<RecoveryVault['spec']>;
}): RecoveryVault {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'RecoveryVault',
    metadata: { name: options.name ?? 'vault', namespace: 'default' },
    spec: {
      cloud: { type: 'AzurePublic' },
      storageAccount: {
        name: 'farshore',
        resourceId:
          '/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/farshore',
      },
      containerName: 'vault',
      prefix: '',
      credentials: {
        servicePrincipal: {
          tenantId: 'tenant',
          clientId: 'client',
          clientSecretRef: { name: 'azure', key: 'clientSecret' },
        },
        storage: { connectionStringSecretRef: { name: 'azure', key: 'connectionString' } },
      },
      recoveryRecipients: options.recipients,
      subscriptionId: '00000000-0000-0000-0000-000000000000',
      resourceGroup: 'recovery',
      location: 'westeurope',
      networks: {
        production: { network: 'production', subnet: 'default' },
        test: { network: 'test', subnet: 'default' },
      },
      ...options.spec,
    },
  };
}

export function replicationPolicy(name = 'policy', namespace = 'default'): ReplicationPolicy {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ReplicationPolicy',
    metadata: { name, namespace },
    spec: {
      rpoThreshold: '15m',
      crashConsistentInterval: '60s',
      retention: '24h',
      sampledVerification: { sharePerDay: 1 },
    },
  };
}

export function processServer(
  name = 'ps',
  spec: Partial<ProcessServer['spec']> = {},
  namespace = 'default',
): ProcessServer {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ProcessServer',
    metadata: { name, namespace },
    spec: {
      mode: 'External',
      replicas: 1,
      port: 9443,
      exposure: { endpoints: ['ps.example:9443', '[2001:db8::1]:9443'] },
      passphraseSecretRef: { name: 'passphrase', key: 'passphrase' },
      vaultRef: { name: 'vault' },
      ...spec,
    },
  };
}

/** Two replicas in the cluster. */
export function statefulServer(cache: { size: string }): ProcessServer {
  const server = processServer('sts', {
    mode: 'StatefulSet',
    replicas: 2,
    cache,
    image: 'farshore:1',
  });
  const { exposure: _, ...spec } = server.spec;
  return { ...server, spec };
}

export function protectedVM(
  name = 'web',
  spec: Partial<ProtectedVM['spec']> = {},
  namespace = 'default',
): ProtectedVM {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ProtectedVM',
    metadata: { name, namespace },
    spec: {
      source: { agent: {} },
      policyRef: { name: 'policy' },
      vaultRef: { name: 'vault' },
      processServerRef: { name: 'ps' },
      disks: [{ name: 'system', device: '/dev/sda' }],
      target: {
        name,
        size: 'Standard_B2s',
        generation: 'V1',
        diskType: 'StandardSSD_LRS',
        nics: [{}],
      },
      paused: false,
      ...spec,
    },
  };
}

export function failover(
  name: string,
  spec: Partial<Failover['spec']> = {},
  namespace = 'default',
): Failover {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'Failover',
    metadata: { name, namespace },
    spec: {
      type: 'Unplanned',
      machineRef: { name: 'web' },
      recoveryPoint: { type: 'Latest' },
      verify: 'Full',
      ...spec,
    },
  };
}

const typesByKind: Record<string, ResourceType> = {
  ...Object.fromEntries(Object.values(farshoreTypes).map((type) => [type.kind, type])),
  Secret: kubeTypes.secret,
};

export async function create(kube: KubeClient, ...objects: KubeObject[]): Promise<void> {
  for (const object of objects) {
    const type = typesByKind[object.kind];
    if (type === undefined) throw new TypeError(object.kind);
    await kube.create(type, structuredClone(object));
  }
}

export function named(name: string, namespace = 'default'): { namespace: string; name: string } {
  return { namespace, name };
}
