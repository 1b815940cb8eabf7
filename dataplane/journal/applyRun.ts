import type { Lsn } from '../../vault/documents/fields.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import type { JournalBacklog, JournalSegment } from './replicaJournal.ts';

/** An LSN inclusive, or everything that is in the journal now. */
export type ApplyTarget = { lsn: Lsn } | 'end';

export interface ApplyProgress {
  lsn: Lsn;
  /** Journal bytes of this call: applied, and in all (the end of the journal, when the target is an LSN). */
  bytesDone: number;
  bytesTotal: number;
  bytesPerSecond: number;
}

export interface ApplyOptions {
  makePoints: boolean;
  onProgress?: (progress: ApplyProgress) => void;
  /** Called for each point once it may be offered. */
  onPoint?: (point: PointDocument) => void;
  /** Stops after so many segments, with `more` in the result, so that others get a turn. */
  maxSegments?: number;
  /** Ends between two rounds; what was applied by then stays. */
  signal?: AbortSignal;
}

export interface ApplyResult {
  appliedLsn: Lsn;
  /** It stopped at `maxSegments`. */
  more: boolean;
  /** Of the journal's last segment read, when a failover sealed it. */
  sealedBy: string | undefined;
  /** Newest point made by this call. */
  point: PointDocument | undefined;
  /** The last barrier that became no point, because the leaf hashes of these disks do not give its root. */
  refused: { lsn: Lsn; disks: string[] } | undefined;
}

/** One call of `applyTo`: its target, how far it is, and what it has to show. */
export class ApplyRun {
  readonly target: Lsn | undefined;
  readonly options: ApplyOptions;
  /** No barrier is passed over, however far behind the replica is. */
  everyBarrier = false;
  /** Newest point made. */
  point: PointDocument | undefined;
  refused: ApplyResult['refused'];
  #sealedBy: string | undefined;
  #backlog: JournalBacklog = { lastSeq: -1, bytes: 0, sizes: new Map() };
  #startedAt = 0;
  #bytesDone = 0;
  #segments = 0;

  constructor(target: ApplyTarget, options: ApplyOptions) {
    this.target = target === 'end' ? undefined : target.lsn;
    this.options = options;
  }

  /** `now` is monotonic, as in `report`. */
  begin(options: { backlog: JournalBacklog; now: number }): void {
    this.#backlog = options.backlog;
    this.#startedAt = options.now;
  }

  reached(lsn: Lsn): boolean {
    return this.target !== undefined && lsn >= this.target;
  }

  /** Segments known to follow this one. */
  segmentsAfter(seq: number): number {
    return Math.max(0, this.#backlog.lastSeq - seq);
  }

  /** Its share of segments is used up. */
  stopsHere(): boolean {
    return this.options.maxSegments !== undefined && this.#segments >= this.options.maxSegments;
  }

  passed(segment: JournalSegment): void {
    this.#segments += 1;
    this.#bytesDone += this.#backlog.sizes.get(segment.seq) ?? 0;
    this.#sealedBy = segment.header.failover;
  }

  report(lsn: Lsn, now: number): void {
    const seconds = (now - this.#startedAt) / 1000;
    this.options.onProgress?.({
      lsn,
      bytesDone: this.#bytesDone,
      bytesTotal: this.#backlog.bytes,
      bytesPerSecond: seconds > 0 ? Math.round(this.#bytesDone / seconds) : 0,
    });
  }

  result(appliedLsn: Lsn): ApplyResult {
    return {
      appliedLsn,
      more: this.stopsHere(),
      sealedBy: this.#sealedBy,
      point: this.point,
      refused: this.refused,
    };
  }
}
