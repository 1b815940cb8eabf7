import { z } from 'zod';
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
      error: z.object({ code: z.string(), message: z.string() }).optional(),
    }),
  ),
});
export type ApplierStatus = z.infer<typeof applierStatusSchema>;
