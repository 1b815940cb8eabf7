import { z } from 'zod';
import { base64, hex } from './fields.ts';

/** A secret, sealed to one X25519 public key (vault/keys.ts). */
export const sealedKeySchema = z.object({
  /** SHA-256 of the recipient's public key, first 16 bytes, hex. */
  recipient: hex(16),
  kind: z.enum(['vault', 'recovery', 'processserver', 'applier']),
  /** ephemeral public key (32) | ciphertext | GCM tag (16), base64url. */
  box: base64,
});
export type SealedKey = z.infer<typeof sealedKeySchema>;
