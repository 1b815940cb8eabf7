import { z } from 'zod';
import { dnsLabel } from './fields.ts';

export const diskSpecSchema = z.object({
  /** Position in every journal record; never reused. */
  index: z.number().int().min(0).max(63),
  name: dnsLabel,
  device: z.string(),
  /** As the agent reported it; 0 until then. */
  sizeBytes: z.number().int().nonnegative(),
});
export type DiskSpec = z.infer<typeof diskSpecSchema>;
