import { z } from 'zod';
import { objectName, timeMs } from './fields.ts';
import { machineStatusSchema } from './machineStatus.ts';

/** control/status/<processserver>.json: one writer, replaced every few seconds. */
export const processServerStatusSchema = z.object({
  name: objectName,
  version: z.string(),
  formatVersion: z.number().int(),
  heartbeatMs: timeMs,
  /** Process server's clock minus the vault's Date. */
  clockOffsetMs: z.number(),
  assignments: z
    .object({ controllerEpoch: z.number().int(), generation: z.number().int() })
    .optional(),
  cache: z.object({
    totalBytes: z.number().int(),
    freeBytes: z.number().int(),
    oldestNotUploadedMs: timeMs.optional(),
  }),
  throughput: z.object({ inBytesPerSecond: z.number(), outBytesPerSecond: z.number() }),
  /** The limit of uploads in force when this was written; absent: none. */
  uploadLimitBytesPerSecond: z.number().int().positive().optional(),
  endpoints: z.array(z.string()),
  machines: z.array(machineStatusSchema).max(2000),
  /** What is wrong with the process server itself: assignments that it refuses, a vault that does not answer. */
  errors: z
    .array(z.object({ code: z.string(), message: z.string(), sinceMs: timeMs }))
    .max(16)
    .optional(),
});
export type ProcessServerStatus = z.infer<typeof processServerStatusSchema>;
