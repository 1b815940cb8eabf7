import { z } from 'zod';
import { dnsLabel, hex, lsnText, machineIdSchema, timeMs } from './fields.ts';

/** points/<machineId>/<lsn, 20 digits>.json, put if absent: a recovery point that may be offered. */
export const pointDocumentSchema = z.object({
  machineId: machineIdSchema,
  lsn: lsnText,
  timeMs,
  consistency: z.enum(['Crash', 'App']),
  segment: z.object({
    seq: z.number().int().nonnegative(),
    digest: hex(32),
    writerEpoch: z.number().int().positive(),
  }),
  disks: z
    .array(
      z.object({
        index: z.number().int().min(0).max(63),
        name: dnsLabel,
        /** The source disk's size; the VHD's body is this rounded up to whole MiB, zero-padded. */
        sizeBytes: z.number().int().positive(),
        /** Merkle root over the padded body (dataplane/journal/merkle.ts). */
        root: hex(32),
        /** Page blob and snapshot that hold the disk (fixed VHD) and its leaf hashes. */
        replica: z.object({ key: z.string(), snapshot: z.string() }),
        leaves: z.object({ key: z.string(), snapshot: z.string() }),
      }),
    )
    .min(1),
  createdAt: timeMs,
});
export type PointDocument = z.infer<typeof pointDocumentSchema>;
