import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { type Barrier, type JournalRecord, RecordKind } from './record.ts';
import { PendingDisk } from './replicaWrites.ts';

type Position = ReplicaState['applied'];
type MakingPoint = NonNullable<ReplicaState['makingPoint']>;

/** Records that are applied together: from where the replica stands to `position`. Holds views into their segments. */
export class ReplicaRound {
  /** By index of the disk. */
  readonly pending = new Map<number, PendingDisk>();
  position: Position;
  resyncing: boolean;
  /** A resync was under way somewhere in this round: disks may have grown. */
  sawResync: boolean;
  /** The barrier that the round ends at: its disk sizes hold from here on. */
  barrier: Barrier | undefined;
  /** The point to make when the round is written. */
  point: MakingPoint | undefined;
  /** Memory that the views keep alive. */
  bytes = 0;
  #usesSegment = false;

  constructor(state: ReplicaState) {
    this.position = state.applied;
    this.resyncing = state.resyncing;
    this.sawResync = state.resyncing;
  }

  /** Any record but a barrier. */
  add(record: Exclude<JournalRecord, { kind: typeof RecordKind.Barrier }>, at: Position): void {
    this.position = at;
    if (record.kind === RecordKind.ResyncBegin) {
      this.resyncing = true;
      this.sawResync = true;
    } else if (record.kind === RecordKind.ResyncEnd) this.resyncing = false;
    else {
      let disk = this.pending.get(record.disk);
      if (disk === undefined) {
        disk = new PendingDisk();
        this.pending.set(record.disk, disk);
      }
      disk.add(record);
      this.#usesSegment = true;
    }
  }

  advance(to: Position): void {
    this.position = to;
  }

  endAtBarrier(barrier: Barrier): void {
    this.barrier = barrier;
  }

  makePoint(options: { barrier: Barrier; writerEpoch: number }): void {
    const { timeMs, consistency, disks } = options.barrier;
    this.point = { timeMs, consistency, writerEpoch: options.writerEpoch, disks };
  }

  /** A segment of so many plain bytes has been read to its end. */
  endSegment(plainLength: number): void {
    if (this.#usesSegment) this.bytes += plainLength;
    this.#usesSegment = false;
  }

  changesNothing(state: ReplicaState): boolean {
    const { lsn, seq } = state.applied;
    return this.position.lsn === lsn && this.position.seq === seq && this.pending.size === 0;
  }
}
