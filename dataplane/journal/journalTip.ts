/** Where a journal stands: its last LSN, the machine's disks, and whether a resync is required. */
import type { Lsn } from '../../vault/documents/fields.ts';
import { type ResyncReason, resyncReasonSchema } from '../../vault/documents/machineStatus.ts';
import { mergeDisks } from './journalDisks.ts';
import { maxLsn } from './lsn.ts';
import type { JournalDisk } from './machineJournal.ts';
import type { MachineState, ResyncState } from './machineState.ts';
import { type JournalRecord, RecordKind } from './record.ts';

export class JournalTip {
  lsn: Lsn;
  #disks: ReadonlyMap<number, JournalDisk>;
  #resync: ResyncState;

  private constructor(at: Pick<JournalTip, 'lsn' | 'disks' | 'resync'>) {
    this.lsn = at.lsn;
    this.#disks = at.disks;
    this.#resync = at.resync;
  }

  /** As the state says; a replay of the log goes on from there. */
  static of({ table, uploaded, disks }: MachineState): JournalTip {
    return new JournalTip({
      lsn: maxLsn(table.lsn, uploaded.lsn),
      disks: new Map(disks.map((disk) => [disk.index, disk])),
      resync: table.resync,
    });
  }

  /** By index. */
  get disks(): ReadonlyMap<number, JournalDisk> {
    return this.#disks;
  }

  get resync(): ResyncState {
    return this.#resync;
  }

  copy(): JournalTip {
    return new JournalTip(this);
  }

  /** The begin of a resync requires it, its end no more. */
  pass(record: JournalRecord, lsn: Lsn): void {
    if (record.kind === RecordKind.ResyncBegin) {
      const reason = resyncReasonSchema.safeParse(record.reason);
      this.#resync = {
        required: true,
        reason: reason.success ? reason.data : 'Manual',
        beginLsn: lsn,
      };
    } else if (record.kind === RecordKind.ResyncEnd) this.#resync = { required: false };
  }

  /** A disk that is new, or has another size, requires a resync. */
  changeDisks(disks: readonly JournalDisk[]): void {
    const { reason, disks: merged } = mergeDisks(this.#disks, disks);
    this.#disks = merged;
    if (reason !== undefined && !this.#resync.required) this.#resync = { required: true, reason };
  }

  /** What an unfinished resync sent does not count any more. */
  requireResync(reason: ResyncReason): void {
    this.#resync = { required: true, reason };
  }
}
