import { z } from 'zod';

/** So many are known at a time; the others are found when these are repaired. 16 MiB of disk, and a few KiB of a document. */
export const DAMAGED_LEAVES_MAX = 256;

/** A leaf of a replica whose bytes do not have the hash that the source gave it. */
export const damagedLeafSchema = z.object({
  /** The disk's index. */
  disk: z.number().int().min(0).max(63),
  leaf: z.number().int().nonnegative(),
});
export type DamagedLeaf = z.infer<typeof damagedLeafSchema>;
