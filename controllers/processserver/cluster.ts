/** What the cluster holds for a process server in mode StatefulSet: applied, and its volumes grown. */
import type { ProcessServer } from '../../crds/index.ts';
import { type KubeClient, type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { namespaceOf } from '../environment.ts';
import {
  cacheClaimName,
  governingService,
  type Replica,
  replicaService,
  type ServiceAddress,
  statefulSet,
} from './objects.ts';

interface ServiceObject extends KubeObject {
  status?: { loadBalancer?: { ingress?: ServiceAddress[] } };
}

interface ClaimSpec {
  resources?: { requests?: { storage?: string } };
}

interface StatefulSetObject extends KubeObject {
  spec?: { volumeClaimTemplates?: { spec?: ClaimSpec }[] };
}

/** The replica's Service, and the addresses that a load balancer gave it. */
export async function applyService(
  kube: KubeClient,
  server: ProcessServer,
  replica: Replica,
): Promise<readonly ServiceAddress[]> {
  const service = await kube.apply<ServiceObject>(
    kubeTypes.service,
    replicaService(server, replica),
  );
  return service.status?.loadBalancer?.ingress ?? [];
}

/**
 * The StatefulSet and its governing Service. Volume claim templates can't change, so when the cache grew the claims are enlarged and
 * the StatefulSet is replaced without its pods. `pending` while the old one is still going.
 */
export async function applyStatefulSet(
  kube: KubeClient,
  server: ProcessServer,
  replicas: readonly Replica[],
): Promise<'applied' | 'pending'> {
  const name = { namespace: namespaceOf(server), name: server.metadata.name };
  await kube.apply(kubeTypes.service, governingService(server));
  const present = await kube.get<StatefulSetObject>(kubeTypes.statefulSet, name);
  if (present?.metadata.deletionTimestamp !== undefined) return 'pending';
  const size = server.spec.cache?.size;
  if (present !== undefined && size !== undefined && storageOf(present) !== size) {
    for (const replica of replicas) await growClaim(kube, server, { replica, size });
    const { uid } = present.metadata;
    await kube.remove(kubeTypes.statefulSet, name, {
      propagation: 'Orphan',
      ...(uid === undefined ? {} : { uid }),
    });
    if ((await kube.get(kubeTypes.statefulSet, name)) !== undefined) return 'pending';
  }
  await kube.apply(kubeTypes.statefulSet, statefulSet(server));
  return 'applied';
}

async function growClaim(
  kube: KubeClient,
  server: ProcessServer,
  options: { replica: Replica; size: string },
): Promise<void> {
  const name = { namespace: namespaceOf(server), name: cacheClaimName(options.replica.name) };
  const claim = await kube.get<KubeObject & { spec?: ClaimSpec }>(
    kubeTypes.persistentVolumeClaim,
    name,
  );
  if (claim === undefined || claim.spec?.resources?.requests?.storage === options.size) return;
  await kube.patch(kubeTypes.persistentVolumeClaim, name, {
    merge: { spec: { resources: { requests: { storage: options.size } } } },
  });
}

function storageOf(set: StatefulSetObject): string | undefined {
  return set.spec?.volumeClaimTemplates?.[0]?.spec?.resources?.requests?.storage;
}
