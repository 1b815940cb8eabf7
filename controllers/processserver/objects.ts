/** The Kubernetes objects of a process server in mode StatefulSet, as pure functions of its spec. */
import { API_GROUP_VERSION, type ProcessServer } from '../../crds/index.ts';
import type { AppliedObject, OwnerReference } from '../../platform/kubernetes.ts';
import { BOOTSTRAP_ENTRY } from '../openvaults/bootstrapSecret.ts';

const CACHE_VOLUME = 'cache';
export const CACHE_DIRECTORY = '/var/lib/farshore';
const BOOTSTRAP_DIRECTORY = '/etc/farshore';
const METRICS_PORT = 9444;

export interface Replica {
  /** Its name in the vault and, in mode StatefulSet, of its pod, Service and bootstrap Secret. */
  name: string;
  ordinal: number;
}

/** A process server outside the cluster is one replica that carries the resource's own name. */
export function replicasOf(server: ProcessServer): Replica[] {
  const { name } = server.metadata;
  if (server.spec.mode === 'External') return [{ name, ordinal: 0 }];
  return Array.from({ length: server.spec.replicas }, (_, ordinal) => ({
    name: `${name}-${ordinal}`,
    ordinal,
  }));
}

export function bootstrapSecretName(replica: string): string {
  return `${replica}-bootstrap`;
}

/** The volume claim that the StatefulSet's template makes for a replica. */
export function cacheClaimName(replica: string): string {
  return `${CACHE_VOLUME}-${replica}`;
}

/** Deleted with the ProcessServer by Kubernetes' garbage collection; volume claims are not, as they hold data. */
export function ownerOf(server: ProcessServer): OwnerReference {
  return {
    apiVersion: API_GROUP_VERSION,
    kind: 'ProcessServer',
    name: server.metadata.name,
    uid: server.metadata.uid ?? '',
    controller: true,
    blockOwnerDeletion: true,
  };
}

export function labelsOf(server: ProcessServer): Record<string, string> {
  return {
    'app.kubernetes.io/name': 'farshore-processserver',
    'app.kubernetes.io/instance': server.metadata.name,
    'app.kubernetes.io/managed-by': 'farshore',
  };
}

export function selectorOf(server: ProcessServer): string {
  return Object.entries(labelsOf(server))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

/** The headless Service that gives pods their names. */
export function governingService(server: ProcessServer): AppliedObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: metadataOf(server, server.metadata.name),
    spec: {
      clusterIP: 'None',
      selector: labelsOf(server),
      ports: [{ name: 'agents', port: server.spec.port, targetPort: 'agents', protocol: 'TCP' }],
    },
  };
}

/** One Service a replica: an agent's machine belongs to one replica, so traffic must not be spread. */
export function replicaService(server: ProcessServer, replica: Replica): AppliedObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: metadataOf(server, replica.name),
    spec: {
      type: server.spec.exposure?.serviceType ?? 'ClusterIP',
      selector: { ...labelsOf(server), 'statefulset.kubernetes.io/pod-name': replica.name },
      // An agent is told where its machine's replica is also while that is not ready, so that it waits in the right place.
      publishNotReadyAddresses: true,
      ports: [{ name: 'agents', port: server.spec.port, targetPort: 'agents', protocol: 'TCP' }],
    },
  };
}

export function statefulSet(server: ProcessServer): AppliedObject {
  const labels = labelsOf(server);
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: metadataOf(server, server.metadata.name),
    spec: {
      replicas: server.spec.replicas,
      serviceName: server.metadata.name,
      // Replicas serve different machines: none waits for another.
      podManagementPolicy: 'Parallel',
      selector: { matchLabels: labels },
      persistentVolumeClaimRetentionPolicy: { whenDeleted: 'Retain', whenScaled: 'Retain' },
      template: { metadata: { labels }, spec: podSpec(server) },
      volumeClaimTemplates: [volumeClaimTemplate(server)],
    },
  };
}

function podSpec(server: ProcessServer): Record<string, unknown> {
  return {
    // Everything it does goes through the vault; it never asks the Kubernetes API.
    automountServiceAccountToken: false,
    // A replica that ends uploads what it holds first, as far as the time allows.
    terminationGracePeriodSeconds: 60,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      fsGroup: 65532,
      fsGroupChangePolicy: 'OnRootMismatch',
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        name: 'processserver',
        image: server.spec.image,
        args: ['processserver', '--bootstrap', `${BOOTSTRAP_DIRECTORY}/${BOOTSTRAP_ENTRY}`],
        env: [{ name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
        ports: [
          { name: 'agents', containerPort: server.spec.port, protocol: 'TCP' },
          { name: 'metrics', containerPort: METRICS_PORT, protocol: 'TCP' },
        ],
        ...(server.spec.resources === undefined ? {} : { resources: server.spec.resources }),
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: [
          { name: CACHE_VOLUME, mountPath: CACHE_DIRECTORY },
          {
            name: 'bootstrap',
            mountPath: `${BOOTSTRAP_DIRECTORY}/${BOOTSTRAP_ENTRY}`,
            // The volume holds the files of all replicas; a container sees its own alone.
            subPathExpr: '$(POD_NAME).json',
            readOnly: true,
          },
        ],
      },
    ],
    volumes: [
      {
        name: 'bootstrap',
        projected: {
          defaultMode: 0o440,
          sources: replicasOf(server).map((replica) => ({
            secret: {
              name: bootstrapSecretName(replica.name),
              items: [{ key: BOOTSTRAP_ENTRY, path: `${replica.name}.json` }],
            },
          })),
        },
      },
    ],
  };
}

function volumeClaimTemplate(server: ProcessServer): Record<string, unknown> {
  const { cache } = server.spec;
  return {
    metadata: { name: CACHE_VOLUME },
    spec: {
      accessModes: ['ReadWriteOnce'],
      ...(cache?.storageClassName === undefined
        ? {}
        : { storageClassName: cache.storageClassName }),
      resources: { requests: { storage: cache?.size } },
    },
  };
}

function metadataOf(server: ProcessServer, name: string): AppliedObject['metadata'] {
  return {
    name,
    ...(server.metadata.namespace === undefined ? {} : { namespace: server.metadata.namespace }),
    labels: labelsOf(server),
    ownerReferences: [ownerOf(server)],
  };
}

// --------------------------------------------------------------------------------------------------------------- endpoints

/** What a Service of a replica says about where it is reached from outside. */
export interface ServiceAddress {
  hostname?: string;
  ip?: string;
}

/** Where agents reach a replica; undefined while a load balancer has no address yet. */
export function endpointsOf(
  server: ProcessServer,
  replica: Replica,
  balancer: readonly ServiceAddress[],
): string[] | undefined {
  const { exposure, port } = server.spec;
  if (exposure?.endpoints !== undefined)
    return server.spec.mode === 'External'
      ? exposure.endpoints
      : exposure.endpoints.slice(replica.ordinal, replica.ordinal + 1);
  if (exposure?.serviceType === 'LoadBalancer') {
    const hosts = balancer.map((one) => one.hostname ?? one.ip).filter((one) => one !== undefined);
    return hosts.length === 0 ? undefined : hosts.map((host) => `${bracketed(host)}:${port}`);
  }
  return [`${replica.name}.${server.metadata.namespace}.svc:${port}`];
}

/** Hosts of endpoints, for a certificate: without port and brackets, each once. */
export function hostsOf(endpoints: readonly string[]): string[] {
  return [
    ...new Set(
      endpoints.map((endpoint) => endpoint.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')),
    ),
  ];
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
