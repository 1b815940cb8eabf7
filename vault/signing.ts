/** Ed25519: documents that command others are signed, and older ones are refused (design §2). */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign as signBytes,
  verify as verifyBytes,
} from 'node:crypto';
import type { z } from 'zod';
import { FarshoreError } from '../platform/errors.ts';
import type { Random } from '../platform/ports.ts';
import { decodeDocument } from './documents/codec.ts';
import { type Signed, signedSchema } from './documents/signed.ts';
import { decodeKeyString, encodeKeyString, KEY_SEED_SIZE } from './keyStrings.ts';
import { decodePublicKey, KeyError } from './keys.ts';

const ED25519_PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');
const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex');

/** An Ed25519 key pair: a controller's, or the signing half of a recovery key. */
export interface SigningKey {
  /** base64url of 32 bytes. */
  publicKey: string;
  /** 32 bytes. */
  seed: Uint8Array;
}

export function signingKeyFromSeed(seed: Uint8Array): SigningKey {
  if (seed.length !== KEY_SEED_SIZE)
    throw new KeyError(
      'KeyInvalid',
      `A key is made from ${KEY_SEED_SIZE} bytes, not ${seed.length}.`,
    );
  const spki = createPublicKey(privateKeyObject(seed)).export({ type: 'spki', format: 'der' });
  return {
    publicKey: spki.subarray(-32).toString('base64url'),
    seed: new Uint8Array(seed),
  };
}

export function generateSigningKey(random: Random): SigningKey {
  return signingKeyFromSeed(random.bytes(KEY_SEED_SIZE));
}

/** A controller's signing key as its Secret holds it. */
export function encodeSigningKey(key: SigningKey): string {
  return encodeKeyString('controller-key', key.seed);
}

export function decodeSigningKey(text: string): SigningKey {
  return signingKeyFromSeed(decodeKeyString('controller-key', text));
}

/** A base64url signature over the text's UTF-8. */
export function signText(key: SigningKey, text: string): string {
  return signBytes(null, Buffer.from(text), privateKeyObject(key.seed)).toString('base64url');
}

/** False for anything but a good signature, whatever the strings hold. */
export function verifyText(options: {
  publicKey: string;
  signature: string;
  text: string;
}): boolean {
  try {
    const key = createPublicKey({
      key: Buffer.concat([ED25519_SPKI, decodePublicKey(options.publicKey)]),
      format: 'der',
      type: 'spki',
    });
    const signature = Buffer.from(options.signature, 'base64url');
    return signature.length === 64 && verifyBytes(null, Buffer.from(options.text), key, signature);
  } catch {
    return false;
  }
}

// ---------------------------------------------------------------------------------------------------- signed documents

/** Codes: SignatureInvalid, SignerNotTrusted, DocumentStale, DocumentForked. */
export class SignedDocumentError extends FarshoreError {
  constructor(
    code: 'SignatureInvalid' | 'SignerNotTrusted' | 'DocumentStale' | 'DocumentForked',
    message: string,
  ) {
    super(code, message);
  }
}

export function signPayload(key: SigningKey, payload: string): Signed {
  return { payload, signer: key.publicKey, signature: signText(key, payload) };
}

/** The payload, once its signer is trusted and the signature holds. Throws SignedDocumentError. */
export function verifySigned(options: {
  /** What the document is, for the message. */
  key: string;
  signed: Signed;
  trusted: ReadonlySet<string>;
}): string {
  const { key, signed, trusted } = options;
  if (!trusted.has(signed.signer))
    throw new SignedDocumentError(
      'SignerNotTrusted',
      `${key} is signed by ${signed.signer}, which neither is the pinned controller key nor is endorsed by it or by a recovery key. It is ignored; check who can write to the storage account.`,
    );
  if (!verifyText({ publicKey: signed.signer, signature: signed.signature, text: signed.payload }))
    throw new SignedDocumentError(
      'SignatureInvalid',
      `The signature of ${key} does not match its content. It is ignored; the controller writes it anew with its next change.`,
    );
  return signed.payload;
}

/** A signed document's bytes, checked from the outside in: envelope, signer, signature, schema. */
export function openSigned<S extends z.ZodType>(options: {
  key: string;
  bytes: Uint8Array;
  schema: S;
  trusted: ReadonlySet<string>;
}): { document: z.output<S>; signed: Signed } {
  const signed = decodeDocument(signedSchema, options.key, options.bytes);
  const payload = verifySigned({ key: options.key, signed, trusted: options.trusted });
  const document = decodeDocument(options.schema, options.key, new TextEncoder().encode(payload));
  return { document, signed };
}

// ---------------------------------------------------------------------------------------------------- freshness

export interface AcceptedDocument {
  controllerEpoch: number;
  generation: number;
  /** SHA-256 of the payload, hex. */
  sha256: string;
}

/** Refuses signed documents that are older than one accepted before, across restarts. */
export class FreshnessGuard {
  #last: AcceptedDocument | undefined;
  readonly #persist: (accepted: AcceptedDocument) => Promise<void>;

  /** `last`: what `persist` was last called with, before a restart. */
  constructor(options: {
    last: AcceptedDocument | undefined;
    persist: (accepted: AcceptedDocument) => Promise<void>;
  }) {
    this.#last = options.last;
    this.#persist = options.persist;
  }

  get last(): AcceptedDocument | undefined {
    return this.#last;
  }

  /**
   * `same`: it was accepted before. `newer`: it is remembered durably now, and may be acted on. Throws SignedDocumentError:
   * DocumentStale for an older one, DocumentForked for another content under the same generation.
   */
  async accept(document: {
    key: string;
    controllerEpoch: number;
    generation: number;
    payload: string;
  }): Promise<'same' | 'newer'> {
    const { controllerEpoch, generation } = document;
    const sha256 = createHash('sha256').update(document.payload).digest('hex');
    const last = this.#last;
    const order =
      last === undefined
        ? 1
        : controllerEpoch - last.controllerEpoch || generation - last.generation;
    if (order < 0)
      throw new SignedDocumentError(
        'DocumentStale',
        `${document.key} is of controller epoch ${controllerEpoch}, generation ${generation}; ${last?.controllerEpoch}, ${last?.generation} was accepted before. It is ignored: an old controller wrote it, or it was put back from a copy.`,
      );
    if (order === 0 && sha256 === last?.sha256) return 'same';
    if (order === 0)
      throw new SignedDocumentError(
        'DocumentForked',
        `${document.key} has another content than the one accepted before under controller epoch ${controllerEpoch}, generation ${generation}. It is ignored until a higher generation comes: two controllers believe they are the same.`,
      );
    const accepted = { controllerEpoch, generation, sha256 };
    await this.#persist(accepted);
    this.#last = accepted;
    return 'newer';
  }
}

function privateKeyObject(seed: Uint8Array): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([ED25519_PKCS8, seed]),
    format: 'der',
    type: 'pkcs8',
  });
}
