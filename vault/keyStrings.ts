/**
 * Keys as text: `farshore-<kind>-` and base32 (a–z, 2–7, no padding) of
 *
 *   version (1) = 1 | key bytes | checksum (4): SHA-256 of "farshore-<kind>-" | version | key bytes, first four bytes
 *
 * One case, no look-alike digits, and a checksum: what somebody copies from paper at 3 a.m. is refused when a letter is wrong.
 */
import { createHash } from 'node:crypto';
import { FarshoreError } from '../platform/errors.ts';

export const KEY_SEED_SIZE = 32;
const VERSION = 1;
const CHECKSUM_SIZE = 4;
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

/** How many key bytes each kind carries. */
const KINDS = {
  'recovery-public': 64,
  'recovery-private': KEY_SEED_SIZE,
  'vault-key': KEY_SEED_SIZE,
  'controller-key': KEY_SEED_SIZE,
  'encryption-key': KEY_SEED_SIZE,
} as const;
export type KeyStringKind = keyof typeof KINDS;

const DESCRIPTIONS: Record<KeyStringKind, string> = {
  'recovery-public': 'a recovery key’s public string (farshore-recovery-public-…)',
  'recovery-private': 'a private recovery key (farshore-recovery-private-…)',
  'vault-key': 'a vault key (farshore-vault-key-…)',
  'controller-key': 'a controller’s signing key (farshore-controller-key-…)',
  'encryption-key': 'an encryption key (farshore-encryption-key-…)',
};

/** Text that is not the key it should be. The message never repeats the text: it may be a secret. */
export class KeyStringError extends FarshoreError {
  constructor(kind: KeyStringKind, problem: string) {
    super('KeyStringInvalid', `This is not ${DESCRIPTIONS[kind]}: ${problem}.`);
  }
}

export function encodeKeyString(kind: KeyStringKind, bytes: Uint8Array): string {
  if (bytes.length !== KINDS[kind]) throw new RangeError(`${kind} of ${bytes.length} bytes`);
  const body = Buffer.concat([Uint8Array.of(VERSION), bytes]);
  return `farshore-${kind}-${toBase32(Buffer.concat([body, checksum(kind, body)]))}`;
}

/** The key bytes. Surrounding whitespace and upper case are forgiven. Throws KeyStringError. */
export function decodeKeyString(kind: KeyStringKind, text: string): Uint8Array {
  const normal = text.trim().toLowerCase();
  const prefix = `farshore-${kind}-`;
  if (!normal.startsWith(prefix)) throw new KeyStringError(kind, otherKind(normal));
  const digits = normal.slice(prefix.length);
  const size = 1 + KINDS[kind] + CHECKSUM_SIZE;
  if (digits.length !== Math.ceil((size * 8) / 5))
    throw new KeyStringError(kind, `it has ${digits.length} characters after ${prefix}`);
  const bytes = fromBase32(digits);
  if (bytes === undefined) throw new KeyStringError(kind, 'it has a character that none has');
  const body = bytes.subarray(0, size - CHECKSUM_SIZE);
  if (!checksum(kind, body).equals(bytes.subarray(size - CHECKSUM_SIZE)))
    throw new KeyStringError(kind, 'its checksum is wrong; a character was mistyped or lost');
  if (body[0] !== VERSION)
    throw new KeyStringError(kind, `it is of version ${body[0]}, this build knows ${VERSION}`);
  return new Uint8Array(body.subarray(1));
}

function otherKind(text: string): string {
  const other = (Object.keys(KINDS) as KeyStringKind[]).find((kind) =>
    text.startsWith(`farshore-${kind}-`),
  );
  if (other === undefined) return 'it does not begin like one';
  if (other === 'recovery-private')
    return 'it is the PRIVATE recovery key; treat it as leaked if others saw it, and use the public string';
  return `it is ${DESCRIPTIONS[other]}`;
}

function checksum(kind: KeyStringKind, body: Uint8Array): Buffer {
  const hash = createHash('sha256').update(`farshore-${kind}-`).update(body).digest();
  return hash.subarray(0, CHECKSUM_SIZE);
}

function toBase32(bytes: Uint8Array): string {
  let out = '';
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) out += ALPHABET[(held >>> (bits - 5)) & 31];
    held &= (1 << bits) - 1;
  }
  if (bits > 0) out += ALPHABET[(held << (5 - bits)) & 31];
  return out;
}

/** Undefined for characters outside the alphabet and for stray bits at the end. */
function fromBase32(text: string): Buffer | undefined {
  const out: number[] = [];
  let bits = 0;
  let held = 0;
  for (const character of text) {
    const digit = ALPHABET.indexOf(character);
    if (digit === -1) return undefined;
    held = (held << 5) | digit;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      out.push(held >>> bits);
      held &= (1 << bits) - 1;
    }
  }
  return held === 0 ? Buffer.from(out) : undefined;
}

/** What a key's file says besides comments (lines that begin with #) and blanks; a Secret made from the file holds all of it. */
export function withoutComments(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}
