/**
 * Proof that a recovery key opens a vault, before the day it is needed. The controller seals one random secret for every recovery
 * recipient (in vault.json); `farshore recover --check` opens it and writes it down, signed by the key's other half. Who writes that
 * must hold the private key: what is in the vault already is not enough.
 */
import { createHash } from 'node:crypto';
import { FarshoreError } from '../platform/errors.ts';
import type { Clock, ObjectStore, Random } from '../platform/ports.ts';
import { readDocument } from './documentStore.ts';
import { encodeDocument } from './documents/codec.ts';
import { type RecoveryCheck, recoveryCheckSchema } from './documents/recoveryCheck.ts';
import type { VaultDocument } from './documents/vault.ts';
import { boxContext, openSealedKey, sealKeyForAll } from './keys.ts';
import { vaultLayout } from './layout.ts';
import { decodeRecoveryRecipient, type RecoveryKey } from './recoveryKey.ts';
import { signText, verifyText } from './signing.ts';

const CHALLENGE_SIZE = 32;

/** The key is of none of the vault's recipients. Code RecoveryKeyUnknown. */
export class RecoveryKeyUnknownError extends FarshoreError {
  constructor(options: { keyId: string; recipientIds: readonly string[]; vaultId: string }) {
    super(
      'RecoveryKeyUnknown',
      `Recovery key ${options.keyId} opens nothing in vault ${options.vaultId}: its recovery recipients are ${options.recipientIds.join(', ')}. Use the private key of one of those, or add this key's public string to RecoveryVault.spec.recoveryRecipients.`,
    );
  }
}

/** A fresh challenge for these public strings. Throws KeyStringError for one that is none. */
export function createRecoveryChallenge(options: {
  random: Random;
  vaultId: string;
  recoveryRecipients: readonly string[];
}): VaultDocument['recoveryChallenge'] {
  const secret = options.random.bytes(CHALLENGE_SIZE);
  return {
    sha256: sha256(secret),
    sealed: sealKeyForAll({
      random: options.random,
      recipients: options.recoveryRecipients.map((text) => decodeRecoveryRecipient(text).recipient),
      secret,
      context: boxContext.recoveryChallenge(options.vaultId),
    }),
  };
}

/** Throws RecoveryKeyUnknownError, or KeyError when the challenge was altered. */
export function answerRecoveryChallenge(options: {
  vault: VaultDocument;
  key: RecoveryKey;
  clock: Clock;
}): RecoveryCheck {
  const { vault, key } = options;
  const recipientIds = vault.recoveryChallenge.sealed.map((one) => one.recipient);
  if (!recipientIds.includes(key.box.id))
    throw new RecoveryKeyUnknownError({ keyId: key.box.id, recipientIds, vaultId: vault.vaultId });
  const secret = openSealedKey({
    sealed: vault.recoveryChallenge.sealed,
    key: key.box,
    context: boxContext.recoveryChallenge(vault.vaultId),
  });
  const check = {
    recipient: key.box.id,
    answer: Buffer.from(secret).toString('base64url'),
    checkedAt: options.clock.now(),
  };
  return { ...check, signature: signText(key.signing, checkText(vault.vaultId, check)) };
}

export type RecoveryVerdict =
  | { verified: true; recipient: string; checkedAt: number }
  /** `NeverChecked`: no answer yet. `ChallengeChanged`: an answer to an earlier challenge. `AnswerInvalid`: not by a recovery key. */
  | {
      verified: false;
      reason: 'NeverChecked' | 'ChallengeChanged' | 'AnswerInvalid';
      message: string;
    };

/** What the RecoveryKeyVerified condition shows. */
export function verifyRecoveryCheck(
  vault: VaultDocument,
  check: RecoveryCheck | undefined,
): RecoveryVerdict {
  if (check === undefined)
    return {
      verified: false,
      reason: 'NeverChecked',
      message:
        'No recovery key was ever tried on this vault. Run `farshore recover --check` with one, where it is kept.',
    };
  const recipient = vault.recoveryRecipients
    .map(recipientOrNothing)
    .find((known) => known?.id === check.recipient);
  const signed =
    recipient !== undefined &&
    verifyText({
      publicKey: recipient.signingPublicKey,
      signature: check.signature,
      text: checkText(vault.vaultId, check),
    });
  if (!signed)
    return {
      verified: false,
      reason: 'AnswerInvalid',
      message: `The last check names recipient ${check.recipient}, and is not signed by a recovery key of this vault. Run \`farshore recover --check\` again.`,
    };
  if (sha256(Buffer.from(check.answer, 'base64url')) !== vault.recoveryChallenge.sha256)
    return {
      verified: false,
      reason: 'ChallengeChanged',
      message: `The recovery recipients changed since the check of ${new Date(check.checkedAt).toISOString()}. Run \`farshore recover --check\` again.`,
    };
  return { verified: true, recipient: check.recipient, checkedAt: check.checkedAt };
}

export async function readRecoveryCheck(store: ObjectStore): Promise<RecoveryCheck | undefined> {
  const found = await readDocument({
    store,
    key: vaultLayout.recoveryCheck,
    schema: recoveryCheckSchema,
  });
  return found?.document;
}

/** Replaces an earlier answer: whichever is written last is as good. */
export async function writeRecoveryCheck(store: ObjectStore, check: RecoveryCheck): Promise<void> {
  await store.put(vaultLayout.recoveryCheck, encodeDocument(recoveryCheckSchema, check));
}

function recipientOrNothing(publicString: string) {
  try {
    return decodeRecoveryRecipient(publicString);
  } catch {
    return undefined;
  }
}

function checkText(vaultId: string, check: Omit<RecoveryCheck, 'signature'>): string {
  return `farshore-recovery-check-v1|${vaultId}|${check.recipient}|${check.answer}|${check.checkedAt}`;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
