import { z } from 'zod';
import { diskSpecSchema } from './diskSpec.ts';
import { machineIdSchema, objectName, timeMs } from './fields.ts';
import { sealedKeySchema } from './sealedKey.ts';

/** catalog/<machineId>.json: what a recovery without any cluster must know. Written by the controller, by compare-and-set. */
export const catalogDocumentSchema = z.object({
  machineId: machineIdSchema,
  name: objectName,
  namespace: objectName,
  createdAt: timeMs,
  writerEpoch: z.number().int().positive(),
  processServer: objectName.optional(),
  disks: z.array(diskSpecSchema).max(64),
  dataKey: z.array(sealedKeySchema),
  activeSide: z.enum(['Source', 'Azure']),
  /** The applier may trim and thin by this even when no cluster is left. */
  policy: z.object({
    name: objectName,
    retentionSeconds: z.number().int().positive(),
    /** Percent of the replica's leaves that the applier reads again each day; 0: none. Absent: DEFAULT_SHARE_PER_DAY. */
    verifiedSharePerDay: z.number().min(0).max(100).optional(),
  }),
  /** `{ production, test }`, each a FailoverTarget (failover.ts): so that a recovery without a cluster knows what to build. */
  target: z.unknown(),
  /** The lowest disk index that was never given out: an index of a disk that was taken off the list is not used again. */
  nextDiskIndex: z.number().int().min(0).max(64).optional(),
  /** The one failover that may act on this machine; set by compare-and-set before it does anything. */
  activeFailover: objectName.optional(),
  /** A Planned failover asks for the last barrier; copied into the assignment, so that an operator's restart thaws nothing. */
  finalSync: z.object({ failover: objectName, powerOff: z.boolean() }).optional(),
});
export type CatalogDocument = z.infer<typeof catalogDocumentSchema>;
