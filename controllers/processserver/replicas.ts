/** What each replica needs before it can work: its Service, its bootstrap file, and its certificate when it asks. */
import type { ProcessServer } from '../../crds/index.ts';
import { type Environment, namespaceOf } from '../environment.ts';
import { type BootstrapWish, ensureBootstrap } from '../openvaults/bootstrapSecret.ts';
import type { ControlledVault } from '../openvaults/openVaults.ts';
import { keyOf } from '../runtime/objectKey.ts';
import { applyService, applyStatefulSet } from './cluster.ts';
import { admitReplica, tellOutcomes } from './enrolments.ts';
import { machinesOf } from './machines.ts';
import {
  bootstrapSecretName,
  CACHE_DIRECTORY,
  endpointsOf,
  ownerOf,
  type Replica,
} from './objects.ts';

/** Rejects with a KubeError, a StoreError, a SecretError, a NotInControlError. */
export async function prepareReplicas(
  environment: Environment,
  vault: ControlledVault,
  options: { server: ProcessServer; replicas: readonly Replica[] },
): Promise<void> {
  const { server, replicas } = options;
  for (const replica of replicas) await prepareReplica(environment, vault, { server, replica });
  if (server.spec.mode === 'StatefulSet')
    await applyStatefulSet(environment.kube, server, replicas);
}

async function prepareReplica(
  environment: Environment,
  vault: ControlledVault,
  options: { server: ProcessServer; replica: Replica },
): Promise<void> {
  const { server, replica } = options;
  const inCluster = server.spec.mode === 'StatefulSet';
  const balancer = inCluster ? await applyService(environment.kube, server, replica) : [];
  const endpoints = endpointsOf(server, replica, balancer);
  if (endpoints === undefined) return;
  const wish: BootstrapWish = {
    secret: { namespace: namespaceOf(server), name: bootstrapSecretName(replica.name) },
    owner: ownerOf(server),
    name: replica.name,
    port: server.spec.port,
    endpoints,
    ...(inCluster ? { cacheDirectory: CACHE_DIRECTORY } : {}),
  };
  const { token } = await ensureBootstrap(environment, vault, wish);
  const { outcomes, spent } = await admitReplica(environment, vault, {
    replica: replica.name,
    token,
    secret: `${wish.secret.namespace}/${wish.secret.name}`,
    endpoints,
  });
  if (spent) await ensureBootstrap(environment, vault, wish, { renewToken: true });
  tellOutcomes(environment, server, outcomes);
  // Machines' data keys are sealed for it by their own controller.
  if (outcomes.some((outcome) => outcome.refusal === undefined))
    for (const machine of machinesOf(environment, server))
      environment.enqueue('machines', keyOf(machine));
}
