/**
 * Recovery keys: made offline by `farshore keygen`, kept away from the site. From one seed of 32 bytes come, by HKDF, an X25519 key
 * that opens everything in a vault and an Ed25519 key that endorses a new controller. The public string holds both public halves.
 */
import { hkdfSync } from 'node:crypto';
import type { Random } from '../platform/ports.ts';
import { decodeKeyString, encodeKeyString, KEY_SEED_SIZE } from './keyStrings.ts';
import {
  type BoxKey,
  boxKeyFromSeed,
  encodePublicKey,
  type Recipient,
  recipientId,
} from './keys.ts';
import { type SigningKey, signingKeyFromSeed } from './signing.ts';

export interface RecoveryKey {
  /** Opens secrets sealed for this recipient. */
  box: BoxKey;
  signing: SigningKey;
  /** `farshore-recovery-public-…`: goes into RecoveryVault.spec.recoveryRecipients. */
  publicString: string;
  /** `farshore-recovery-private-…`: the secret. */
  privateString: string;
}

/** What a public string says. */
export interface RecoveryRecipient {
  /** SHA-256 of the X25519 public key, first 16 bytes, hex. */
  id: string;
  recipient: Recipient;
  /** Ed25519, base64url. */
  signingPublicKey: string;
}

export function generateRecoveryKey(random: Random): RecoveryKey {
  return fromSeed(random.bytes(KEY_SEED_SIZE));
}

/** Throws KeyStringError. */
export function decodeRecoveryKey(privateString: string): RecoveryKey {
  return fromSeed(decodeKeyString('recovery-private', privateString));
}

/** Throws KeyStringError. */
export function decodeRecoveryRecipient(publicString: string): RecoveryRecipient {
  const bytes = decodeKeyString('recovery-public', publicString);
  const publicKey = bytes.slice(0, 32);
  return {
    id: recipientId(publicKey),
    recipient: { kind: 'recovery', publicKey },
    signingPublicKey: encodePublicKey(bytes.subarray(32)),
  };
}

function fromSeed(seed: Uint8Array): RecoveryKey {
  const box = boxKeyFromSeed(derive(seed, 'farshore-recovery-x25519-v1'));
  const signing = signingKeyFromSeed(derive(seed, 'farshore-recovery-ed25519-v1'));
  const publicBytes = Buffer.concat([box.publicKey, Buffer.from(signing.publicKey, 'base64url')]);
  return {
    box,
    signing,
    publicString: encodeKeyString('recovery-public', publicBytes),
    privateString: encodeKeyString('recovery-private', seed),
  };
}

function derive(seed: Uint8Array, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', seed, new Uint8Array(0), purpose, KEY_SEED_SIZE));
}
