import { z } from 'zod';
import { base64 } from './fields.ts';

/** An Ed25519 signature over the exact `payload` string. Documents that command others travel in this. */
export const signedSchema = z.object({
  payload: z.string().max(64 << 20),
  /** The signer's Ed25519 public key, base64url. */
  signer: base64,
  signature: base64,
});
export type Signed = z.infer<typeof signedSchema>;
