/**
 * The applier's key: what the operator seals machines' data keys to. Made once in the state directory, and told to the operator through
 * `control/enrolments/` with the bootstrap file's one-time token (design §2). Nobody connects to an applier, so it gets no certificate.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { replaceFile } from '../../platform/durableFile.ts';
import { errorCode, FarshoreError } from '../../platform/errors.ts';
import type { Clock, Disk, Logger, ObjectStore, Random } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import { certificateRequestDer, createCertificateRequest } from '../../vault/authority.ts';
import {
  decodeDocument,
  type EnrolmentAnswer,
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

const KEY_FILE = 'encryption.key';
/** The request that is under way: a restart waits for its answer instead of asking anew. */
const REQUEST_FILE = 'enrolment.json';
/** Says for which vault and name the key has been taken in. */
const ENROLLED_FILE = 'enrolled.json';
const FILE_MAX = 64 << 10;
const POLL_MS = 2_000;
const REMIND_MS = 60_000;

const requestFileSchema = z.object({ csrPem: z.string() });
const enrolledFileSchema = z.object({ vaultId: z.string(), name: z.string(), key: z.string() });

export interface IdentityDeps {
  objects: ObjectStore;
  disk: Disk;
  clock: Clock;
  random: Random;
  logger: Logger;
}

export interface IdentityOptions {
  name: string;
  vaultId: string;
  /** The bootstrap file's one-time token. */
  token: string;
  signal: AbortSignal;
}

/** The operator does not take this applier in: `refusal` is its code (TokenWrong, TokenSpent, …). */
export class EnrolmentRefused extends FarshoreError {
  readonly refusal: string;

  constructor(options: { name: string; refusal: string; message: string }) {
    super(
      'EnrolmentRefused',
      `The operator refuses to enrol applier ${options.name} (${options.refusal}): ${options.message}`,
    );
    this.refusal = options.refusal;
  }
}

/**
 * The key in the state directory, enrolled: asks when it was not yet, and waits for the answer for as long as it takes.
 * Throws EnrolmentRefused, FarshoreError EnrolmentAnswerForged, StoreError (not transient), the signal's reason.
 */
export async function establishIdentity(
  deps: IdentityDeps,
  options: IdentityOptions,
): Promise<BoxKey> {
  const key = await loadKey(deps);
  const enrolled = { vaultId: options.vaultId, name: options.name, key: key.id };
  const known = await readJson(deps.disk, ENROLLED_FILE, enrolledFileSchema);
  if (known !== undefined && JSON.stringify(known) === JSON.stringify(enrolled)) return key;
  await enrol(deps, options, key);
  await replaceFile(deps.disk, ENROLLED_FILE, new TextEncoder().encode(JSON.stringify(enrolled)));
  await deps.disk.remove(REQUEST_FILE);
  return key;
}

async function loadKey(deps: IdentityDeps): Promise<BoxKey> {
  const text = await readText(deps.disk, KEY_FILE);
  if (text !== undefined) return decodeEncryptionKey(text.trim());
  const key = generateBoxKey(deps.random);
  // Durable before it is told to anybody: what is sealed to it can be opened by nothing else.
  await replaceFile(deps.disk, KEY_FILE, new TextEncoder().encode(`${encodeEncryptionKey(key)}\n`));
  return key;
}

async function enrol(deps: IdentityDeps, options: IdentityOptions, key: BoxKey): Promise<void> {
  const { name, signal } = options;
  const csrPem = await loadRequest(deps, name);
  const csrDer = certificateRequestDer(csrPem);
  const id = createHash('sha256').update(csrDer).digest('hex');
  const proofKey = tokenKey(options.token);
  const encryptionKey = encodePublicKey(key.publicKey);
  const request = encodeDocument(enrolmentRequestSchema, {
    kind: 'applier',
    name,
    requestedAt: deps.clock.now(),
    csrPem,
    encryptionKey,
    tokenMac: tokenRequestMac({ key: proofKey, csrDer, name, encryptionKey }),
  });
  await patiently(deps, signal, () => deps.objects.putIfAbsent(vaultLayout.enrolment(id), request));
  deps.logger.info({ enrolment: id }, 'asked the operator to be enrolled; waiting for its answer');
  const answer = await awaitAnswer(deps, { id, signal });
  if (answer.outcome === 'refused') {
    // The next start asks anew, perhaps with another token.
    await deps.disk.remove(REQUEST_FILE);
    throw new EnrolmentRefused({ name, refusal: answer.code, message: answer.message });
  }
  const { certificatePem, caCertificatePem, mac } = answer;
  if (!sameMac(answerMac({ key: proofKey, certificatePem, caCertificatePem }), mac))
    throw new FarshoreError(
      'EnrolmentAnswerForged',
      `The answer to enrolment ${id} was not made by somebody who knows the bootstrap file's token. Check who can write to the storage account; get a new bootstrap file.`,
    );
  deps.logger.info({ enrolment: id }, 'enrolled');
}

async function loadRequest(deps: IdentityDeps, name: string): Promise<string> {
  const known = await readJson(deps.disk, REQUEST_FILE, requestFileSchema);
  if (known !== undefined) return known.csrPem;
  const { csrPem } = await createCertificateRequest(deps, { commonName: name });
  await replaceFile(deps.disk, REQUEST_FILE, new TextEncoder().encode(JSON.stringify({ csrPem })));
  return csrPem;
}

async function awaitAnswer(
  deps: IdentityDeps,
  options: { id: string; signal: AbortSignal },
): Promise<EnrolmentAnswer> {
  const key = vaultLayout.enrolmentAnswer(options.id);
  for (let waited = 0; ; waited += POLL_MS) {
    const stored = await patiently(deps, options.signal, () => deps.objects.get(key));
    if (stored !== undefined) return decodeDocument(enrolmentAnswerSchema, key, stored.body);
    if (waited > 0 && waited % REMIND_MS === 0)
      deps.logger.warn(
        { code: 'EnrolmentPending', waitedMs: waited },
        'the operator has not answered the enrolment yet: is it running, and does its RecoveryVault point at this vault?',
      );
    await deps.clock.sleep(POLL_MS, options.signal);
  }
}

/** Repeats what failed for a transient reason, for as long as it takes. */
async function patiently<T>(
  deps: IdentityDeps,
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
        deps.logger.warn({ code: errorCode(error), error }, 'the vault does not answer; trying on');
      await deps.clock.sleep(Math.min(30_000, 1_000 * 2 ** failures), signal);
    }
  }
}

async function readJson<S extends z.ZodType>(
  disk: Disk,
  path: string,
  schema: S,
): Promise<z.output<S> | undefined> {
  const text = await readText(disk, path);
  return text === undefined
    ? undefined
    : decodeDocument(schema, path, new TextEncoder().encode(text));
}

async function readText(disk: Disk, path: string): Promise<string | undefined> {
  if (!(await disk.list('.')).includes(path)) return undefined;
  const file = await disk.open(path, 'read');
  try {
    const bytes = new Uint8Array(Math.min(await file.size(), FILE_MAX));
    return new TextDecoder().decode(bytes.subarray(0, await file.read(bytes, 0)));
  } finally {
    await file.close();
  }
}
