/**
 * Who can open a vault's secrets, changed: another list of recovery recipients, or a new vault key after a takeover. Each function
 * may be stopped anywhere and run again; it finishes what is missing.
 */
import type { ObjectStore, Random } from '../platform/ports.ts';
import { Catalog } from './catalog.ts';
import { endorseRecipients } from './controllerTrust.ts';
import type { Versioned } from './documentStore.ts';
import { VaultDocumentError } from './documents/codec.ts';
import type { SealedKey } from './documents/sealedKey.ts';
import type { VaultDocument } from './documents/vault.ts';
import {
  type BoxKey,
  boxContext,
  encodePublicKey,
  KeyError,
  type Recipient,
  recipientId,
  sealForMissing,
} from './keys.ts';
import { createRecoveryChallenge } from './recoveryCheck.ts';
import { decodeRecoveryRecipient } from './recoveryKey.ts';
import type { SigningKey } from './signing.ts';
import { requireVault, updateVault, vaultRecipients } from './vault.ts';

interface Deps {
  store: ObjectStore;
  random: Random;
}

/**
 * Sets the recovery recipients, and seals everything for exactly them. The challenge becomes a new one, so a recovery key must be
 * checked again. Nothing changes when the list is the same. Throws KeyStringError, KeyError.
 */
export async function setRecoveryRecipients(
  deps: Deps,
  options: { vaultKey: BoxKey; controllerKey: SigningKey; recoveryRecipients: readonly string[] },
): Promise<Versioned<VaultDocument>> {
  const recoveryRecipients = [...options.recoveryRecipients];
  for (const recipient of recoveryRecipients) decodeRecoveryRecipient(recipient);
  const present = await requireVault(deps.store);
  if (sameList(present.document.recoveryRecipients, recoveryRecipients)) return present;
  // The catalog first: once vault.json names the new list, nobody has a reason to come back here.
  await sealCatalog(deps, {
    vault: { ...present.document, recoveryRecipients },
    key: options.vaultKey,
  });
  const vault = await updateVault(deps.store, (current) => {
    if (sameList(current.recoveryRecipients, recoveryRecipients)) return undefined;
    const { vaultId } = current;
    const next = { ...current, recoveryRecipients };
    const list = endorseRecipients({
      endorser: options.controllerKey,
      vaultId,
      recipients: recoveryRecipients,
    });
    return {
      ...next,
      recipientLists: [...current.recipientLists, list],
      ca: resealedAuthority({ random: deps.random, vault: next, key: options.vaultKey }),
      recoveryChallenge: createRecoveryChallenge({
        random: deps.random,
        vaultId,
        recoveryRecipients,
      }),
    };
  });
  // Machines that were added meanwhile.
  await sealCatalog(deps, { vault: vault.document, key: options.vaultKey });
  return vault;
}

/**
 * Makes `newVaultKey` the vault key, by the power of any key that opens the vault (a recovery key, or the old vault key). What a new
 * cluster does that has a recovery key and not the lost cluster's Secret.
 */
export async function replaceVaultKey(
  deps: Deps,
  options: { opener: BoxKey; newVaultKey: BoxKey },
): Promise<Versioned<VaultDocument>> {
  const { opener, newVaultKey } = options;
  const vaultKey = { id: newVaultKey.id, publicKey: encodePublicKey(newVaultKey.publicKey) };
  // The catalog first: once vault.json names the new key, nobody has a reason to come back here.
  const { document } = await requireVault(deps.store);
  await sealCatalog(deps, { vault: { ...document, vaultKey }, key: opener });
  const vault = await updateVault(deps.store, (current) => {
    if (current.vaultKey.id === newVaultKey.id) return undefined;
    const next = { ...current, vaultKey };
    return { ...next, ca: resealedAuthority({ random: deps.random, vault: next, key: opener }) };
  });
  // Machines that were added meanwhile.
  await sealCatalog(deps, { vault: vault.document, key: opener });
  return vault;
}

/**
 * Seals every machine's data key for the vault's present recipients. Boxes of process servers and appliers stay. A machine whose entry
 * can't be read or opened is passed over: it must not keep all others from being recovered, and its own condition tells of it.
 */
export async function sealCatalog(
  deps: Deps,
  options: { vault: VaultDocument; key: BoxKey },
): Promise<void> {
  const { vault, key } = options;
  const recipients = vaultRecipients(vault);
  const catalog = new Catalog(deps);
  for await (const machineId of catalog.machineIds())
    try {
      await catalog.update(machineId, (machine) => {
        const dataKey = reseal({
          random: deps.random,
          sealed: machine.dataKey,
          key,
          recipients,
          context: boxContext.dataKey(vault.vaultId, machineId),
        });
        return dataKey === undefined ? undefined : { ...machine, dataKey };
      });
    } catch (error) {
      if (!(error instanceof VaultDocumentError) && !(error instanceof KeyError)) throw error;
    }
}

function resealedAuthority(options: {
  random: Random;
  vault: VaultDocument;
  key: BoxKey;
}): VaultDocument['ca'] {
  const { vault } = options;
  const sealed = reseal({
    random: options.random,
    sealed: vault.ca.key,
    key: options.key,
    recipients: vaultRecipients(vault),
    context: boxContext.authorityKey(vault.vaultId),
  });
  return sealed === undefined ? vault.ca : { ...vault.ca, key: sealed };
}

/** Undefined when nothing has to change. A vault or recovery key that is a recipient no more loses its box. */
function reseal(options: {
  random: Random;
  sealed: readonly SealedKey[];
  key: BoxKey;
  recipients: readonly Recipient[];
  context: string;
}): SealedKey[] | undefined {
  const wanted = new Set(options.recipients.map(({ publicKey }) => recipientId(publicKey)));
  const complete = sealForMissing(options);
  const kept = complete.filter(
    (box) => (box.kind !== 'vault' && box.kind !== 'recovery') || wanted.has(box.recipient),
  );
  const unchanged = complete === options.sealed && kept.length === complete.length;
  return unchanged ? undefined : [...kept];
}

function sameList(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((item, index) => item === right[index]);
}
