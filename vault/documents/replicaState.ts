import { z } from 'zod';
import { DAMAGED_LEAVES_MAX, damagedLeafSchema } from './damagedLeaf.ts';
import { dnsLabel, hex, lsnText, machineIdSchema, timeMs } from './fields.ts';

/**
 * replicas/<machineId>/state.json: how far the replicas of a machine are applied; compare-and-set by whoever holds the fence.
 *
 * `holder` is `applier:<name>:<instance>` or `recovery:<failover>`, and empty once released. `applied.seq` is the segment that holds
 * `applied.lsn`, which may lie in its middle; −1 before the first. A disk's sizeBytes is 0 until a barrier or the catalog told it.
 */
export const replicaStateSchema = z.object({
  machineId: machineIdSchema,
  /** Sequence number of every page blob of the machine; raised by each new holder. */
  fence: z.number().int().nonnegative(),
  holder: z.string(),
  applied: z.object({ lsn: lsnText, seq: z.number().int().min(-1), digest: hex(32) }),
  disks: z.array(
    z.object({ index: z.number().int(), name: dnsLabel, sizeBytes: z.number().int() }),
  ),
  /** Between ResyncBegin and ResyncEnd no barrier becomes a point. */
  resyncing: z.boolean(),
  /** Found by sampled verification, and not written whole since: points that are made meanwhile are marked (docs/design/0010). */
  damaged: z.array(damagedLeafSchema).max(DAMAGED_LEAVES_MAX).optional(),
  /** How far sampled verification is: the step that comes next (dataplane/journal/sampling.ts), and when the last was (wall clock). */
  sampling: z.object({ next: z.number().int().nonnegative(), lastMs: timeMs }).optional(),
  /**
   * Set while a point is being made at `applied.lsn`: nothing past that LSN has been written, so whoever takes over completes
   * the set of snapshots. Cleared before the first write after it.
   */
  makingPoint: z
    .object({
      timeMs,
      consistency: z.enum(['Crash', 'App']),
      writerEpoch: z.number().int().positive(),
      disks: z.array(
        z.object({
          index: z.number().int().min(0).max(63),
          sizeBytes: z.number().int().positive(),
          root: hex(32),
        }),
      ),
    })
    .optional(),
});
export type ReplicaState = z.infer<typeof replicaStateSchema>;
