/**
 * Who this process server is: a TLS key with the certificate that the operator gave for it, and the key to which data keys are
 * sealed. Made once in the cache directory; asked for through `control/enrolments/` (design §2), so that a process server needs
 * nothing but the vault to join.
 */
import { createHash, createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { readFile, removeFile, replaceFile } from '../../platform/durableFile.ts';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import type { Clock, Disk, Logger, ObjectStore, Random } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import { certificateRequestDer, createCertificateRequest } from '../../vault/authority.ts';
import {
  decodeDocument,
  encodeDocument,
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
} from '../../vault/documents.ts';
import { answerMac, sameMac, tokenKey, tokenRequestMac } from '../../vault/enrolmentProof.ts';
import {
  type BoxKey,
  decodeEncryptionKey,
  encodeEncryptionKey,
  encodePublicKey,
  generateBoxKey,
} from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';

const ENCRYPTION_KEY_FILE = 'identity/encryption.key';
const REQUEST_FILE = 'identity/request.json';
const CERTIFICATE_FILE = 'identity/certificate.json';
const FILE_MAX = 256 << 10;
const ANSWER_POLL_MS = 2_000;
const REMIND_MS = 60_000;

const requestFileSchema = z.object({ csrPem: z.string(), privateKeyPem: z.string() });
const certificateFileSchema = z.object({
  privateKeyPem: z.string(),
  certificatePem: z.string(),
  caCertificatePem: z.string(),
});

export interface ServerIdentity {
  encryptionKey: BoxKey;
  /** PEM. */
  privateKeyPem: string;
  certificatePem: string;
  caCertificatePem: string;
}

export interface IdentityDeps {
  store: ObjectStore;
  disk: Disk;
  clock: Clock;
  random: Random;
  logger: Logger;
}

/** The operator does not take this process server in: `refusal` is its code (NameTaken, TokenWrong, …). Code EnrolmentRefused. */
export class EnrolmentRefusedError extends FarshoreError {
  readonly refusal: string;

  constructor(options: { name: string; refusal: string; message: string }) {
    super(
      'EnrolmentRefused',
      `The operator refuses to enrol process server ${options.name} (${options.refusal}): ${options.message}`,
    );
    this.refusal = options.refusal;
  }
}

/**
 * The identity in the cache directory, or a new one: asks and waits for the operator's answer, for as long as it takes. A restart
 * goes on with the same request. Throws EnrolmentRefusedError, FarshoreError EnrolmentAnswerForged, StoreError (not transient).
 */
export async function establishIdentity(
  deps: IdentityDeps,
  options: { name: string; token: string; signal: AbortSignal },
): Promise<ServerIdentity> {
  const encryptionKey = await loadEncryptionKey(deps);
  const present = await loadCertificate(deps.disk);
  if (present !== undefined && certificateCounts(present, deps))
    return { encryptionKey, ...present };
  const request = await loadRequest(deps, options.name);
  const certificate = await enrol(deps, { ...options, ...request, encryptionKey });
  const saved = { privateKeyPem: request.privateKeyPem, ...certificate };
  await replaceFile(deps.disk, CERTIFICATE_FILE, json(saved));
  await removeFile(deps.disk, REQUEST_FILE);
  return { encryptionKey, ...saved };
}

async function loadEncryptionKey(deps: IdentityDeps): Promise<BoxKey> {
  const present = await readFile(deps.disk, ENCRYPTION_KEY_FILE, FILE_MAX);
  if (present !== undefined) return decodeEncryptionKey(new TextDecoder().decode(present).trim());
  const made = generateBoxKey(deps.random);
  const text = `${encodeEncryptionKey(made)}\n`;
  await replaceFile(deps.disk, ENCRYPTION_KEY_FILE, new TextEncoder().encode(text));
  return made;
}

async function loadCertificate(
  disk: Disk,
): Promise<z.infer<typeof certificateFileSchema> | undefined> {
  const bytes = await readFile(disk, CERTIFICATE_FILE, FILE_MAX);
  return bytes === undefined
    ? undefined
    : decodeDocument(certificateFileSchema, CERTIFICATE_FILE, bytes);
}

function certificateCounts(present: { certificatePem: string }, deps: IdentityDeps): boolean {
  const end = new X509Certificate(present.certificatePem).validToDate.getTime();
  if (end > deps.clock.now()) return true;
  deps.logger.warn(
    { code: 'CertificateExpired', expiredMs: end },
    'The certificate of this process server has expired; it asks for a new one',
  );
  return false;
}

async function loadRequest(
  deps: IdentityDeps,
  name: string,
): Promise<z.infer<typeof requestFileSchema>> {
  const bytes = await readFile(deps.disk, REQUEST_FILE, FILE_MAX);
  if (bytes !== undefined) return decodeDocument(requestFileSchema, REQUEST_FILE, bytes);
  const { csrPem, privateKeyPem } = await createCertificateRequest(deps, { commonName: name });
  // Durable before it is sent: a restart must find the key that the certificate will be for.
  await replaceFile(deps.disk, REQUEST_FILE, json({ csrPem, privateKeyPem }));
  return { csrPem, privateKeyPem };
}

interface Enrolment {
  name: string;
  token: string;
  csrPem: string;
  privateKeyPem: string;
  encryptionKey: BoxKey;
  signal: AbortSignal;
}

async function enrol(
  deps: IdentityDeps,
  enrolment: Enrolment,
): Promise<{ certificatePem: string; caCertificatePem: string }> {
  const { csrPem, name } = enrolment;
  const csrDer = certificateRequestDer(csrPem);
  const key = tokenKey(enrolment.token);
  const encryptionKey = encodePublicKey(enrolment.encryptionKey.publicKey);
  const id = createHash('sha256').update(csrDer).digest('hex');
  const request = encodeDocument(enrolmentRequestSchema, {
    kind: 'processserver',
    name,
    requestedAt: deps.clock.now(),
    csrPem,
    tokenMac: tokenRequestMac({ key, csrDer, name, encryptionKey }),
    encryptionKey,
  });
  await patiently(deps, enrolment.signal, () =>
    deps.store.putIfAbsent(vaultLayout.enrolment(id), request),
  );
  deps.logger.info(
    { enrolment: id },
    'Asked the operator for a certificate; waiting for its answer',
  );
  const answer = await awaitAnswer(deps, { id, signal: enrolment.signal });
  if (answer.outcome === 'refused') {
    // The next start asks anew, perhaps with another token.
    await removeFile(deps.disk, REQUEST_FILE);
    throw new EnrolmentRefusedError({ name, refusal: answer.code, message: answer.message });
  }
  if (!sameMac(answerMac({ key, ...withoutMachine(answer) }), answer.mac)) throw forged(id);
  if (!certificateIsFor(answer.certificatePem, enrolment.privateKeyPem)) throw forged(id);
  deps.logger.info({ enrolment: id }, 'Enrolled');
  return { certificatePem: answer.certificatePem, caCertificatePem: answer.caCertificatePem };
}

async function awaitAnswer(
  deps: IdentityDeps,
  options: { id: string; signal: AbortSignal },
): Promise<z.infer<typeof enrolmentAnswerSchema>> {
  const key = vaultLayout.enrolmentAnswer(options.id);
  for (let waited = 0; ; waited += ANSWER_POLL_MS) {
    const stored = await patiently(deps, options.signal, () => deps.store.get(key));
    if (stored !== undefined) return decodeDocument(enrolmentAnswerSchema, key, stored.body);
    if (waited > 0 && waited % REMIND_MS === 0)
      deps.logger.warn(
        { code: 'EnrolmentPending', waitedMs: waited },
        'The operator has not answered the enrolment request yet: is it running, and does its RecoveryVault point at this vault?',
      );
    await deps.clock.sleep(ANSWER_POLL_MS, options.signal);
  }
}

/** Repeats what failed for a transient reason, for as long as it takes; says so when it begins. */
export async function patiently<T>(
  deps: { clock: Clock; logger: Logger },
  signal: AbortSignal,
  action: () => Promise<T>,
): Promise<T> {
  for (let failures = 0; ; failures += 1) {
    try {
      return await action();
    } catch (error) {
      signal.throwIfAborted();
      if (!isStoreError(error) || !error.transient) throw error;
      if (failures === 0)
        deps.logger.warn(
          { code: errorCode(error), error },
          'The vault does not answer; trying again until it does',
        );
      await deps.clock.sleep(Math.min(30_000, 1_000 * 2 ** Math.min(failures, 5)), signal);
    }
  }
}

function certificateIsFor(certificatePem: string, privateKeyPem: string): boolean {
  try {
    const ours = createPublicKey(createPrivateKey(privateKeyPem));
    return new X509Certificate(certificatePem).publicKey.equals(ours);
  } catch {
    return false;
  }
}

function withoutMachine(answer: { certificatePem: string; caCertificatePem: string }) {
  return { certificatePem: answer.certificatePem, caCertificatePem: answer.caCertificatePem };
}

function forged(id: string): FarshoreError {
  return new FarshoreError(
    'EnrolmentAnswerForged',
    `The answer to enrolment ${id} was not made by somebody who knows the bootstrap file's token, or is for another key. Check who can write to the storage account; get a new bootstrap file.`,
  );
}

function json(value: object): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}
