/**
 * How an agent that knows a passphrase, and a process server that holds a one-time token, prove it without sending it, and how the
 * answer proves the same back, so that an agent knows whom it trusts.
 *
 *   key of a passphrase   scrypt(passphrase in NFC, nonce; N 2^15, r 8, p 1), 32 bytes
 *   key of a token        HKDF-SHA-256(token, info "farshore-enrolment-token-v1"), 32 bytes
 *   mac                   HMAC-SHA-256(key, label | for each field: u32 length, bytes), hex
 *
 * The label tells request from answer: neither can be sent back as the other.
 */
import { createHmac, hkdfSync, scryptSync, timingSafeEqual } from 'node:crypto';

const SCRYPT = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 << 20 };
/** Bytes of the nonce that a process server gives to an agent. */
export const ENROLMENT_NONCE_SIZE = 32;

/** Takes about 0.1 s of CPU and 32 MiB, on purpose: each guess at a passphrase costs that. `nonce` is hex. */
export function passphraseKey(options: { passphrase: string; nonce: string }): Uint8Array {
  const salt = Buffer.from(options.nonce, 'hex');
  if (salt.length !== ENROLMENT_NONCE_SIZE)
    throw new RangeError(`an enrolment nonce of ${salt.length} bytes`);
  return new Uint8Array(scryptSync(options.passphrase.normalize('NFC'), salt, 32, SCRYPT));
}

export function tokenKey(token: string): Uint8Array {
  const info = 'farshore-enrolment-token-v1';
  return new Uint8Array(hkdfSync('sha256', token, new Uint8Array(0), info, 32));
}

/** What an agent asks with: EnrolRequest.mac, and `proof.mac` of the enrolment document. */
export function agentRequestMac(options: {
  key: Uint8Array;
  csrDer: Uint8Array;
  name: string;
}): string {
  return mac(options.key, 'farshore-agent-request-v1', [options.csrDer, utf8(options.name)]);
}

/** What a process server or applier asks with: `tokenMac` of the enrolment document. */
export function tokenRequestMac(options: {
  key: Uint8Array;
  csrDer: Uint8Array;
  name: string;
  /** As in the document, base64url; empty when there is none. */
  encryptionKey: string;
}): string {
  return mac(options.key, 'farshore-token-request-v1', [
    options.csrDer,
    utf8(options.name),
    utf8(options.encryptionKey),
  ]);
}

/** The answer's `mac`, for agents and for process servers alike. */
export function answerMac(options: {
  key: Uint8Array;
  certificatePem: string;
  caCertificatePem: string;
  /** Agents only. */
  machineId?: string;
}): string {
  return mac(options.key, 'farshore-enrolment-answer-v1', [
    utf8(options.certificatePem),
    utf8(options.caCertificatePem),
    utf8(options.machineId ?? ''),
  ]);
}

/** In time that does not depend on where the two differ. */
export function sameMac(expected: string, given: string): boolean {
  const left = Buffer.from(expected, 'hex');
  const right = Buffer.from(given, 'hex');
  return left.length === 32 && right.length === 32 && timingSafeEqual(left, right);
}

function mac(key: Uint8Array, label: string, fields: readonly Uint8Array[]): string {
  const hmac = createHmac('sha256', key).update(label);
  for (const field of fields) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(field.length);
    hmac.update(length).update(field);
  }
  return hmac.digest('hex');
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
