/**
 * Opening a vault: makes it when it is new, finds a key that opens it, takes control where the spec says so. Every step may be cut
 * off and done again.
 */
import { Reason, type RecoveryVault } from '../../crds/index.ts';
import { errorMessage, FarshoreError } from '../../platform/errors.ts';
import type { KubeClient } from '../../platform/kubernetes.ts';
import type { Clock, Logger, Random } from '../../platform/ports.ts';
import { Catalog } from '../../vault/catalog.ts';
import { type ControlState, VaultControl } from '../../vault/control.ts';
import type { VaultDocument } from '../../vault/documents/vault.ts';
import { withoutComments } from '../../vault/keyStrings.ts';
import { type BoxKey, decodeVaultKey, encodeVaultKey, generateBoxKey } from '../../vault/keys.ts';
import { NameClaims } from '../../vault/names.ts';
import { replaceVaultKey } from '../../vault/recipients.ts';
import { decodeRecoveryKey, type RecoveryKey } from '../../vault/recoveryKey.ts';
import {
  addControllerKey,
  createVault,
  isEndorsedController,
  openAuthority,
  readVault,
  requireEndorsedRecipients,
  VaultMissingError,
} from '../../vault/vault.ts';
import { namespaceOf } from '../environment.ts';
import { VaultObservation } from '../openvaults/observation.ts';
import type { Installation, OpenVault } from '../openvaults/openVaults.ts';
import { PointsReader } from '../openvaults/points.ts';
import type { VaultStores } from '../openvaults/stores.ts';
import { keyOf } from '../runtime/objectKey.ts';
import { optionalSecretText, SecretError, secretText, secretTextOrCreate } from '../secrets.ts';
import { decideControl } from './policies.ts';

export interface OpenDeps {
  kube: KubeClient;
  clock: Clock;
  random: Random;
  log: Logger;
  installation: Installation;
}

const VAULT_KEY_ENTRY = 'vault-key';

export function vaultKeySecretName(vault: string): string {
  return `${vault}-vault-key`;
}

/** The private keys at hand for a vault that exists. */
export interface VaultKeys {
  /** From this cluster's own Secret. */
  own: BoxKey | undefined;
  /** From spec.vaultKeySecretRef. */
  given: { box: BoxKey; recovery: RecoveryKey | undefined } | undefined;
}

export interface Opened {
  vault: OpenVault;
  created: boolean;
  tookControl: boolean;
  /** Why this installation only watches; undefined when it is in control. */
  standby: { reason: string; message: string } | undefined;
}

/** Throws StoreError, KeyError, KeyStringError, SecretError, VaultFormatTooNewError, VaultDocumentError, ControllerNotEndorsedError. */
export async function openVault(
  deps: OpenDeps,
  resource: RecoveryVault,
  options: {
    stores: VaultStores;
    location: OpenVault['location'];
    /** What is open already, of the same stores: its observation is kept. */
    before: OpenVault | undefined;
  },
): Promise<Opened> {
  const { stores } = options;
  const found = await findOrCreate(deps, resource, stores);
  const keys = await readKeys(deps, resource);
  const control = new VaultControl(
    { store: stores.objects, clock: deps.clock },
    {
      installationId: deps.installation.id,
      holder: deps.installation.holder,
    },
  );
  const taken = await takeControl(deps, resource, {
    stores,
    control,
    keys,
    document: found.document,
  });
  requireEndorsedRecipients(taken.document);
  requireSameOrigin(options.before?.document, taken.document);
  const boxKey = opener(taken.document, keys);
  const sameVault = options.before?.document.vaultId === taken.document.vaultId;
  const before = sameVault ? options.before : undefined;
  return {
    created: found.created,
    tookControl: taken.tookControl,
    standby: taken.standby,
    vault: {
      key: keyOf(resource),
      installation: deps.installation,
      stores,
      location: options.location,
      document: taken.document,
      control: taken.state,
      boxKey,
      authority:
        boxKey === undefined
          ? undefined
          : (reusable(before, taken.document) ??
            (await openAuthority(deps, { vault: taken.document, key: boxKey }))),
      vaultControl: control,
      catalog: before?.catalog ?? new Catalog({ store: stores.objects }),
      names: before?.names ?? new NameClaims({ store: stores.objects, clock: deps.clock }),
      observation:
        before?.observation ??
        new VaultObservation({ objects: stores.objects, clock: deps.clock, log: deps.log }),
      points: before?.points ?? new PointsReader({ objects: stores.objects }),
      claims: sameControl(before?.control, taken.state) ? (before?.claims ?? new Map()) : new Map(),
      readable: true,
    },
  };
}

/** Every other signature in vault.json counts because of its first key: who exchanges that could vouch for anything. */
function requireSameOrigin(before: VaultDocument | undefined, now: VaultDocument): void {
  const [first] = now.controllerKeys;
  if (before?.vaultId !== now.vaultId) return;
  if (before.controllerKeys[0]?.publicKey === first?.publicKey) return;
  throw new FarshoreError(
    Reason.VaultDamaged,
    `The first controller key of vault ${now.vaultId} is another than it was: somebody replaced vault.json. Restore it from the storage account's soft-deleted versions, and change who can write to the account.`,
  );
}

function sameControl(before: ControlState | undefined, now: ControlState): boolean {
  return (
    before?.state === 'InControl' &&
    now.state === 'InControl' &&
    before.controllerEpoch === now.controllerEpoch
  );
}

function reusable(before: OpenVault | undefined, document: VaultDocument) {
  return before?.document.ca.certificatePem === document.ca.certificatePem
    ? before?.authority
    : undefined;
}

/**
 * The vault key's Secret exists before vault.json names the key: a vault that nobody can open must never come to be. A vault that
 * should be there and is not is never made anew: that would hide the loss, or a wrong name, behind an empty one.
 */
async function findOrCreate(
  deps: OpenDeps,
  resource: RecoveryVault,
  stores: VaultStores,
): Promise<{ document: VaultDocument; created: boolean }> {
  const { status, spec } = resource;
  const isNew =
    status?.vaultId === undefined &&
    spec.vaultKeySecretRef === undefined &&
    spec.takeControlFromEpoch === undefined;
  if (isNew) await stores.ensureContainer();
  const present = await readVault(stores.objects);
  if (present !== undefined) {
    if (status?.vaultId !== undefined && status.vaultId !== present.document.vaultId)
      throw new FarshoreError(
        Reason.VaultDamaged,
        `The vault at this place is ${present.document.vaultId}, but this resource held ${status.vaultId} there. Somebody replaced it; restore vault.json, or create another RecoveryVault for the new one.`,
      );
    return { document: present.document, created: false };
  }
  if (!isNew) throw new VaultMissingError();
  const vaultKey = await ownKey(deps, resource);
  const { vault, created } = await createVault(
    { store: stores.objects, clock: deps.clock, random: deps.random },
    {
      installationId: deps.installation.id,
      vaultKey,
      controllerKey: deps.installation.signingKey,
      recoveryRecipients: spec.recoveryRecipients,
    },
  );
  return { document: vault.document, created };
}

/** This cluster's own vault key, made when there is none. */
async function ownKey(deps: OpenDeps, resource: RecoveryVault): Promise<BoxKey> {
  const namespace = namespaceOf(resource);
  const { name } = resource.metadata;
  const text = await secretTextOrCreate(
    deps.kube,
    { namespace, name: vaultKeySecretName(name) },
    VAULT_KEY_ENTRY,
    () => encodeVaultKey(generateBoxKey(deps.random)),
  );
  return decodeVaultKey(text);
}

async function readKeys(deps: OpenDeps, resource: RecoveryVault): Promise<VaultKeys> {
  const namespace = namespaceOf(resource);
  const { name } = resource.metadata;
  const own = await optionalSecretText(
    deps.kube,
    { namespace, name: vaultKeySecretName(name) },
    VAULT_KEY_ENTRY,
  );
  const ref = resource.spec.vaultKeySecretRef;
  const given =
    ref === undefined
      ? undefined
      : decodeGiven(await secretText(deps.kube, { namespace, name: ref.name }, ref.key), ref.name);
  return { own: own === undefined ? undefined : decodeVaultKey(own), given };
}

/** A recovery key or a vault key: its own prefix says which. May be the whole file that keygen wrote, comments and all. */
function decodeGiven(content: string, secret: string): NonNullable<VaultKeys['given']> {
  const text = withoutComments(content).join('\n');
  try {
    if (text.toLowerCase().startsWith('farshore-vault-key-'))
      return { box: decodeVaultKey(text), recovery: undefined };
    const recovery = decodeRecoveryKey(text);
    return { box: recovery.box, recovery };
  } catch (cause) {
    throw new SecretError(
      Reason.SecretInvalid,
      `Secret ${secret}, which spec.vaultKeySecretRef names, holds neither a recovery key nor a vault key: ${errorMessage(cause)}`,
      { cause },
    );
  }
}

/** The key that opens the vault's secrets, of those at hand. */
export function opener(document: VaultDocument, keys: VaultKeys): BoxKey | undefined {
  const sealedFor = new Set(document.ca.key.map((box) => box.recipient));
  return [keys.own, keys.given?.box].find((key) => key !== undefined && sealedFor.has(key.id));
}

async function takeControl(
  deps: OpenDeps,
  resource: RecoveryVault,
  open: { stores: VaultStores; control: VaultControl; keys: VaultKeys; document: VaultDocument },
): Promise<{
  state: ControlState;
  document: VaultDocument;
  tookControl: boolean;
  standby: Opened['standby'];
}> {
  const { control, keys, document } = open;
  const decision = decideControl({
    installationId: deps.installation.id,
    document,
    controller: await control.controller(),
    takeControlFromEpoch: resource.spec.takeControlFromEpoch,
    opensSecrets: opener(document, keys) !== undefined,
    endorsable:
      keys.given?.recovery !== undefined ||
      isEndorsedController(document, deps.installation.signingKey.publicKey),
  });
  switch (decision.action) {
    case 'StandBy':
      return { state: await control.state(), document, tookControl: false, standby: decision };
    case 'Claim':
      return { state: await control.takeFirst(), document, tookControl: true, standby: undefined };
    case 'Keep':
    case 'TakeOver': {
      const endorsed = await endorse(deps, open);
      const state =
        decision.action === 'Keep'
          ? await control.state()
          : await control.takeControl({ fromEpoch: decision.fromEpoch });
      const standby =
        state.state === 'InControl'
          ? undefined
          : {
              reason: Reason.HeldByOther,
              message: 'Another installation was faster in taking control.',
            };
      return {
        state,
        document:
          standby === undefined
            ? await useOwnKey(deps, resource, { ...open, document: endorsed })
            : endorsed,
        tookControl: decision.action === 'TakeOver' && standby === undefined,
        standby,
      };
    }
  }
}

/** This installation's signing key must stand in the vault, endorsed, before it commands anybody. Does nothing when it is there. */
async function endorse(
  deps: OpenDeps,
  open: { stores: VaultStores; keys: VaultKeys; document: VaultDocument },
): Promise<VaultDocument> {
  const { stores, keys, document } = open;
  const recovery = keys.given?.recovery;
  if (isEndorsedController(document, deps.installation.signingKey.publicKey)) return document;
  if (recovery === undefined)
    throw new FarshoreError(
      Reason.KeyMissing,
      'This installation’s signing key is not endorsed in the vault. Name a Secret with a recovery private key in spec.vaultKeySecretRef.',
    );
  const added = await addControllerKey(
    { store: stores.objects },
    {
      installationId: deps.installation.id,
      publicKey: deps.installation.signingKey.publicKey,
      endorser: recovery.signing,
    },
  );
  return added.document;
}

/**
 * Makes the vault's key this installation's own, so that the recovery key can go back to where it is kept. Only once in control: the
 * former key opens nothing from then on, and whoever stays in control must not lose it to a takeover that came too late.
 */
async function useOwnKey(
  deps: OpenDeps,
  resource: RecoveryVault,
  open: { stores: VaultStores; keys: VaultKeys; document: VaultDocument },
): Promise<VaultDocument> {
  const { stores, keys, document } = open;
  if (keys.own?.id === document.vaultKey.id) return document;
  const byWhom = opener(document, keys);
  if (byWhom === undefined) return document;
  const newVaultKey = await ownKey(deps, resource);
  keys.own = newVaultKey;
  const replaced = await replaceVaultKey(
    { store: stores.objects, random: deps.random },
    { opener: byWhom, newVaultKey },
  );
  return replaced.document;
}
