/** A machine's list of disks. */
import type { ResyncReason } from '../../vault/documents/machineStatus.ts';
import { type JournalDisk, JournalError } from './machineJournal.ts';
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

/** A barrier is of all disks at the sizes that are known. Throws JournalError (DiskUnknown, DiskSizeMismatch). */
export function checkBarrierDisks(
  machineId: string,
  known: ReadonlyMap<number, JournalDisk>,
  disks: readonly { index: number; sizeBytes: number }[],
): void {
  for (const { index, sizeBytes } of disks) {
    const disk = knownDisk(machineId, known, index);
    if (disk.sizeBytes !== sizeBytes)
      throw new JournalError(
        'DiskSizeMismatch',
        `The barrier says that disk ${disk.name} has ${sizeBytes} bytes; it is known with ${disk.sizeBytes}. A resync follows a change of size.`,
      );
  }
  if (new Set(disks.map(({ index }) => index)).size !== known.size)
    throw new JournalError(
      'DiskUnknown',
      `The barrier names ${disks.length} disks; machine ${machineId} has ${known.size}.`,
    );
}

/** Throws JournalError (DiskUnknown), also while nobody knows its size. */
export function knownDisk(
  machineId: string,
  known: ReadonlyMap<number, JournalDisk>,
  index: number,
): JournalDisk {
  const disk = known.get(index);
  if (disk === undefined || disk.sizeBytes === 0)
    throw new JournalError('DiskUnknown', `Machine ${machineId} has no disk ${index}.`);
  return disk;
}

/** Without extension. */
export function tablePath(machineId: string, index: number): string {
  return `${machineDirectory(machineId)}/disk-${index}`;
}
