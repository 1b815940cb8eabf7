/**
 * Who this process server is: a TLS key with the certificate that the operator gave for it, and the key to which data keys are
 * sealed. Made once in the cache directory, and asked for through the vault (vault/enrolment.ts), so that a process server needs
 * nothing but the vault to join.
 */
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { ensureDirectory, readFile, removeFile, replaceFile } from '../../platform/durableFile.ts';
import type { Disk, Random } from '../../platform/ports.ts';
import { createCertificateRequest } from '../../vault/authority.ts';
import { decodeDocument } from '../../vault/documents/codec.ts';
import {
  type EnrolmentDeps,
  EnrolmentRefused,
  enrol,
  ensureEncryptionKey,
} from '../../vault/enrolment.ts';
import type { BoxKey } from '../../vault/keys.ts';

const DIRECTORY = 'identity';
const ENCRYPTION_KEY_FILE = `${DIRECTORY}/encryption.key`;
const REQUEST_FILE = `${DIRECTORY}/request.json`;
const CERTIFICATE_FILE = `${DIRECTORY}/certificate.json`;
const FILE_MAX = 256 << 10;

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

export interface IdentityDeps extends EnrolmentDeps {
  disk: Disk;
  random: Random;
}

/**
 * The identity in the cache directory, or a new one: asks and waits for the operator's answer, for as long as it takes. A restart
 * goes on with the same request. Throws what `enrol` does.
 */
export async function establishIdentity(
  deps: IdentityDeps,
  options: { name: string; token: string; signal: AbortSignal },
): Promise<ServerIdentity> {
  await ensureDirectory(deps.disk, DIRECTORY);
  const encryptionKey = await ensureEncryptionKey(deps, ENCRYPTION_KEY_FILE);
  const present = await loadCertificate(deps.disk);
  if (present !== undefined && certificateCounts(present, deps))
    return { encryptionKey, ...present };
  const { csrPem, privateKeyPem } = await ensureRequest(deps, options.name);
  const certificate = await enrol(deps, {
    ...options,
    kind: 'processserver',
    csrPem,
    encryptionKey,
    ownsCertificate: (certificatePem) => isFor(certificatePem, privateKeyPem),
  }).catch(async (error: unknown) => {
    // The next start asks anew, perhaps with another token.
    if (error instanceof EnrolmentRefused) await removeFile(deps.disk, REQUEST_FILE);
    throw error;
  });
  const saved = { privateKeyPem, ...certificate };
  await replaceFile(deps.disk, CERTIFICATE_FILE, json(saved));
  await removeFile(deps.disk, REQUEST_FILE);
  return { encryptionKey, ...saved };
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

async function ensureRequest(
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

function isFor(certificatePem: string, privateKeyPem: string): boolean {
  try {
    const ours = createPublicKey(createPrivateKey(privateKeyPem));
    return new X509Certificate(certificatePem).publicKey.equals(ours);
  } catch {
    return false;
  }
}

function json(value: object): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}
