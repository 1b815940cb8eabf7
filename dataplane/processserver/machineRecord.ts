/**
 * What a process server must remember of a machine across restarts, besides its journal: `machines/<machineId>.json` in its own
 * directory. Belongs to one cache: under another cacheId it is forgotten.
 */
import { z } from 'zod';
import type { Disk } from '../../platform/ports.ts';
import { decodeDocument, encodeDocument, lsnText } from '../../vault/documents.ts';
import { readFile, removeFile, replaceFile } from './durableFile.ts';

const RECORD_MAX = 64 << 10;

const machineRecordSchema = z.object({
  cacheId: z.string(),
  /** A barrier was taken into this cache: an agent that knows of none of its barriers went back in time. */
  hasBarriers: z.boolean(),
  /** The last barrier of a planned failover. */
  final: z
    .object({
      failover: z.string(),
      lsn: lsnText,
      /** What the agent said once the barrier was uploaded; undefined before. */
      poweredOff: z.boolean().optional(),
    })
    .optional(),
  /** When the agent was last heard of, so that a restart does not forget it. */
  lastSeenMs: z.number().int().nonnegative().optional(),
});
export type MachineRecord = z.infer<typeof machineRecordSchema>;

export async function loadMachineRecord(
  disk: Disk,
  options: { machineId: string; cacheId: string },
): Promise<MachineRecord> {
  const path = pathOf(options.machineId);
  const bytes = await readFile(disk, path, RECORD_MAX);
  const fresh: MachineRecord = { cacheId: options.cacheId, hasBarriers: false };
  if (bytes === undefined) return fresh;
  const record = decodeDocument(machineRecordSchema, path, bytes);
  return record.cacheId === options.cacheId ? record : fresh;
}

export async function saveMachineRecord(
  disk: Disk,
  options: { machineId: string; record: MachineRecord },
): Promise<void> {
  await replaceFile(
    disk,
    pathOf(options.machineId),
    encodeDocument(machineRecordSchema, options.record),
  );
}

export async function removeMachineRecord(disk: Disk, machineId: string): Promise<void> {
  await removeFile(disk, pathOf(machineId));
}

function pathOf(machineId: string): string {
  return `machines/${machineId}.json`;
}
