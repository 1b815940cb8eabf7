/**
 * Enrolments, as far as process servers, appliers and agents have them in common: what a request must prove, how it is answered,
 * what is written down of who was taken in.
 */
import { createHash } from 'node:crypto';
import { errorMessage } from '../../platform/errors.ts';
import type { Clock, Random } from '../../platform/ports.ts';
import { certificateRequestDer } from '../../vault/authority.ts';
import { createDocument, updateDocument } from '../../vault/documentStore.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import {
  type EnrolmentAnswer,
  type EnrolmentRequest,
  enrolmentAnswerSchema,
} from '../../vault/documents/enrolment.ts';
import { type Registration, registrationSchema } from '../../vault/documents/registration.ts';
import { answerMac, sameMac, tokenKey, tokenRequestMac } from '../../vault/enrolmentProof.ts';
import { decodePublicKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { isVouchedFor, signRegistration } from '../../vault/registrations.ts';
import type { PendingEnrolment } from './observation.ts';
import { assertInControl, type OpenVault } from './openVaults.ts';

const TOKEN_SIZE = 24;

export interface Refusal {
  outcome: 'refused';
  code: string;
  message: string;
}

export function refused(code: string, message: string): Refusal {
  return { outcome: 'refused', code, message };
}

/** The request's DER, if it is what its id says; else why not. */
export function requestDer(id: string, request: EnrolmentRequest): Uint8Array | Refusal {
  try {
    const csrDer = certificateRequestDer(request.csrPem);
    return sha256(csrDer) === id
      ? csrDer
      : refused('RequestInvalid', 'The request lies under an id that is not its own. Enrol again.');
  } catch (error) {
    return refused('RequestInvalid', errorMessage(error));
  }
}

export function newToken(random: Random): string {
  return Buffer.from(random.bytes(TOKEN_SIZE)).toString('base64url');
}

type TokenVerdict =
  | { verdict: 'proven'; key: Uint8Array; encryptionKey: string }
  /** `spent`: the asker does hold the bootstrap file, but its token was used: a new one has to be made. */
  | { verdict: 'refused'; refusal: Refusal; spent: boolean };

/** Whether whoever asks holds the one-time token of a bootstrap file. */
function proveToken(options: {
  id: string;
  request: EnrolmentRequest;
  token: string;
  registration: Registration | undefined;
  /** Where the present bootstrap file is, for the message. */
  secret: string;
}): TokenVerdict {
  const { id, request, token, registration, secret } = options;
  const no = (code: string, message: string, spent = false): TokenVerdict => ({
    verdict: 'refused',
    refusal: refused(code, message),
    spent,
  });
  const csrDer = requestDer(id, request);
  if ('outcome' in csrDer) return { verdict: 'refused', refusal: csrDer, spent: false };
  const { encryptionKey, tokenMac, name } = request;
  if (encryptionKey === undefined || tokenMac === undefined || !isPublicKey(encryptionKey))
    return no('RequestInvalid', 'The request lacks an encryption key or the proof of its token.');
  const key = tokenKey(token);
  if (!sameMac(tokenRequestMac({ key, csrDer, name, encryptionKey }), tokenMac))
    return no(
      'TokenWrong',
      `The request does not prove the token of ${name}'s bootstrap file. Take the present file from Secret ${secret}.`,
    );
  if (registration?.tokenSha256 === sha256(token) && registration.enrolment !== id)
    return no(
      'TokenSpent',
      `The bootstrap file of ${name} was used before, and counts once. Secret ${secret} holds a new one now.`,
      true,
    );
  return { verdict: 'proven', key, encryptionKey };
}

/** Takes in whoever proves the token, or answers why not. Rejects with a StoreError, a NotInControlError. */
export async function admitByToken(
  { clock }: { clock: Pick<Clock, 'now'> },
  vault: OpenVault,
  options: {
    kind: Registration['kind'];
    pending: PendingEnrolment;
    token: string;
    /** Where the present bootstrap file is, for the message. */
    secret: string;
    /** PEM; empty for an applier, to which nobody connects. */
    issueCertificate(): Promise<string>;
  },
): Promise<{ refusal: Refusal | undefined; spent: boolean }> {
  const { kind, pending, token, secret } = options;
  const { id, request } = pending;
  const { name } = request;
  const registration = registrationOf(vault, kind, name);
  const verdict = proveToken({ id, request, token, registration, secret });
  if (verdict.verdict === 'refused') {
    await answer(vault, id, verdict.refusal);
    return { refusal: verdict.refusal, spent: verdict.spent };
  }
  const { encryptionKey, key } = verdict;
  const certificatePem = await options.issueCertificate();
  const registered = await register(vault, {
    kind,
    name,
    encryptionKey,
    enrolment: id,
    token,
    registeredAt: clock.now(),
  });
  vault.observation.noteRegistration(registered);
  const caCertificatePem = vault.document.ca.certificatePem;
  await answer(vault, id, acceptance({ key, certificatePem, caCertificatePem }));
  return { refusal: undefined, spent: false };
}

/** Durable before the answer: whoever is answered must be known to those who seal data keys. */
export async function register(
  vault: OpenVault,
  registration: Pick<
    Registration,
    'kind' | 'name' | 'encryptionKey' | 'enrolment' | 'registeredAt'
  > & { token: string },
): Promise<Registration> {
  await assertInControl(vault);
  const { token, ...rest } = registration;
  const document = signRegistration(
    { ...rest, tokenSha256: sha256(token) },
    { key: vault.installation.signingKey, vaultId: vault.document.vaultId },
  );
  const isSame = (other: Registration) =>
    other.enrolment === document.enrolment && isVouchedFor(other, vault.document);
  const store = vault.stores.objects;
  const key = vaultLayout.registration(document.kind, document.name);
  const schema = registrationSchema;
  const created = await createDocument({ store, key, schema, document });
  if (isSame(created.document)) return created.document;
  const updated = await updateDocument({
    store,
    key,
    schema,
    change: (current) => (isSame(current) ? undefined : document),
  });
  return updated?.document ?? (await createDocument({ store, key, schema, document })).document;
}

/** Those that a controller of the vault took in. What anybody else wrote there is nobody's. */
export function registrationsOf(vault: OpenVault): Registration[] {
  return vault.observation
    .registrations()
    .filter((registration) => isVouchedFor(registration, vault.document));
}

export function registrationOf(
  vault: OpenVault,
  kind: Registration['kind'],
  name: string,
): Registration | undefined {
  const found = vault.observation.registration(kind, name);
  return found !== undefined &&
    found.kind === kind &&
    found.name === name &&
    isVouchedFor(found, vault.document)
    ? found
    : undefined;
}

/** Put if absent: an answer that was given stays the answer. */
export async function answer(
  vault: OpenVault,
  id: string,
  document: EnrolmentAnswer,
): Promise<void> {
  await assertInControl(vault);
  await vault.stores.objects.putIfAbsent(
    vaultLayout.enrolmentAnswer(id),
    encodeDocument(enrolmentAnswerSchema, document),
  );
  vault.observation.noteAnswered(id);
}

export function acceptance(options: {
  key: Uint8Array;
  /** Empty for an applier: nobody connects to it. */
  certificatePem: string;
  caCertificatePem: string;
  machineId?: string;
}): EnrolmentAnswer {
  const { key, ...shown } = options;
  return { outcome: 'accepted', ...shown, mac: answerMac({ key, ...shown }) };
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function isPublicKey(text: string): boolean {
  try {
    decodePublicKey(text);
    return true;
  } catch {
    return false;
  }
}
