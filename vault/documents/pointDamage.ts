import { z } from 'zod';
import { DAMAGED_LEAVES_MAX, damagedLeafSchema } from './damagedLeaf.ts';
import { lsnText, machineIdSchema } from './fields.ts';

/**
 * points/<machineId>/<lsn, 20 digits>.damaged, put if absent: the point beside it holds these leaves, and perhaps others, not as they
 * were. That there is such an object is what counts; its content is for people.
 */
export const pointDamageSchema = z.object({
  machineId: machineIdSchema,
  lsn: lsnText,
  leaves: z.array(damagedLeafSchema).max(DAMAGED_LEAVES_MAX),
});
export type PointDamage = z.infer<typeof pointDamageSchema>;
