import { z } from 'zod';
import { machineIdSchema } from './fields.ts';

/**
 * journal/<machineId>/trim.json: where the journal begins; compare-and-set, and it only rises. It rises before the first segment below
 * it is removed, and whatever lies below it counts for nothing, also what a writer that slept for long puts there later.
 */
export const trimMarkSchema = z.object({
  machineId: machineIdSchema,
  /** The lowest segment that is kept. */
  firstSeq: z.number().int().positive(),
});
export type TrimMark = z.infer<typeof trimMarkSchema>;
