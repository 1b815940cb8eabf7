/**
 * The vault's certificate authority: it says which machine an agent is, and that a process server is one of ours. ECDSA P-256.
 *
 * Its key lies in vault.json, sealed for the vault key and each recovery recipient, so that a takeover enrols nobody again. A
 * certificate counts only for a machine that is also assigned: taking the assignment away is how one is revoked.
 */
import 'reflect-metadata';
import { createECDH, createPrivateKey, type KeyObject, webcrypto } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  type PublicKey,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { errorMessage, FarshoreError } from '../platform/errors.ts';
import type { Clock, Random } from '../platform/ports.ts';
import { machineIdentity, processServerIdentity } from './identity.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 24 * 60 * 60 * 1000;
const AUTHORITY_DAYS = 20 * 365;
const CERTIFICATE_DAYS = 10 * 365;
/** Clocks of machines differ; a certificate must count from the moment it is made. */
const BACKDATED_MS = DAY_MS;
const REQUEST_MAX = 16 << 10;
const HOSTS_MAX = 64;

/** A certificate request, or the authority's own key, that can't be used. Codes: CertificateRequestInvalid, AuthorityInvalid. */
export class AuthorityError extends FarshoreError {
  constructor(
    code: 'CertificateRequestInvalid' | 'AuthorityInvalid',
    message: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** A key pair and its certificate. `privateKeyPem` is PKCS #8. */
export interface IssuedWithKey {
  certificatePem: string;
  privateKeyPem: string;
}

/** Makes an authority for a vault. `privateKey` is PKCS #8 DER, to be sealed. */
export async function createAuthority(
  deps: { clock: Clock; random: Random },
  options: { vaultId: string },
): Promise<{ certificatePem: string; privateKey: Uint8Array }> {
  const key = generateKey(deps.random);
  const pair = await importPair(key);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(deps.random),
    name: `CN=farshore vault ${options.vaultId}`,
    ...validity(deps.clock, AUTHORITY_DAYS),
    signingAlgorithm: ALGORITHM,
    keys: pair,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(pair.publicKey),
    ],
  });
  return {
    certificatePem: certificate.toString('pem'),
    privateKey: new Uint8Array(key.export({ type: 'pkcs8', format: 'der' })),
  };
}

/** An asker's half: a new P-256 key and a request for a certificate over it. The names in the request bind nobody. */
export async function createCertificateRequest(
  deps: { random: Random },
  options: { commonName: string },
): Promise<{ privateKeyPem: string; csrPem: string; csrDer: Uint8Array }> {
  const key = generateKey(deps.random);
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [options.commonName] }],
    keys: await importPair(key),
    signingAlgorithm: ALGORITHM,
  });
  return {
    privateKeyPem: pem(key),
    csrPem: request.toString('pem'),
    csrDer: new Uint8Array(request.rawData),
  };
}

/** The DER inside a PEM request, over which proofs and enrolment ids are computed. Throws AuthorityError. */
export function certificateRequestDer(csrPem: string): Uint8Array {
  return new Uint8Array(parseRequest(csrPem).rawData);
}

/** When a certificate ends, ms since the epoch. */
export function certificateEnd(certificatePem: string): number {
  return new X509Certificate(certificatePem).notAfter.getTime();
}

export class CertificateAuthority {
  readonly certificatePem: string;
  readonly #certificate: X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #clock: Clock;
  readonly #random: Random;

  private constructor(options: {
    certificatePem: string;
    key: webcrypto.CryptoKey;
    deps: { clock: Clock; random: Random };
  }) {
    this.certificatePem = options.certificatePem;
    this.#certificate = new X509Certificate(options.certificatePem);
    this.#key = options.key;
    this.#clock = options.deps.clock;
    this.#random = options.deps.random;
  }

  /** From vault.json's certificate and the opened key. Throws AuthorityError when the two do not belong together. */
  static async open(
    deps: { clock: Clock; random: Random },
    authority: { certificatePem: string; privateKey: Uint8Array },
  ): Promise<CertificateAuthority> {
    const { certificatePem, privateKey } = authority;
    try {
      const key = createPrivateKey({
        key: Buffer.from(privateKey),
        format: 'der',
        type: 'pkcs8',
      });
      const pair = await importPair(key);
      const certificate = new X509Certificate(certificatePem);
      const matches = await certificate.verify({ publicKey: pair.publicKey, signatureOnly: true });
      if (!matches) throw new Error('the certificate is of another key');
      return new CertificateAuthority({ certificatePem, key: pair.privateKey, deps });
    } catch (cause) {
      throw new AuthorityError(
        'AuthorityInvalid',
        `The vault's certificate authority can't be used: ${errorMessage(cause)}. Restore vault.json from the storage account's soft-deleted versions.`,
        { cause },
      );
    }
  }

  /** A client certificate that speaks for one machine. Only the request's key is used, none of its names. Throws AuthorityError. */
  async issueMachine(options: { csrPem: string; machineId: string }): Promise<string> {
    return await this.#issue({
      publicKey: await provenKey(options.csrPem),
      commonName: options.machineId,
      identity: machineIdentity(options.machineId),
      hosts: [],
      usage: ExtendedKeyUsage.clientAuth,
    });
  }

  /** A server certificate for a process server that asked. `hosts`: DNS names and IP addresses that agents reach it by. */
  async issueProcessServer(options: {
    csrPem: string;
    name: string;
    hosts: readonly string[];
  }): Promise<string> {
    return await this.#issueServer({ ...options, publicKey: await provenKey(options.csrPem) });
  }

  /** Likewise with a key made here, for a Secret of the controlling cluster. */
  async issueProcessServerWithKey(options: {
    name: string;
    hosts: readonly string[];
  }): Promise<IssuedWithKey> {
    const key = generateKey(this.#random);
    const { publicKey } = await importPair(key);
    return {
      certificatePem: await this.#issueServer({ ...options, publicKey }),
      privateKeyPem: pem(key),
    };
  }

  async #issueServer(options: {
    publicKey: webcrypto.CryptoKey | PublicKey;
    name: string;
    hosts: readonly string[];
  }): Promise<string> {
    return await this.#issue({
      publicKey: options.publicKey,
      commonName: options.name,
      identity: processServerIdentity(options.name),
      hosts: options.hosts,
      usage: ExtendedKeyUsage.serverAuth,
    });
  }

  async #issue(options: {
    publicKey: webcrypto.CryptoKey | PublicKey;
    commonName: string;
    identity: string;
    hosts: readonly string[];
    usage: ExtendedKeyUsage;
  }): Promise<string> {
    if (options.hosts.length > HOSTS_MAX)
      throw new RangeError(`${options.hosts.length} names for one certificate`);
    const extensions: Extension[] = [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([options.usage]),
      new SubjectAlternativeNameExtension([
        { type: 'url', value: options.identity },
        ...options.hosts.map((host) =>
          isAddress(host)
            ? { type: 'ip' as const, value: host }
            : { type: 'dns' as const, value: host },
        ),
      ]),
      await SubjectKeyIdentifierExtension.create(options.publicKey),
      await AuthorityKeyIdentifierExtension.create(this.#certificate.publicKey),
    ];
    const certificate = await X509CertificateGenerator.create({
      serialNumber: serialNumber(this.#random),
      subject: [{ CN: [options.commonName] }],
      issuer: this.#certificate.subjectName,
      ...validity(this.#clock, CERTIFICATE_DAYS, this.#certificate.notAfter),
      publicKey: options.publicKey,
      signingKey: this.#key,
      signingAlgorithm: ALGORITHM,
      extensions,
    });
    return certificate.toString('pem');
  }
}

/** The request's key, once its signature shows that the asker holds the private half. */
async function provenKey(csrPem: string): Promise<PublicKey> {
  const request = parseRequest(csrPem);
  const algorithm = request.publicKey.algorithm as { name: string; namedCurve?: string };
  if (algorithm.name !== 'ECDSA' || algorithm.namedCurve !== 'P-256')
    throw requestInvalid(`its key is ${algorithm.name}, not ECDSA P-256`);
  const proven = await request.verify().catch(() => false);
  if (!proven) throw requestInvalid('its signature does not match its key');
  return request.publicKey;
}

function parseRequest(csrPem: string): Pkcs10CertificateRequest {
  if (csrPem.length > REQUEST_MAX) throw requestInvalid(`it is ${csrPem.length} characters long`);
  if (!csrPem.startsWith('-----BEGIN CERTIFICATE REQUEST-----'))
    throw requestInvalid('it is not a PEM certificate request');
  try {
    const request = new Pkcs10CertificateRequest(csrPem);
    // Read only when it is asked for, and it may be none either.
    if (request.publicKey.algorithm === undefined) throw new Error('its key is none');
    return request;
  } catch (cause) {
    throw requestInvalid('it can not be read', { cause });
  }
}

function requestInvalid(problem: string, options?: ErrorOptions): AuthorityError {
  return new AuthorityError(
    'CertificateRequestInvalid',
    `A certificate request is refused: ${problem}. Enrol again.`,
    options,
  );
}

/** A P-256 key whose scalar comes from the Random port. */
function generateKey(random: Random): KeyObject {
  for (;;) {
    const scalar = Buffer.from(random.bytes(32));
    const ecdh = createECDH('prime256v1');
    try {
      ecdh.setPrivateKey(scalar);
    } catch {
      // Not below the group's order: one try in 2^32.
      continue;
    }
    const point = ecdh.getPublicKey();
    return createPrivateKey({
      format: 'jwk',
      key: {
        kty: 'EC',
        crv: 'P-256',
        d: scalar.toString('base64url'),
        x: point.subarray(1, 33).toString('base64url'),
        y: point.subarray(33).toString('base64url'),
      },
    });
  }
}

async function importPair(key: KeyObject): Promise<webcrypto.CryptoKeyPair> {
  const jwk = key.export({ format: 'jwk' });
  const { d: _private, ...publicJwk } = jwk;
  const [privateKey, publicKey] = await Promise.all([
    webcrypto.subtle.importKey('jwk', jwk, ALGORITHM, false, ['sign']),
    webcrypto.subtle.importKey('jwk', publicJwk, ALGORITHM, true, ['verify']),
  ]);
  return { privateKey, publicKey };
}

function pem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function serialNumber(random: Random): string {
  const bytes = Buffer.from(random.bytes(16));
  // Positive, and no leading zero byte to be stripped.
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

/** Whole seconds: that is what a certificate holds. Never past the authority's own end. */
function validity(clock: Clock, days: number, notPast?: Date): { notBefore: Date; notAfter: Date } {
  const now = Math.floor(clock.now() / 1000) * 1000;
  const end = Math.min(now + days * DAY_MS, notPast?.getTime() ?? Number.POSITIVE_INFINITY);
  return { notBefore: new Date(now - BACKDATED_MS), notAfter: new Date(end) };
}

function isAddress(host: string): boolean {
  return /^\d{1,3}(\.\d{1,3}){3}$/.test(host) || host.includes(':');
}
