/** Whether a ProtectedVM can be acted on: what it names is there, and its name in the vault is its own. */
import {
  type ProcessServer,
  type ProtectedVM,
  Reason,
  type RecoveryVault,
  type ReplicationPolicy,
} from '../../crds/index.ts';
import type { NameClaim } from '../../vault/documents/nameClaim.ts';
import { firstObjection, type Objection } from '../decisions.ts';
import { type Environment, namespaceOf, vaultKeyOf } from '../environment.ts';
import {
  claimName,
  isControlled,
  nameHeldByOther,
  type OpenVault,
} from '../openvaults/openVaults.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';
import { acceptanceChecks } from './policies.ts';

/** What a ProtectedVM names, as far as it is there, and whether it may be acted on. */
export interface Scope {
  vaultKey: ObjectKey;
  vaultResource: RecoveryVault | undefined;
  vault: OpenVault | undefined;
  policy: ReplicationPolicy | undefined;
  processServer: ProcessServer | undefined;
  /** Of its name in the vault; undefined while this installation may not claim one. */
  claim: NameClaim | undefined;
  objection: Objection | undefined;
}

/** Claims the name where all else is right. Rejects with a StoreError, a NotInControlError. */
export async function accept(environment: Environment, resource: ProtectedVM): Promise<Scope> {
  const { caches, openVaults } = environment;
  const { spec } = resource;
  const namespace = namespaceOf(resource);
  const vaultKey = vaultKeyOf(resource);
  const vaultResource = caches.vaults.get(vaultKey);
  const vault = openVaults.get(vaultKey);
  const policy = caches.policies.get(`${namespace}/${spec.policyRef.name}`);
  const processServer = caches.processServers.get(`${namespace}/${spec.processServerRef.name}`);
  const scope = { vaultKey, vaultResource, vault, policy, processServer };
  const input = {
    namespace,
    vaultRef: vaultKey,
    policyRef: spec.policyRef.name,
    processServerRef: spec.processServerRef.name,
    vault: openVaults.facts(vaultResource, vaultKey, namespace),
    policyExists: policy !== undefined,
    processServer: {
      exists: processServer !== undefined,
      vaultRef: processServer === undefined ? undefined : vaultKeyOf(processServer),
    },
  };
  const before = firstObjection(acceptanceChecks, { ...input, nameHeldBy: undefined });
  // A name is claimed only for a resource that is right in everything else.
  if (before !== undefined && before.reason !== Reason.NotInControl)
    return { ...scope, claim: undefined, objection: before };
  const { claim, heldBy } = await claimMachineName(environment, resource, vault);
  const objection = firstObjection(acceptanceChecks, { ...input, nameHeldBy: heldBy });
  return { ...scope, claim, objection };
}

async function claimMachineName(
  { random }: Pick<Environment, 'random'>,
  resource: ProtectedVM,
  vault: OpenVault | undefined,
): Promise<{ claim: NameClaim | undefined; heldBy: NameClaim | undefined }> {
  const wanted = {
    kind: 'machine' as const,
    name: resource.metadata.name,
    namespace: namespaceOf(resource),
    uid: resource.metadata.uid ?? '',
  };
  if (!isControlled(vault)) {
    const heldBy = vault === undefined ? undefined : await nameHeldByOther(vault, wanted);
    return { claim: undefined, heldBy };
  }
  const machineId = Buffer.from(random.bytes(16)).toString('hex');
  const result = await claimName(vault, { ...wanted, machineId });
  return result.outcome === 'ours'
    ? { claim: result.claim, heldBy: undefined }
    : { claim: undefined, heldBy: result.holder };
}
