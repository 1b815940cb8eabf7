/**
 * The one file that a process server starts from: written by the ProcessServer controller into a Secret, mounted into its pod, or
 * carried to the host of an External one. It holds secrets (a vault credential, a one-time token): mode 0600.
 */
import { z } from 'zod';
import { FarshoreError } from '../platform/errors.ts';

const publicKey = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'must be 32 bytes in base64url');

/** How to reach a vault's blobs: a connection string, or an endpoint with a SAS or the machine's own identity. */
export const vaultLocationSchema = z
  .object({
    container: z.string().min(1).max(63),
    /** Path inside the container; empty: its root. */
    prefix: z.string().max(512).default(''),
    connectionString: z.string().min(1).max(4096).optional(),
    blobEndpoint: z.url().max(2048).optional(),
    /** With blobEndpoint: a shared access signature; without it, workload or managed identity is used. */
    sasToken: z.string().max(4096).optional(),
    /** PEM of further CAs to trust for the endpoint. */
    caBundle: z
      .string()
      .max(256 << 10)
      .optional(),
  })
  .refine(
    (vault) => (vault.connectionString === undefined) !== (vault.blobEndpoint === undefined),
    {
      message: 'needs either connectionString or blobEndpoint',
    },
  );
export type VaultLocation = z.infer<typeof vaultLocationSchema>;

export const bootstrapSchema = z.object({
  /** The ProcessServer resource's name as claimed in the vault. */
  name: z.string().regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/),
  vault: vaultLocationSchema,
  vaultId: z.string().regex(/^[0-9a-f]{32}$/),
  /** Ed25519 key of the controller that wrote this file; its endorsed successors count too. */
  controllerPublicKey: publicKey,
  /** Proves to the operator that an enrolment request comes from the holder of this file. */
  token: z.string().min(16).max(256),
  port: z.number().int().min(0).max(65535).default(9443),
  /** Addresses `host:port` under which agents reach it; they go into its certificate. */
  endpoints: z.array(z.string().min(3).max(261)).max(32).default([]),
  cacheDirectory: z.string().max(4096).optional(),
});
export type Bootstrap = z.infer<typeof bootstrapSchema>;

/** Reads a bootstrap file's text. Throws FarshoreError BootstrapInvalid naming the first problem, never a secret. */
export function decodeBootstrap(text: string): Bootstrap {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw invalid('it is not JSON');
  }
  const result = bootstrapSchema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw invalid(`${issue?.path.join('.') || 'file'}: ${issue?.message}`);
}

function invalid(problem: string): FarshoreError {
  return new FarshoreError(
    'BootstrapInvalid',
    `The bootstrap file can't be used: ${problem}. Get it again: kubectl get secret <processserver>-bootstrap -o jsonpath='{.data.bootstrap\\.json}' | base64 -d`,
  );
}
