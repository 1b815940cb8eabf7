/** Letting go of a ProtectedVM: its process server has it no more, and no name is left of one that never sent anything. */
import { farshoreTypes, type ProtectedVM, Reason } from '../../crds/index.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { firstObjection, type Objection } from '../decisions.ts';
import { type Environment, namespaceOf, vaultKeyOf } from '../environment.ts';
import {
  assertInControl,
  type ControlledVault,
  isControlled,
  releaseName,
} from '../openvaults/openVaults.ts';
import { type Deletion, mayGo, release } from '../ownFinalizer.ts';
import { readAssignments } from '../processserver/assignmentStore.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';
import { deletionChecks } from './policies.ts';

/** Rejects with a KubeError, a StoreError, a NotInControlError. */
export async function letGo(environment: Environment, resource: ProtectedVM): Promise<Deletion> {
  const left = await whatIsLeft(environment, resource);
  const objection = objectionTo(resource, left);
  if (left.what === 'Entry') {
    if (left.draining !== undefined) environment.enqueue('processServers', left.draining);
    if (objection === undefined) await forgetUnused(resource, left.vault, left.catalog.machineId);
  }
  const title = `Machine ${resource.metadata.name}`;
  if (!mayGo(environment, resource, { title, objection })) return { gone: false, objection };
  await release(environment, farshoreTypes.protectedVM, resource);
  return { gone: true, objection };
}

/** What a machine has in its vault. */
type Left =
  | { what: 'Nothing' }
  /** The vault can't be read or changed from here now. */
  | { what: 'Unknown' }
  | {
      what: 'Entry';
      vault: ControlledVault;
      catalog: CatalogDocument;
      /** The process server that has it in its assignments still, and is there to drop it. */
      draining: ObjectKey | undefined;
    };

async function whatIsLeft(environment: Environment, resource: ProtectedVM): Promise<Left> {
  const machineId = resource.status?.machineId;
  // It never had anything in a vault.
  if (machineId === undefined) return { what: 'Nothing' };
  const vault = environment.openVaults.get(vaultKeyOf(resource));
  if (!isControlled(vault) || vault.observation.observedAt === undefined)
    return { what: 'Unknown' };
  const catalog = vault.observation.catalog(machineId);
  if (catalog === undefined || !(await holdsName(resource, vault))) return { what: 'Nothing' };
  const { processServer } = catalog;
  const assigned =
    processServer === undefined ? undefined : await readAssignments(vault, processServer);
  const isAssigned = assigned?.document?.machines.some((one) => one.machineId === machineId);
  const draining = isAssigned ? processServerOf(environment, resource) : undefined;
  return { what: 'Entry', vault, catalog, draining };
}

function objectionTo(resource: ProtectedVM, left: Left): Objection | undefined {
  if (left.what === 'Nothing') return undefined;
  if (left.what === 'Unknown')
    return {
      reason: Reason.DeletionBlocked,
      message: `The vault can't be changed from here now, so the machine stays with its process server. See RecoveryVault ${vaultKeyOf(resource)}, or set the annotation farshore.dev/force-delete.`,
    };
  const { activeSide, activeFailover, processServer } = left.catalog;
  const assignedTo = left.draining === undefined ? undefined : processServer;
  return firstObjection(deletionChecks, { activeSide, activeFailover, assignedTo });
}

async function holdsName(resource: ProtectedVM, vault: ControlledVault): Promise<boolean> {
  const claim = await vault.names.holder({ kind: 'machine', name: resource.metadata.name });
  return claim?.uid === resource.metadata.uid;
}

/** A machine that never sent anything leaves no name behind. What was sent is kept, and its name with it. */
async function forgetUnused(
  resource: ProtectedVM,
  vault: ControlledVault,
  machineId: string,
): Promise<void> {
  for await (const _ of vault.stores.objects.list(vaultLayout.journalPrefix(machineId))) return;
  await assertInControl(vault);
  await vault.catalog.remove(machineId);
  await releaseName(vault, {
    kind: 'machine',
    name: resource.metadata.name,
    namespace: namespaceOf(resource),
    uid: resource.metadata.uid ?? '',
  });
}

function processServerOf(
  { caches }: Pick<Environment, 'caches'>,
  resource: ProtectedVM,
): ObjectKey | undefined {
  const key = `${namespaceOf(resource)}/${resource.spec.processServerRef.name}`;
  return caches.processServers.get(key) === undefined ? undefined : key;
}
