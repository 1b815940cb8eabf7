import { z } from 'zod';
import { hex, machineIdSchema, objectName, timeMs } from './fields.ts';

/** control/names/<kind>/<name>.json, put if absent: who holds a name. */
export const nameClaimSchema = z.object({
  kind: z.enum(['machine', 'processserver', 'failover']),
  name: objectName,
  installationId: hex(16),
  namespace: objectName,
  uid: z.string(),
  claimedAt: timeMs,
  /** Of a machine: its id, made with the claim. */
  machineId: machineIdSchema.optional(),
});
export type NameClaim = z.infer<typeof nameClaimSchema>;
