import { z } from 'zod';
import { base64, hex, machineIdSchema, objectName, timeMs } from './fields.ts';

/** control/enrolments/<id>.json: somebody asks for a certificate. `id` is the SHA-256 of the CSR's DER, hex. */
export const enrolmentRequestSchema = z.object({
  kind: z.enum(['agent', 'processserver', 'applier']),
  name: objectName,
  requestedAt: timeMs,
  csrPem: z.string().max(16 << 10),
  /** Agent: HMAC-SHA-256(scrypt(passphrase, nonce), csr DER | name), and the nonce the process server gave. */
  proof: z.object({ nonce: hex(32), mac: hex(32) }).optional(),
  /** Agent: through which process server. */
  via: objectName.optional(),
  /** Process server, applier: HMAC-SHA-256(one-time token, csr DER | encryption key). */
  tokenMac: hex(32).optional(),
  /** Process server, applier: X25519 public key to which data keys are sealed. */
  encryptionKey: base64.optional(),
  /** Agent: the disks that the machine has; offered, never assumed. */
  disks: z
    .array(
      z.object({
        device: z.string(),
        sizeBytes: z.number().int().nonnegative(),
        description: z.string(),
      }),
    )
    .max(256)
    .optional(),
});
export type EnrolmentRequest = z.infer<typeof enrolmentRequestSchema>;

/** control/enrolments/<id>.answer.json */
export const enrolmentAnswerSchema = z.union([
  z.object({
    outcome: z.literal('accepted'),
    certificatePem: z.string(),
    caCertificatePem: z.string(),
    machineId: machineIdSchema.optional(),
    /** Over certificatePem | caCertificatePem with the key of the request's proof or token, so the asker knows whom it trusts. */
    mac: hex(32),
  }),
  z.object({ outcome: z.literal('refused'), code: z.string(), message: z.string() }),
]);
export type EnrolmentAnswer = z.infer<typeof enrolmentAnswerSchema>;
