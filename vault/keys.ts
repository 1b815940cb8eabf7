/**
 * Keys of a vault, and secrets sealed to them.
 *
 * A sealed box: an ephemeral X25519 key agrees with the recipient's; HKDF-SHA-256 over the shared secret, salted with both public
 * keys, with the context in its info, gives a key and a nonce used once; AES-256-GCM seals. A box opened under another context
 * (another vault, machine or purpose) fails.
 *
 *   box = ephemeral public key (32) | ciphertext | tag (16)
 *
 * Keys at rest are strings that a person can read aloud: `farshore-<kind>-<base32 of version (1) | bytes | checksum (4)>`.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';
import { FarshoreError } from '../platform/errors.ts';
import type { Random } from '../platform/ports.ts';
import type { SealedKey } from './documents/sealedKey.ts';
import { decodeKeyString, encodeKeyString, KEY_SEED_SIZE } from './keyStrings.ts';

const PUBLIC_KEY_SIZE = 32;
const TAG_SIZE = 16;
const NONCE_SIZE = 12;
/** Nothing that is sealed is larger (the largest is a CA key). */
const SECRET_MAX = 64 << 10;
const DATA_KEY_SIZE = 32;

/** DER in front of the 32 raw bytes (RFC 8410). */
const X25519_PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex');
const X25519_SPKI = Buffer.from('302a300506032b656e032100', 'hex');

/** An X25519 key pair: opens what was sealed to its public half. */
export interface BoxKey {
  /** SHA-256 of the public key, first 16 bytes, hex. */
  id: string;
  /** 32 bytes. */
  publicKey: Uint8Array;
  /** 32 bytes. */
  privateKey: Uint8Array;
}

/** To whom a secret is sealed. */
export interface Recipient {
  kind: SealedKey['kind'];
  /** X25519, 32 bytes. */
  publicKey: Uint8Array;
}

/** What boxes are for; part of each box's authenticated context. */
export const boxContext = {
  dataKey: (vaultId: string, machineId: string) => `data-key|${vaultId}|${machineId}`,
  authorityKey: (vaultId: string) => `authority-key|${vaultId}`,
  recoveryChallenge: (vaultId: string) => `recovery-challenge|${vaultId}`,
} as const;

/** A box that does not open, or a key that is none. Codes: SealedKeyInvalid, SealedForOthers, KeyInvalid. */
export class KeyError extends FarshoreError {
  constructor(
    code: 'SealedKeyInvalid' | 'SealedForOthers' | 'KeyInvalid',
    message: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** The key pair whose private half is these 32 bytes. */
export function boxKeyFromSeed(seed: Uint8Array): BoxKey {
  if (seed.length !== KEY_SEED_SIZE)
    throw new KeyError(
      'KeyInvalid',
      `A key is made from ${KEY_SEED_SIZE} bytes, not ${seed.length}.`,
    );
  const spki = createPublicKey(privateKeyObject(seed)).export({ type: 'spki', format: 'der' });
  const publicKey = new Uint8Array(spki.subarray(-PUBLIC_KEY_SIZE));
  return { id: recipientId(publicKey), publicKey, privateKey: new Uint8Array(seed) };
}

export function generateBoxKey(random: Random): BoxKey {
  return boxKeyFromSeed(random.bytes(KEY_SEED_SIZE));
}

/** The vault key as its Secret holds it. */
export function encodeVaultKey(key: BoxKey): string {
  return encodeKeyString('vault-key', key.privateKey);
}

export function decodeVaultKey(text: string): BoxKey {
  return boxKeyFromSeed(decodeKeyString('vault-key', text));
}

/** A process server's or applier's own key, as it lies on its disk. */
export function encodeEncryptionKey(key: BoxKey): string {
  return encodeKeyString('encryption-key', key.privateKey);
}

export function decodeEncryptionKey(text: string): BoxKey {
  return boxKeyFromSeed(decodeKeyString('encryption-key', text));
}

export function recipientId(publicKey: Uint8Array): string {
  return createHash('sha256').update(publicKey).digest('hex').slice(0, 32);
}

/** X25519 and Ed25519 public keys as the documents carry them: 32 bytes, base64url. Throws KeyError (KeyInvalid). */
export function decodePublicKey(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.length !== PUBLIC_KEY_SIZE || bytes.toString('base64url') !== text)
    throw new KeyError(
      'KeyInvalid',
      `${JSON.stringify(text)} is not a public key (32 bytes, base64url).`,
    );
  return new Uint8Array(bytes);
}

export function encodePublicKey(publicKey: Uint8Array): string {
  return Buffer.from(publicKey).toString('base64url');
}

/** Seals `secret` to one recipient. */
export function sealKey(options: {
  random: Random;
  recipient: Recipient;
  secret: Uint8Array;
  context: string;
}): SealedKey {
  const { recipient, secret, context } = options;
  if (secret.length > SECRET_MAX) throw new RangeError(`a secret of ${secret.length} bytes`);
  const ephemeral = generateBoxKey(options.random);
  const { key, nonce } = agree({
    privateKey: ephemeral.privateKey,
    peer: recipient.publicKey,
    ephemeral: ephemeral.publicKey,
    recipient: recipient.publicKey,
    context,
  });
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  const ciphertext = Buffer.concat([cipher.update(secret), cipher.final()]);
  const box = Buffer.concat([ephemeral.publicKey, ciphertext, cipher.getAuthTag()]);
  return {
    recipient: recipientId(recipient.publicKey),
    kind: recipient.kind,
    box: box.toString('base64url'),
  };
}

/** Seals `secret` to each recipient; a recipient named twice gets one box. */
export function sealKeyForAll(options: {
  random: Random;
  recipients: readonly Recipient[];
  secret: Uint8Array;
  context: string;
}): SealedKey[] {
  const distinct = new Map(
    options.recipients.map((recipient) => [recipientId(recipient.publicKey), recipient]),
  );
  return [...distinct.values()].map((recipient) => sealKey({ ...options, recipient }));
}

/**
 * Opens the box that is sealed to `key`. Throws KeyError: SealedForOthers when there is none, SealedKeyInvalid when it was altered
 * or belongs to another context.
 */
export function openSealedKey(options: {
  sealed: readonly SealedKey[];
  key: BoxKey;
  context: string;
}): Uint8Array {
  const { sealed, key, context } = options;
  const mine = sealed.find((candidate) => candidate.recipient === key.id);
  if (mine === undefined) {
    const others = sealed.map((one) => `${one.kind} ${one.recipient}`).join(', ') || 'nobody';
    throw new KeyError(
      'SealedForOthers',
      `Key ${key.id} can't open this secret (${context}): it is sealed for ${others}. Use one of those keys.`,
    );
  }
  const box = Buffer.from(mine.box, 'base64url');
  if (box.length < PUBLIC_KEY_SIZE + TAG_SIZE || box.length > SECRET_MAX + 48)
    throw sealedKeyInvalid(context);
  const ephemeral = new Uint8Array(box.subarray(0, PUBLIC_KEY_SIZE));
  try {
    const secrets = agree({
      privateKey: key.privateKey,
      peer: ephemeral,
      ephemeral,
      recipient: key.publicKey,
      context,
    });
    const decipher = createDecipheriv('aes-256-gcm', secrets.key, secrets.nonce);
    decipher.setAuthTag(box.subarray(-TAG_SIZE));
    const ciphertext = box.subarray(PUBLIC_KEY_SIZE, -TAG_SIZE);
    return new Uint8Array(Buffer.concat([decipher.update(ciphertext), decipher.final()]));
  } catch (cause) {
    throw sealedKeyInvalid(context, { cause });
  }
}

/** A new data key for a machine, and its boxes. */
export function createDataKey(options: {
  random: Random;
  vaultId: string;
  machineId: string;
  recipients: readonly Recipient[];
}): { dataKey: Uint8Array; sealed: SealedKey[] } {
  const dataKey = options.random.bytes(DATA_KEY_SIZE);
  const context = boxContext.dataKey(options.vaultId, options.machineId);
  return { dataKey, sealed: sealKeyForAll({ ...options, secret: dataKey, context }) };
}

/** A machine's data key, 32 bytes. Throws KeyError. */
export function openDataKey(options: {
  sealed: readonly SealedKey[];
  key: BoxKey;
  vaultId: string;
  machineId: string;
}): Uint8Array {
  const context = boxContext.dataKey(options.vaultId, options.machineId);
  const dataKey = openSealedKey({ sealed: options.sealed, key: options.key, context });
  if (dataKey.length !== DATA_KEY_SIZE) throw sealedKeyInvalid(context);
  return dataKey;
}

/**
 * The boxes with one more for each recipient that has none yet, opened with `key`; the same array when nobody is missing. How a
 * data key reaches a process server that is assigned later, or a new vault key after a takeover.
 */
export function sealForMissing(options: {
  random: Random;
  sealed: readonly SealedKey[];
  key: BoxKey;
  recipients: readonly Recipient[];
  context: string;
}): readonly SealedKey[] {
  const present = new Set(options.sealed.map((one) => one.recipient));
  const missing = options.recipients.filter(
    (recipient) => !present.has(recipientId(recipient.publicKey)),
  );
  if (missing.length === 0) return options.sealed;
  const secret = openSealedKey(options);
  return [...options.sealed, ...sealKeyForAll({ ...options, recipients: missing, secret })];
}

function agree(options: {
  privateKey: Uint8Array;
  peer: Uint8Array;
  ephemeral: Uint8Array;
  recipient: Uint8Array;
  context: string;
}): { key: Uint8Array; nonce: Uint8Array } {
  // OpenSSL refuses a peer key that would make the shared secret all zero.
  const shared = diffieHellman({
    privateKey: privateKeyObject(options.privateKey),
    publicKey: publicKeyObject(options.peer),
  });
  const salt = Buffer.concat([options.ephemeral, options.recipient]);
  const info = Buffer.from(`farshore-box-v1|${options.context}`);
  const out = new Uint8Array(hkdfSync('sha256', shared, salt, info, 32 + NONCE_SIZE));
  return { key: out.subarray(0, 32), nonce: out.subarray(32) };
}

function privateKeyObject(raw: Uint8Array): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([X25519_PKCS8, raw]),
    format: 'der',
    type: 'pkcs8',
  });
}

function publicKeyObject(raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([X25519_SPKI, raw]), format: 'der', type: 'spki' });
}

function sealedKeyInvalid(context: string, options?: ErrorOptions): KeyError {
  return new KeyError(
    'SealedKeyInvalid',
    `A sealed key (${context}) does not open: it was altered, or it was sealed for another vault, machine or purpose. Restore the document that holds it.`,
    options,
  );
}
