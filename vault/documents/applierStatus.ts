import { z } from 'zod';
import { DAMAGED_LEAVES_MAX, damagedLeafSchema } from './damagedLeaf.ts';
import { lsnText, machineIdSchema, timeMs } from './fields.ts';

/** control/status/applier-<name>.json */
export const applierStatusSchema = z.object({
  name: z.string(),
  version: z.string(),
  formatVersion: z.number().int(),
  heartbeatMs: timeMs,
  machines: z.array(
    z.object({
      machineId: machineIdSchema,
      appliedLsn: lsnText,
      recoveryPointLsn: lsnText,
      /** Journal bytes not applied yet and the rate of late: what Latest would wait for. */
      behindBytes: z.number().int(),
      bytesPerSecond: z.number(),
      /** Leaves of the replica that are not what they should be, and that the source must send again. */
      damaged: z.array(damagedLeafSchema).max(DAMAGED_LEAVES_MAX).optional(),
      error: z.object({ code: z.string(), message: z.string() }).optional(),
    }),
  ),
});
export type ApplierStatus = z.infer<typeof applierStatusSchema>;
