import { z } from 'zod';
import { base64, hex, objectName, timeMs } from './fields.ts';

/**
 * control/registrations/<kind>-<name>.json: a process server or applier that enrolled, and the key that data keys are sealed to.
 * Written and signed by the controller before it answers; replaced when the same name enrols again with a new token.
 */
export const registrationSchema = z.object({
  kind: z.enum(['processserver', 'applier']),
  name: objectName,
  encryptionKey: base64,
  /** Id of the enrolment request that made it. */
  enrolment: hex(32),
  /** SHA-256 of the one-time token that it spent. */
  tokenSha256: hex(32),
  registeredAt: timeMs,
  /** By a controller of the vault, over "farshore-registration-v1|vaultId|kind|name|encryptionKey|enrolment|tokenSha256|registeredAt". */
  signer: base64,
  signature: base64,
});
export type Registration = z.infer<typeof registrationSchema>;
