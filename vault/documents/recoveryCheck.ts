import { z } from 'zod';
import { base64, hex, timeMs } from './fields.ts';

/** control/recovery-check.json: proof that a recovery key opened the vault. `answer` hashes to the challenge's sha256. */
export const recoveryCheckSchema = z.object({
  recipient: hex(16),
  answer: base64,
  checkedAt: timeMs,
  /** By the recovery key's signing half, over "farshore-recovery-check-v1|vaultId|recipient|answer|checkedAt". */
  signature: base64,
});
export type RecoveryCheck = z.infer<typeof recoveryCheckSchema>;
