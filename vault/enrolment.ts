/**
 * How a process server or an applier is taken in: it asks through `control/enrolments/` with a proof of its bootstrap file's
 * one-time token, and waits for the operator's answer, which proves the same back (enrolmentProof.ts).
 */
import { createHash } from 'node:crypto';
import { readFile, replaceFile } from '../platform/durableFile.ts';
import { FarshoreError } from '../platform/errors.ts';
import { patiently } from '../platform/patience.ts';
import type { Clock, Disk, Logger, ObjectStore, Random } from '../platform/ports.ts';
import { certificateRequestDer } from './authority.ts';
import { decodeDocument, encodeDocument } from './documents/codec.ts';
import {
  type EnrolmentAnswer,
  enrolmentAnswerSchema,
  enrolmentRequestSchema,
} from './documents/enrolment.ts';
import { answerMac, sameMac, tokenKey, tokenRequestMac } from './enrolmentProof.ts';
import {
  type BoxKey,
  decodeEncryptionKey,
  encodeEncryptionKey,
  encodePublicKey,
  generateBoxKey,
} from './keys.ts';
import { vaultLayout } from './layout.ts';

const KEY_FILE_MAX = 4 << 10;
const POLL_MS = 2_000;
const REMIND_MS = 60_000;
const WHO = { processserver: 'process server', applier: 'applier' } as const;

export interface EnrolmentDeps {
  objects: ObjectStore;
  clock: Clock;
  logger: Logger;
}

export interface Asker {
  kind: keyof typeof WHO;
  name: string;
  /** The bootstrap file's. */
  token: string;
  /** Kept by the asker before it asks: the same request again is the same enrolment. */
  csrPem: string;
  /** Data keys are sealed to it. */
  encryptionKey: BoxKey;
  /** Whether the certificate of an answer is for the asker's key. */
  ownsCertificate(certificatePem: string): boolean;
  signal: AbortSignal;
}

/** The operator does not take the asker in: `refusal` is its code (NameTaken, TokenWrong, …). Code EnrolmentRefused. */
export class EnrolmentRefused extends FarshoreError {
  readonly refusal: string;

  constructor(asker: Pick<Asker, 'kind' | 'name'>, answer: { code: string; message: string }) {
    super(
      'EnrolmentRefused',
      `The operator refuses to enrol ${WHO[asker.kind]} ${asker.name} (${answer.code}): ${answer.message}`,
    );
    this.refusal = answer.code;
  }
}

/** The key in that file, made when there is none: durable before it is told to anybody, for nothing else opens what is sealed to it. */
export async function ensureEncryptionKey(
  deps: { disk: Disk; random: Random },
  path: string,
): Promise<BoxKey> {
  const present = await readFile(deps.disk, path, KEY_FILE_MAX);
  if (present !== undefined) return decodeEncryptionKey(new TextDecoder().decode(present).trim());
  const made = generateBoxKey(deps.random);
  const text = `${encodeEncryptionKey(made)}\n`;
  await replaceFile(deps.disk, path, new TextEncoder().encode(text));
  return made;
}

/**
 * Asks, and waits for the answer for as long as it takes. Rejects with EnrolmentRefused (the next try needs a new request), with a
 * FarshoreError EnrolmentAnswerForged, a StoreError that is not transient, a VaultDocumentError, the signal's reason.
 */
export async function enrol(
  deps: EnrolmentDeps,
  asker: Asker,
): Promise<{ certificatePem: string; caCertificatePem: string }> {
  const { kind, name, csrPem, signal } = asker;
  const csrDer = certificateRequestDer(csrPem);
  const id = createHash('sha256').update(csrDer).digest('hex');
  const key = tokenKey(asker.token);
  const encryptionKey = encodePublicKey(asker.encryptionKey.publicKey);
  const request = encodeDocument(enrolmentRequestSchema, {
    kind,
    name,
    requestedAt: deps.clock.now(),
    csrPem,
    tokenMac: tokenRequestMac({ key, csrDer, name, encryptionKey }),
    encryptionKey,
  });
  await patiently(deps, signal, () => deps.objects.putIfAbsent(vaultLayout.enrolment(id), request));
  deps.logger.info({ enrolment: id }, 'Asked the operator to be enrolled; waiting for its answer');
  const answer = await awaitAnswer(deps, { id, signal });
  if (answer.outcome === 'refused') throw new EnrolmentRefused(asker, answer);
  const { certificatePem, caCertificatePem, mac } = answer;
  const proven = sameMac(answerMac({ key, certificatePem, caCertificatePem }), mac);
  if (!proven || !asker.ownsCertificate(certificatePem))
    throw new FarshoreError(
      'EnrolmentAnswerForged',
      `The answer to enrolment ${id} was not made by somebody who knows the bootstrap file's token, or is for another key. Check who can write to the storage account; get a new bootstrap file.`,
    );
  deps.logger.info({ enrolment: id }, 'Enrolled');
  return { certificatePem, caCertificatePem };
}

async function awaitAnswer(
  deps: EnrolmentDeps,
  options: { id: string; signal: AbortSignal },
): Promise<EnrolmentAnswer> {
  const key = vaultLayout.enrolmentAnswer(options.id);
  for (let waited = 0; ; waited += POLL_MS) {
    const stored = await patiently(deps, options.signal, () => deps.objects.get(key));
    if (stored !== undefined) return decodeDocument(enrolmentAnswerSchema, key, stored.body);
    if (waited > 0 && waited % REMIND_MS === 0)
      deps.logger.warn(
        { code: 'EnrolmentPending', waitedMs: waited },
        'The operator has not answered the enrolment yet: is it running, and does its RecoveryVault point at this vault?',
      );
    await deps.clock.sleep(POLL_MS, options.signal);
  }
}
