/**
 * The applier's key: what the operator seals machines' data keys to. Made once in the state directory, and told to the operator with
 * the bootstrap file's one-time token (vault/enrolment.ts). Nobody connects to an applier, so it gets no certificate.
 */
import { z } from 'zod';
import { readFile, removeFile, replaceFile } from '../../platform/durableFile.ts';
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

const KEY_FILE = 'encryption.key';
/** The request that is under way: a restart waits for its answer instead of asking anew. */
const REQUEST_FILE = 'enrolment.json';
/** Says for which vault and name the key has been taken in. */
const ENROLLED_FILE = 'enrolled.json';
const FILE_MAX = 64 << 10;

const requestFileSchema = z.object({ csrPem: z.string() });
const enrolledFileSchema = z.object({ vaultId: z.string(), name: z.string(), key: z.string() });

export interface IdentityDeps extends EnrolmentDeps {
  disk: Disk;
  random: Random;
}

export interface IdentityOptions {
  name: string;
  vaultId: string;
  /** The bootstrap file's one-time token. */
  token: string;
  signal: AbortSignal;
}

/**
 * The key in the state directory, enrolled: asks when it was not yet, and waits for the answer for as long as it takes. A restart
 * goes on with the same request. Throws what `enrol` does.
 */
export async function establishIdentity(
  deps: IdentityDeps,
  options: IdentityOptions,
): Promise<BoxKey> {
  const { disk } = deps;
  const key = await ensureEncryptionKey(deps, KEY_FILE);
  const enrolled = { vaultId: options.vaultId, name: options.name, key: key.id };
  const known = await readJson(disk, ENROLLED_FILE, enrolledFileSchema);
  if (known !== undefined && JSON.stringify(known) === JSON.stringify(enrolled)) return key;
  const csrPem = await ensureRequest(deps, options.name);
  try {
    await enrol(deps, {
      ...options,
      kind: 'applier',
      csrPem,
      encryptionKey: key,
      ownsCertificate: () => true,
    });
  } catch (error) {
    // The next start asks anew, perhaps with another token.
    if (error instanceof EnrolmentRefused) await removeFile(disk, REQUEST_FILE);
    throw error;
  }
  await writeJson(disk, ENROLLED_FILE, enrolled);
  await removeFile(disk, REQUEST_FILE);
  return key;
}

async function ensureRequest(deps: IdentityDeps, name: string): Promise<string> {
  const known = await readJson(deps.disk, REQUEST_FILE, requestFileSchema);
  if (known !== undefined) return known.csrPem;
  const { csrPem } = await createCertificateRequest(deps, { commonName: name });
  await writeJson(deps.disk, REQUEST_FILE, { csrPem });
  return csrPem;
}

async function writeJson(disk: Disk, path: string, value: object): Promise<void> {
  await replaceFile(disk, path, new TextEncoder().encode(JSON.stringify(value)));
}

async function readJson<S extends z.ZodType>(
  disk: Disk,
  path: string,
  schema: S,
): Promise<z.output<S> | undefined> {
  const bytes = await readFile(disk, path, FILE_MAX);
  return bytes === undefined ? undefined : decodeDocument(schema, path, bytes);
}
