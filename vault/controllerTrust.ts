/**
 * Which controllers' keys count.
 *
 * A verifier pins one controller key. From vault.json, which anybody with the storage key can write, it accepts what a chain of
 * signatures from that pin reaches: lists of recovery recipients signed by a key that counts, and controller keys endorsed by a key
 * that counts or by a recovery key on such a list.
 */
import type { VaultDocument } from './documents/vault.ts';
import { decodeRecoveryRecipient } from './recoveryKey.ts';
import { type SigningKey, signText, verifyText } from './signing.ts';

/** What an endorser of a controller key signs. */
function endorsementText(options: { vaultId: string; publicKey: string }): string {
  return `farshore-controller-v1|${options.vaultId}|${options.publicKey}`;
}

function recipientsText(options: { vaultId: string; recipients: readonly string[] }): string {
  return `farshore-recipients-v1|${options.vaultId}|${options.recipients.join('|')}`;
}

/** By a previous controller's key, or by the signing half of a recovery key. */
export function endorseController(options: {
  endorser: SigningKey;
  vaultId: string;
  publicKey: string;
}): { endorsedBy: string; endorsement: string } {
  return {
    endorsedBy: options.endorser.publicKey,
    endorsement: signText(options.endorser, endorsementText(options)),
  };
}

/** Signs the list of recovery recipients, so that a key put among them by somebody else endorses nobody. */
export function endorseRecipients(options: {
  endorser: SigningKey;
  vaultId: string;
  recipients: readonly string[];
}): VaultDocument['recipientLists'][number] {
  return {
    recipients: [...options.recipients],
    endorsedBy: options.endorser.publicKey,
    endorsement: signText(options.endorser, recipientsText(options)),
  };
}

/** The controllers' public keys that count for somebody who pinned `pinned`: that key and its endorsed successors. */
export function trustedControllers(options: {
  vault: Pick<VaultDocument, 'vaultId' | 'controllerKeys' | 'recipientLists'>;
  pinned: string;
}): ReadonlySet<string> {
  const { vault, pinned } = options;
  const controllers = new Set([pinned]);
  const recoveryKeys = new Set<string>();
  // Lists and keys endorse each other, so go round until nothing is added.
  for (let known = -1; known !== controllers.size + recoveryKeys.size; ) {
    known = controllers.size + recoveryKeys.size;
    for (const list of vault.recipientLists)
      if (controllers.has(list.endorsedBy) && recipientListHolds(vault.vaultId, list))
        for (const recipient of list.recipients) addRecoveryKey(recoveryKeys, recipient);
    for (const key of vault.controllerKeys) {
      const endorser = key.endorsedBy ?? '';
      if (
        (controllers.has(endorser) || recoveryKeys.has(endorser)) &&
        endorsementHolds(vault.vaultId, key)
      )
        controllers.add(key.publicKey);
    }
  }
  return controllers;
}

/** Whether the endorsement that a key carries is what its endorser signed. Who the endorser is, the caller judges. */
export function endorsementHolds(
  vaultId: string,
  key: VaultDocument['controllerKeys'][number],
): boolean {
  if (key.endorsedBy === undefined || key.endorsement === undefined) return false;
  const text = endorsementText({ vaultId, publicKey: key.publicKey });
  return verifyText({ publicKey: key.endorsedBy, signature: key.endorsement, text });
}

/** Whether a list is what its endorser signed. Who the endorser is, the caller judges. */
export function recipientListHolds(
  vaultId: string,
  list: VaultDocument['recipientLists'][number],
): boolean {
  const text = recipientsText({ vaultId, recipients: list.recipients });
  return verifyText({ publicKey: list.endorsedBy, signature: list.endorsement, text });
}

function addRecoveryKey(into: Set<string>, recipient: string): void {
  try {
    into.add(decodeRecoveryRecipient(recipient).signingPublicKey);
  } catch {
    // An unreadable recipient endorses nobody; reading the vault already names it.
  }
}
