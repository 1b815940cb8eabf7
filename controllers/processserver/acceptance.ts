/** Whether a ProcessServer can be acted on: its vault is there, and its replicas' names in it are its own. */
import type { ProcessServer } from '../../crds/index.ts';
import type { NameClaim } from '../../vault/documents/nameClaim.ts';
import {
  type Check,
  firstObjection,
  nameTaken,
  type Objection,
  standbyObjection,
  type VaultFacts,
  vaultObjection,
} from '../decisions.ts';
import { type Environment, namespaceOf, vaultKeyOf } from '../environment.ts';
import {
  claimName,
  isControlled,
  nameHeldByOther,
  type OpenVault,
} from '../openvaults/openVaults.ts';
import { type Replica, replicasOf } from './objects.ts';

export interface Scope {
  replicas: readonly Replica[];
  /** Undefined while it is not open, or may not be used from here. */
  vault: OpenVault | undefined;
  objection: Objection | undefined;
}

/** Claims the names where all else is right. Rejects with a StoreError, a NotInControlError. */
export async function accept(
  { caches, openVaults }: Pick<Environment, 'caches' | 'openVaults'>,
  resource: ProcessServer,
): Promise<Scope> {
  const vaultKey = vaultKeyOf(resource);
  const namespace = namespaceOf(resource);
  const replicas = replicasOf(resource);
  const vault = openVaults.get(vaultKey);
  const facts = openVaults.facts(caches.vaults.get(vaultKey), vaultKey, namespace);
  const input = { vault: facts, vaultRef: vaultKey, namespace };
  const before = vaultObjection(input);
  if (before !== undefined || vault === undefined)
    return { replicas, vault: undefined, objection: before };
  const nameHeldBy = await claimReplicaNames(resource, vault, replicas);
  return { replicas, vault, objection: firstObjection(acceptanceChecks, { ...input, nameHeldBy }) };
}

const acceptanceChecks: readonly Check<{
  vault: VaultFacts;
  vaultRef: string;
  namespace: string;
  nameHeldBy: NameClaim | undefined;
}>[] = [
  vaultObjection,
  ({ nameHeldBy, vault }) =>
    nameHeldBy === undefined
      ? undefined
      : nameTaken(nameHeldBy, { standby: vault.state === 'Standby' }),
  ({ vault, vaultRef }) => standbyObjection(vault, vaultRef),
];

/** Who holds one of them, when it is not this resource. */
async function claimReplicaNames(
  resource: ProcessServer,
  vault: OpenVault,
  replicas: readonly Replica[],
): Promise<NameClaim | undefined> {
  const namespace = namespaceOf(resource);
  for (const { name } of replicas) {
    const wanted = { kind: 'processserver' as const, name, namespace };
    if (!isControlled(vault)) {
      const holder = await nameHeldByOther(vault, wanted);
      if (holder !== undefined) return holder;
      continue;
    }
    const result = await claimName(vault, { ...wanted, uid: resource.metadata.uid ?? '' });
    if (result.outcome === 'taken') return result.holder;
  }
  return undefined;
}
