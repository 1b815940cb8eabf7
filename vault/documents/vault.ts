import { z } from 'zod';
import { base64, hex, timeMs } from './fields.ts';
import { sealedKeySchema } from './sealedKey.ts';

export const vaultDocumentSchema = z.object({
  formatVersion: z.number().int().positive(),
  vaultId: hex(16),
  createdAt: timeMs,
  /** X25519 public key of the vault key; its private half is in a Secret of the controlling cluster. */
  vaultKey: z.object({ id: hex(16), publicKey: base64 }),
  /** `farshore keygen` public strings; each opens everything. */
  recoveryRecipients: z.array(z.string()).min(1).max(16),
  /** Controllers' Ed25519 keys, oldest first; each later one is endorsed by an earlier one or by a recovery key. */
  controllerKeys: z
    .array(
      z.object({
        publicKey: base64,
        installationId: hex(16),
        endorsedBy: base64.optional(),
        /** Over "farshore-controller-v1|vaultId|publicKey". Absent for the first key alone. */
        endorsement: base64.optional(),
      }),
    )
    .min(1)
    .max(256),
  /** Every list of recovery recipients so far, newest last (= recoveryRecipients), each signed by the controller that set it. */
  recipientLists: z
    .array(
      z.object({
        recipients: z.array(z.string()).min(1).max(16),
        endorsedBy: base64,
        /** Over "farshore-recipients-v1|vaultId|recipients joined by |". */
        endorsement: base64,
      }),
    )
    .min(1)
    .max(1024),
  /** The CA that signs agents' and process servers' certificates, its key sealed for the vault key and the recovery recipients. */
  ca: z.object({ certificatePem: z.string(), key: z.array(sealedKeySchema) }),
  /** A random challenge sealed for each recovery recipient; `recover --check` answers it (control/recovery-check.json). */
  recoveryChallenge: z.object({ sha256: hex(32), sealed: z.array(sealedKeySchema) }),
});
export type VaultDocument = z.infer<typeof vaultDocumentSchema>;
