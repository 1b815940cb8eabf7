/**
 * vault.json: made once, by whoever is first; changed by compare-and-set when a controller or a recovery recipient comes or goes.
 */
import { z } from 'zod';
import { FarshoreError } from '../platform/errors.ts';
import type { Clock, ObjectStore, Random } from '../platform/ports.ts';
import { CertificateAuthority, createAuthority } from './authority.ts';
import {
  endorseController,
  endorseRecipients,
  recipientListHolds,
  trustedControllers,
} from './controllerTrust.ts';
import { DOCUMENT_MAX_BYTES, updateDocument, type Versioned } from './documentStore.ts';
import { decodeDocument, encodeDocument, FORMAT_VERSION } from './documents/codec.ts';
import { type VaultDocument, vaultDocumentSchema } from './documents/vault.ts';
import {
  type BoxKey,
  boxContext,
  decodePublicKey,
  encodePublicKey,
  openSealedKey,
  type Recipient,
  sealKeyForAll,
} from './keys.ts';
import { vaultLayout } from './layout.ts';
import { createRecoveryChallenge } from './recoveryCheck.ts';
import { decodeRecoveryRecipient } from './recoveryKey.ts';
import type { SigningKey } from './signing.ts';

/** The vault is of a newer format than this build knows. Code VaultFormatTooNew. */
export class VaultFormatTooNewError extends FarshoreError {
  readonly formatVersion: number;

  constructor(formatVersion: number) {
    super(
      'VaultFormatTooNew',
      `The vault has format version ${formatVersion}; this build of Farshore knows versions up to ${FORMAT_VERSION} and reads and writes nothing in it. Upgrade this component.`,
    );
    this.formatVersion = formatVersion;
  }
}

/** There is no vault.json under the container and prefix. Code VaultMissing. */
export class VaultMissingError extends FarshoreError {
  constructor() {
    super(
      'VaultMissing',
      'There is no vault here: vault.json does not exist under this container and prefix. Check the storage account, the container and the prefix.',
    );
  }
}

/** A signing key may not be added: nobody who counts has endorsed it. Code ControllerNotEndorsed. */
export class ControllerNotEndorsedError extends FarshoreError {
  constructor(options: { endorser: string; vaultId: string }) {
    super(
      'ControllerNotEndorsed',
      `Key ${options.endorser} can't endorse a controller of vault ${options.vaultId}: it is neither one of its controllers' keys nor of one of its recovery keys. Give the recovery key of this vault.`,
    );
  }
}

/** The recovery recipients are not those that a controller signed. Code RecipientsNotEndorsed. */
export class RecipientsNotEndorsedError extends FarshoreError {
  constructor(vaultId: string) {
    super(
      'RecipientsNotEndorsed',
      `The recovery recipients in vault.json of vault ${vaultId} are not those that one of its controllers signed: somebody else wrote them, and nothing is sealed to them. Restore vault.json from the storage account's soft-deleted versions, and change who can write to the account.`,
    );
  }
}

const formatOnly = z.object({ formatVersion: z.number().int().positive() });

/** Undefined when there is none. Throws VaultFormatTooNewError, VaultDocumentError. */
export async function readVault(store: ObjectStore): Promise<Versioned<VaultDocument> | undefined> {
  const key = vaultLayout.vault;
  const stored = await store.get(key, { length: DOCUMENT_MAX_BYTES });
  if (stored === undefined) return undefined;
  // A newer format may differ in everything else, so its number is looked at first.
  const { formatVersion } = decodeDocument(formatOnly, key, stored.body);
  if (formatVersion > FORMAT_VERSION) throw new VaultFormatTooNewError(formatVersion);
  return { document: decodeDocument(vaultDocumentSchema, key, stored.body), etag: stored.etag };
}

/** Like readVault, for those to whom a missing vault is an error. Throws VaultMissingError too. */
export async function requireVault(store: ObjectStore): Promise<Versioned<VaultDocument>> {
  const vault = await readVault(store);
  if (vault === undefined) throw new VaultMissingError();
  return vault;
}

/**
 * Makes the vault, or finds it made: by another installation, or by this one in a try whose answer was lost. The vault key and the
 * controller key must be stored durably before. Throws KeyStringError for a recipient that is no public string.
 */
export async function createVault(
  deps: { store: ObjectStore; clock: Clock; random: Random },
  options: {
    installationId: string;
    vaultKey: BoxKey;
    controllerKey: SigningKey;
    recoveryRecipients: readonly string[];
  },
): Promise<{ created: boolean; vault: Versioned<VaultDocument> }> {
  const present = await readVault(deps.store);
  if (present !== undefined) return { created: false, vault: present };
  const document = await newVaultDocument(deps, options);
  const put = await deps.store.putIfAbsent(
    vaultLayout.vault,
    encodeDocument(vaultDocumentSchema, document),
  );
  if (put.outcome === 'created') return { created: true, vault: { document, etag: put.etag } };
  const winner = await requireVault(deps.store);
  return { created: winner.document.vaultId === document.vaultId, vault: winner };
}

/** To whom every secret of a vault is sealed: the vault key and the recovery recipients. */
export function vaultRecipients(
  vault: Pick<VaultDocument, 'vaultKey' | 'recoveryRecipients'>,
): Recipient[] {
  return [
    { kind: 'vault', publicKey: decodePublicKey(vault.vaultKey.publicKey) },
    ...vault.recoveryRecipients.map((text) => decodeRecoveryRecipient(text).recipient),
  ];
}

/** The certificate authority, opened with the vault key or a recovery key. Throws KeyError, AuthorityError. */
export async function openAuthority(
  deps: { clock: Clock; random: Random },
  options: { vault: VaultDocument; key: BoxKey },
): Promise<CertificateAuthority> {
  const { vault, key } = options;
  const privateKey = openSealedKey({
    sealed: vault.ca.key,
    key,
    context: boxContext.authorityKey(vault.vaultId),
  });
  return await CertificateAuthority.open(deps, {
    certificatePem: vault.ca.certificatePem,
    privateKey,
  });
}

/**
 * Adds an installation's signing key to vault.json, endorsed by the key of a controller before it or by a recovery key. Does nothing
 * when it is there. Throws ControllerNotEndorsedError, VaultMissingError.
 */
export async function addControllerKey(
  deps: { store: ObjectStore },
  options: { installationId: string; publicKey: string; endorser: SigningKey },
): Promise<Versioned<VaultDocument>> {
  const { installationId, publicKey, endorser } = options;
  return await updateVault(deps.store, (vault) => {
    if (isEndorsedController(vault, publicKey)) return undefined;
    const recoveryKeys = vault.recoveryRecipients.map(
      (text) => decodeRecoveryRecipient(text).signingPublicKey,
    );
    if (
      !isEndorsedController(vault, endorser.publicKey) &&
      !recoveryKeys.includes(endorser.publicKey)
    )
      throw new ControllerNotEndorsedError({
        endorser: endorser.publicKey,
        vaultId: vault.vaultId,
      });
    const endorsement = endorseController({ endorser, vaultId: vault.vaultId, publicKey });
    return {
      ...vault,
      controllerKeys: [...vault.controllerKeys, { publicKey, installationId, ...endorsement }],
    };
  });
}

/** Whether the vault's first controller, or a successor of it that is endorsed, has this key. */
export function isEndorsedController(vault: VaultDocument, publicKey: string): boolean {
  const first = vault.controllerKeys[0];
  return (
    first !== undefined && trustedControllers({ vault, pinned: first.publicKey }).has(publicKey)
  );
}

/**
 * Throws RecipientsNotEndorsedError unless a controller of the vault signed the list of recovery recipients that stands in it: everything is
 * sealed to them, and everybody with the vault's credential can write vault.json.
 */
export function requireEndorsedRecipients(vault: VaultDocument): void {
  const newest = vault.recipientLists.findLast(
    (list) =>
      isEndorsedController(vault, list.endorsedBy) && recipientListHolds(vault.vaultId, list),
  );
  const named = vault.recoveryRecipients;
  const same =
    newest?.recipients.length === named.length &&
    named.every((recipient, index) => recipient === newest.recipients[index]);
  if (!same) throw new RecipientsNotEndorsedError(vault.vaultId);
}

async function newVaultDocument(
  deps: { clock: Clock; random: Random },
  options: Parameters<typeof createVault>[1],
): Promise<VaultDocument> {
  const { vaultKey, controllerKey } = options;
  const vaultId = Buffer.from(deps.random.bytes(16)).toString('hex');
  const recoveryRecipients = [...options.recoveryRecipients];
  const identity = { id: vaultKey.id, publicKey: encodePublicKey(vaultKey.publicKey) };
  const authority = await createAuthority(deps, { vaultId });
  return {
    formatVersion: FORMAT_VERSION,
    vaultId,
    createdAt: deps.clock.now(),
    vaultKey: identity,
    recoveryRecipients,
    controllerKeys: [
      { publicKey: controllerKey.publicKey, installationId: options.installationId },
    ],
    recipientLists: [
      endorseRecipients({ endorser: controllerKey, vaultId, recipients: recoveryRecipients }),
    ],
    ca: {
      certificatePem: authority.certificatePem,
      key: sealKeyForAll({
        random: deps.random,
        recipients: vaultRecipients({ vaultKey: identity, recoveryRecipients }),
        secret: authority.privateKey,
        context: boxContext.authorityKey(vaultId),
      }),
    },
    recoveryChallenge: createRecoveryChallenge({
      random: deps.random,
      vaultId,
      recoveryRecipients,
    }),
  };
}

/** Compare-and-set of vault.json. Throws VaultMissingError, VaultFormatTooNewError. */
export async function updateVault(
  store: ObjectStore,
  change: (current: VaultDocument) => VaultDocument | undefined,
): Promise<Versioned<VaultDocument>> {
  await requireVault(store);
  const updated = await updateDocument({
    store,
    key: vaultLayout.vault,
    schema: vaultDocumentSchema,
    change,
  });
  if (updated === undefined) throw new VaultMissingError();
  return { document: updated.document, etag: updated.etag };
}
