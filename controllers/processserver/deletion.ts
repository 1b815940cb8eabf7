/** Letting go of a ProcessServer: no machine names it, its lists are empty, its replicas' names are free. */
import { farshoreTypes, type ProcessServer, Reason } from '../../crds/index.ts';
import type { Objection } from '../decisions.ts';
import { type Environment, namespaceOf, vaultKeyOf } from '../environment.ts';
import { type ControlledVault, isControlled, releaseName } from '../openvaults/openVaults.ts';
import { type Deletion, mayGo, release } from '../ownFinalizer.ts';
import { emptyList } from './assignmentLists.ts';
import { machinesOf } from './machines.ts';
import { replicasOf } from './objects.ts';

const NAMES_SHOWN = 5;

/** Rejects with a KubeError, a StoreError, a NotInControlError. */
export async function letGo(environment: Environment, resource: ProcessServer): Promise<Deletion> {
  const machines = machinesOf(environment, resource).map((machine) => machine.metadata.name);
  const objection = drainingObjection(machines);
  const title = `Process server ${resource.metadata.name}`;
  if (!mayGo(environment, resource, { title, objection })) return { gone: false, objection };
  const vault = environment.openVaults.get(vaultKeyOf(resource));
  if (isControlled(vault)) await leaveVault(resource, vault);
  await release(environment, farshoreTypes.processServer, resource);
  return { gone: true, objection };
}

/** Machines that name it keep it: it drains by being named by none. */
function drainingObjection(machines: readonly string[]): Objection | undefined {
  if (machines.length === 0) return undefined;
  const some = machines.slice(0, NAMES_SHOWN).join(', ');
  const more = machines.length > NAMES_SHOWN ? ', …' : '';
  return {
    reason: Reason.Draining,
    message: `${machines.length} machines still name it (${some}${more}). Point them at another process server or delete them, or set the annotation farshore.dev/force-delete.`,
  };
}

async function leaveVault(resource: ProcessServer, vault: ControlledVault): Promise<void> {
  for (const { name } of replicasOf(resource)) {
    await emptyList(vault, name);
    await releaseName(vault, {
      kind: 'processserver',
      name,
      namespace: namespaceOf(resource),
      uid: resource.metadata.uid ?? '',
    });
  }
}
