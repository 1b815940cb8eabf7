import { z } from 'zod';
import { lsnText, machineIdSchema, objectName, timeMs } from './fields.ts';

export const positionsSchema = z.object({
  capturedLsn: lsnText,
  journaledLsn: lsnText,
  uploadedLsn: lsnText,
});
export type Positions = z.infer<typeof positionsSchema>;

/** A barrier as it is reported; roots are in the journal and the point documents. */
export const barrierSummarySchema = z.object({
  lsn: lsnText,
  timeMs,
  consistency: z.enum(['Crash', 'App']),
});
export type BarrierSummary = z.infer<typeof barrierSummarySchema>;

export const resyncReasonSchema = z.enum([
  'Initial',
  'TrackingLost',
  'AfterReboot',
  'SourceReverted',
  'DiskResized',
  'VaultGap',
  'Manual',
]);
export type ResyncReason = z.infer<typeof resyncReasonSchema>;

/** A resync that came to its end. */
export const endedResyncSchema = z.object({
  reason: resyncReasonSchema,
  bytesTotal: z.number().int().nonnegative(),
  bytesSent: z.number().int().nonnegative(),
  startedMs: timeMs,
  finishedMs: timeMs,
});
export type EndedResync = z.infer<typeof endedResyncSchema>;

/** One machine in a process server's status. */
export const machineStatusSchema = z.object({
  machineId: machineIdSchema,
  writerEpoch: z.number().int().positive(),
  /** Agent connected now; when it was last heard of; what it said of itself. */
  agent: z.object({
    connected: z.boolean(),
    lastSeenMs: timeMs.optional(),
    version: z.string().optional(),
    hostname: z.string().optional(),
    kernel: z.string().optional(),
  }),
  disks: z.array(
    z.object({
      index: z.number().int(),
      sizeBytes: z.number().int(),
      error: z.string().optional(),
    }),
  ),
  positions: positionsSchema,
  /** Newest barrier that is durable in the vault: RPO counts from its time. */
  uploadedBarrier: barrierSummarySchema.optional(),
  uploadedAppBarrier: barrierSummarySchema.optional(),
  barriers: z.object({
    count: z.number().int(),
    voided: z.number().int(),
    lastFreezeMs: z.number(),
    maxFreezeMs: z.number(),
    lastVoid: z.string().optional(),
  }),
  resync: z
    .object({
      reason: resyncReasonSchema,
      bytesTotal: z.number().int(),
      bytesDone: z.number().int(),
      bytesSent: z.number().int(),
      startedMs: timeMs,
      bytesPerSecond: z.number(),
    })
    .optional(),
  /** Why a resync is needed that has not begun; `waitsUntilMs` when the policy's window lets it begin then. */
  resyncRequired: z
    .object({ reason: resyncReasonSchema, waitsUntilMs: timeMs.optional() })
    .optional(),
  /** The newest resync that ended while this agent ran: what initial replication cost. */
  lastResync: endedResyncSchema.optional(),
  /** Bytes of dirt that the agent has not sent, and of journal not uploaded. */
  backlog: z.object({ agentBytes: z.number().int(), cacheBytes: z.number().int() }),
  /** Set once the final barrier of a planned failover is uploaded and the machine is frozen (and off, when asked). */
  finalBarrier: z
    .object({ failover: objectName, lsn: lsnText, poweredOff: z.boolean() })
    .optional(),
  /** The journal was sealed by a failover, or claimed by another writer: this process server stopped writing it. */
  fenced: z
    .object({ by: z.enum(['Seal', 'HigherEpoch']), failover: objectName.optional() })
    .optional(),
  resyncToken: z.string().optional(),
  errors: z.array(z.object({ code: z.string(), message: z.string(), sinceMs: timeMs })).max(16),
});
export type MachineStatus = z.infer<typeof machineStatusSchema>;
