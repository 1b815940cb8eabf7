/** A machine's list of disks and the leaf tables that go with it. */
import type { Disk } from '../../platform/ports.ts';
import type { ResyncReason } from '../../vault/documents/machineStatus.ts';
import { LeafTable } from './leafTable.ts';
import type { JournalDisk } from './machineJournal.ts';
import { machineDirectory } from './machineState.ts';

/** The new list; a size of 0 changes nothing known. `reason` says why a resync is due when a disk is new or has another size. */
export function mergeDisks(
  before: ReadonlyMap<number, JournalDisk>,
  after: readonly JournalDisk[],
): { disks: Map<number, JournalDisk>; reason: ResyncReason | undefined } {
  const disks = new Map<number, JournalDisk>();
  let reason: ResyncReason | undefined;
  for (const { index, name, sizeBytes: stated } of after) {
    const known = before.get(index)?.sizeBytes ?? 0;
    const sizeBytes = stated === 0 ? known : stated;
    disks.set(index, { index, name, sizeBytes });
    if (sizeBytes !== known) reason = 'DiskResized';
  }
  return { disks, reason };
}

/** Makes the open tables those of the list: resized, begun with zeros, removed. */
export async function fitTables(
  disk: Disk,
  options: {
    machineId: string;
    tables: Map<number, LeafTable>;
    disks: ReadonlyMap<number, JournalDisk>;
  },
): Promise<void> {
  const { machineId, tables, disks } = options;
  for (const { index, sizeBytes } of disks.values()) {
    const table = tables.get(index);
    if (sizeBytes === 0 || table?.sizeBytes === sizeBytes) continue;
    if (table !== undefined) await table.resize(sizeBytes);
    else {
      const path = tablePath(machineId, index);
      tables.set(index, await LeafTable.open({ disk, path, sizeBytes, fresh: true }));
    }
  }
  for (const [index, table] of tables)
    if (!disks.has(index)) {
      await table.close();
      tables.delete(index);
      await disk.remove(`${tablePath(machineId, index)}.leaves`);
      await disk.remove(`${tablePath(machineId, index)}.unsettled`);
    }
  await disk.syncDirectory(machineDirectory(machineId));
}

/** Without extension. */
export function tablePath(machineId: string, index: number): string {
  return `${machineDirectory(machineId)}/disk-${index}`;
}
