/**
 * The vaults that this operator has open: made and kept by the RecoveryVault controller, used by all others. Nobody else opens one.
 */
import type { RecoveryVault } from '../../crds/index.ts';
import type { CertificateAuthority } from '../../vault/authority.ts';
import type { VaultLocation } from '../../vault/bootstrap.ts';
import type { Catalog } from '../../vault/catalog.ts';
import type { ControlState, VaultControl } from '../../vault/control.ts';
import { NotInControlError } from '../../vault/control.ts';
import type { NameClaim } from '../../vault/documents/nameClaim.ts';
import type { VaultDocument } from '../../vault/documents/vault.ts';
import type { BoxKey } from '../../vault/keys.ts';
import type { NameClaims } from '../../vault/names.ts';
import type { SigningKey } from '../../vault/signing.ts';
import type { VaultFacts } from '../decisions.ts';
import { nameOfKey, type ObjectKey } from '../runtime/objectKey.ts';
import type { VaultObservation } from './observation.ts';
import type { PointsReader } from './points.ts';
import type { VaultStores } from './stores.ts';

/** Who this operator is, to every vault: kept in a Secret, so that it stays the same when the operator is replaced. */
export interface Installation {
  /** 16 random bytes, hex. */
  id: string;
  signingKey: SigningKey;
  /** How people recognise it: cluster and namespace. */
  holder: string;
}

export interface OpenVault {
  key: ObjectKey;
  installation: Installation;
  stores: VaultStores;
  /** What a process server needs to reach the same place. */
  location: VaultLocation;
  document: VaultDocument;
  control: ControlState;
  /** Opens the vault's secrets; undefined in a standby that was given no key. */
  boxKey: BoxKey | undefined;
  authority: CertificateAuthority | undefined;
  vaultControl: VaultControl;
  catalog: Catalog;
  names: NameClaims;
  observation: VaultObservation;
  points: PointsReader;
  /** Names that were found to be this installation's, by kind and name: nobody else moves them while it is in control. */
  claims: Map<string, NameClaim>;
  /** The last reading succeeded. */
  readable: boolean;
}

/** An open vault of which this installation is in control, with the key that opens it. */
export type ControlledVault = OpenVault & {
  control: { state: 'InControl'; controllerEpoch: number };
  boxKey: BoxKey;
  authority: CertificateAuthority;
};

export class OpenVaults {
  readonly #open = new Map<string, OpenVault>();
  readonly #closed = new Map<string, string>();

  set(vault: OpenVault): void {
    this.#open.set(vault.key, vault);
    this.#closed.delete(vault.key);
  }

  /** Not open any more, or not yet, and why. What was open stays usable for reading until `remove`. */
  explain(key: ObjectKey, why: string): void {
    this.#closed.set(key, why);
  }

  get(key: ObjectKey): OpenVault | undefined {
    return this.#open.get(key);
  }

  remove(key: ObjectKey): OpenVault | undefined {
    const vault = this.#open.get(key);
    this.#open.delete(key);
    this.#closed.delete(key);
    return vault;
  }

  /** What a resource in `namespace` may make of the vault that it names. */
  facts(resource: RecoveryVault | undefined, key: ObjectKey, namespace: string): VaultFacts {
    if (resource === undefined) return { state: 'Missing' };
    const allowed =
      nameOfKey(key).namespace === namespace ||
      resource.spec.allowedNamespaces?.includes(namespace);
    if (!allowed) return { state: 'NotAllowed' };
    const vault = this.#open.get(key);
    if (vault === undefined)
      return {
        state: 'NotOpen',
        message: this.#closed.get(key) ?? 'it is being opened.',
      };
    if (vault.control.state === 'Standby') {
      const { controller } = vault.control;
      const holder =
        controller === undefined
          ? 'nobody yet'
          : `${controller.holder} (installation ${controller.installationId})`;
      return { state: 'Standby', holder };
    }
    return { state: 'InControl' };
  }

  [Symbol.iterator](): Iterator<OpenVault> {
    return this.#open.values();
  }
}

export function isControlled(vault: OpenVault | undefined): vault is ControlledVault {
  return (
    vault !== undefined &&
    vault.control.state === 'InControl' &&
    vault.boxKey !== undefined &&
    vault.authority !== undefined
  );
}

/**
 * Asks the vault, not memory: the last thing before every write to it and before every call that changes something in Azure. What is
 * open in memory may be minutes old: another installation may have taken control meanwhile.
 */
export async function assertInControl(vault: OpenVault): Promise<void> {
  if (vault.control.state !== 'InControl') throw new NotInControlError(vault.control.controller, 0);
  await vault.vaultControl.assertInControl(vault.control.controllerEpoch);
}

/**
 * Claims a name for a resource, or takes over a claim that is its own by right: the resource was re-created under the same name, or
 * the installation that held it has lost control of the vault to this one.
 */
export async function claimName(
  vault: ControlledVault,
  wanted: {
    kind: NameClaim['kind'];
    name: string;
    namespace: string;
    uid: string;
    /** Of a machine. */
    machineId?: string;
  },
): Promise<{ outcome: 'ours'; claim: NameClaim } | { outcome: 'taken'; holder: NameClaim }> {
  const key = { kind: wanted.kind, name: wanted.name };
  const known = vault.claims.get(`${key.kind}/${key.name}`);
  if (known?.uid === wanted.uid && known.namespace === wanted.namespace)
    return { outcome: 'ours', claim: known };
  const result = await claimInVault(vault, wanted);
  if (result.outcome === 'ours') vault.claims.set(`${key.kind}/${key.name}`, result.claim);
  return result;
}

type WantedName = Parameters<typeof claimName>[1];

async function claimInVault(
  vault: ControlledVault,
  wanted: WantedName,
): Promise<{ outcome: 'ours'; claim: NameClaim } | { outcome: 'taken'; holder: NameClaim }> {
  const key = { kind: wanted.kind, name: wanted.name };
  const claimant = {
    installationId: vault.installation.id,
    namespace: wanted.namespace,
    uid: wanted.uid,
  };
  await assertInControl(vault);
  const result = await vault.names.claim(key, claimant, wanted.machineId);
  if (result.outcome === 'ours' || result.holder.namespace !== wanted.namespace) return result;
  const { installationId, namespace, uid } = result.holder;
  const moved = await vault.names.transfer(key, {
    from: { installationId, namespace, uid },
    to: claimant,
  });
  return moved.outcome === 'missing'
    ? await vault.names.claim(key, claimant, wanted.machineId)
    : moved;
}

/** Gives a name back that this installation holds for the resource. */
export async function releaseName(
  vault: ControlledVault,
  held: Omit<WantedName, 'machineId'>,
): Promise<void> {
  vault.claims.delete(`${held.kind}/${held.name}`);
  await assertInControl(vault);
  await vault.names.release(
    { kind: held.kind, name: held.name },
    { installationId: vault.installation.id, namespace: held.namespace, uid: held.uid },
  );
}

/** Who holds a name that is not free for a resource of this namespace; for a standby, which may not claim. */
export async function nameHeldByOther(
  vault: OpenVault,
  wanted: { kind: NameClaim['kind']; name: string; namespace: string },
): Promise<NameClaim | undefined> {
  const holder = await vault.names.holder({ kind: wanted.kind, name: wanted.name });
  if (holder === undefined) return undefined;
  const ours =
    holder.installationId === vault.installation.id && holder.namespace === wanted.namespace;
  return ours ? undefined : holder;
}
