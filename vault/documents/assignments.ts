import { z } from 'zod';
import { bandwidthSchema } from './bandwidth.ts';
import { DAMAGED_LEAVES_MAX, damagedLeafSchema } from './damagedLeaf.ts';
import { diskSpecSchema } from './diskSpec.ts';
import { hex, machineIdSchema, objectName } from './fields.ts';
import { resyncReasonSchema } from './machineStatus.ts';
import { sealedKeySchema } from './sealedKey.ts';
import { weeklyWindowSchema } from './weeklyWindow.ts';

export const hookSpecSchema = z.object({
  directory: z.string(),
  timeoutSeconds: z.number().int().positive(),
});

/** As many as agents take in. */
export const PEERS_MAX = 32;

/** What a process server must do for one machine. */
export const assignmentSchema = z.object({
  machineId: machineIdSchema,
  name: objectName,
  namespace: objectName,
  writerEpoch: z.number().int().positive(),
  disks: z.array(diskSpecSchema).min(1).max(64),
  dataKey: z.array(sealedKeySchema),
  paused: z.boolean(),
  policy: z.object({
    crashConsistentSeconds: z.number().int().positive(),
    /** 0: off. */
    appConsistentSeconds: z.number().int().nonnegative(),
    hooks: hookSpecSchema.optional(),
    /** When resyncs may begin; absent: at any time. */
    resyncWindow: weeklyWindowSchema
      .extend({
        /** Reasons for which one begins at any time. */
        urgent: z.array(resyncReasonSchema),
      })
      .optional(),
  }),
  /** A Planned failover asks for the last barrier, after which the machine stays frozen and is powered off. */
  finalSync: z.object({ failover: objectName, powerOff: z.boolean() }).optional(),
  /** Any change of the token asks for a resync. */
  resyncToken: z.string().optional(),
  /** Leaves of the replica that are not what the source sent: it must send them again, whole. */
  repair: z.array(damagedLeafSchema).max(DAMAGED_LEAVES_MAX).optional(),
});
export type Assignment = z.infer<typeof assignmentSchema>;

/** control/assignments/<processserver>.json (payload of a Signed). Older (controllerEpoch, generation) are refused. */
export const assignmentsDocumentSchema = z.object({
  vaultId: hex(16),
  processServer: objectName,
  controllerEpoch: z.number().int().positive(),
  generation: z.number().int().positive(),
  caCertificatePem: z.string(),
  machines: z.array(assignmentSchema).max(2000),
  /** Where agents reach the owner of a machine that is not in `machines`: machineId → endpoints. */
  redirects: z.record(machineIdSchema, z.array(z.string())),
  /** Where the other replicas are reached: one of them takes over when this one falls silent, and agents must know them by then. */
  peers: z.array(z.string()).max(PEERS_MAX).optional(),
  /** What it may upload; absent: without a limit. */
  bandwidth: bandwidthSchema.optional(),
});
export type AssignmentsDocument = z.infer<typeof assignmentsDocumentSchema>;
