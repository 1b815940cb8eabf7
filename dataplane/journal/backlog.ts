/**
 * What is journaled and not in the vault, cut into segments to be. Kept in memory; a replay of the log makes it again.
 */
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary } from '../../vault/documents/machineStatus.ts';
import type { EntryPlace } from './cacheLog.ts';
import { joins, type LogRun } from './logRun.ts';

/** The records of one segment. */
export interface Cut {
  firstLsn: Lsn;
  lastLsn: Lsn;
  plainLength: number;
  barriers: BarrierSummary[];
  runs: LogRun[];
  /** When its oldest record was journaled; of a replayed one, when it was replayed. Wall clock and monotonic. */
  sinceMs: number;
  sinceMonotonicMs: number;
}

export interface BacklogEntry {
  machineId: string;
  incarnation: bigint;
  firstLsn: Lsn;
  count: number;
  payloadLength: number;
  place: EntryPlace;
  barrier: BarrierSummary | undefined;
}

export class Backlog {
  readonly #plainMax: number;
  readonly #now: () => { wallMs: number; monotonicMs: number };
  readonly #closed: Cut[] = [];
  #open: Cut | undefined;
  #bytes = 0;
  #wake = Promise.withResolvers<void>();
  /** A segment of an earlier life ends here. */
  #boundary: Lsn | undefined;

  constructor(options: {
    /** Records of a segment, bytes. */
    plainMax: number;
    now: () => { wallMs: number; monotonicMs: number };
  }) {
    this.#plainMax = options.plainMax;
    this.#now = options.now;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** When the oldest record that is not uploaded was journaled. */
  get oldestMs(): number | undefined {
    return (this.#closed[0] ?? this.#open)?.sinceMs;
  }

  /** Time of the oldest barrier behind an LSN that is not uploaded; undefined while there is none. */
  oldestBarrierMs(after: Lsn): number | undefined {
    for (const { lastLsn, barriers } of this.#closed) {
      const barrier = lastLsn > after ? barriers.find(({ lsn }) => lsn > after) : undefined;
      if (barrier !== undefined) return barrier.timeMs;
    }
    return undefined;
  }

  /** A cut must end at this LSN: a sealed segment with these records exists already. */
  endCutAt(lsn: Lsn): void {
    this.#boundary = lsn;
  }

  /** Entries come in LSN order. A cut ends at a barrier, or before it would grow too long. */
  add(entry: BacklogEntry): void {
    if (this.#open !== undefined && this.#open.plainLength + entry.payloadLength > this.#plainMax)
      this.closeOpen();
    const lastLsn = entry.firstLsn + BigInt(entry.count) - 1n;
    const cut = this.#openCut(entry.firstLsn);
    cut.lastLsn = lastLsn;
    cut.plainLength += entry.payloadLength;
    this.#bytes += entry.payloadLength;
    addPlace(cut.runs, entry, lastLsn);
    if (entry.barrier !== undefined) cut.barriers.push(entry.barrier);
    if (entry.barrier !== undefined || lastLsn === this.#boundary) this.closeOpen();
    this.#notify();
  }

  /** The cut that begins at an LSN, once it is complete. */
  closedAt(firstLsn: Lsn): Cut | undefined {
    return this.#closed.find((cut) => cut.firstLsn === firstLsn);
  }

  /** Since when (monotonic) the open cut waits; undefined when there is none. */
  get openSinceMs(): number | undefined {
    return this.#open?.sinceMonotonicMs;
  }

  /** Bytes of the open cut. */
  get openBytes(): number {
    return this.#open?.plainLength ?? 0;
  }

  closeOpen(): void {
    if (this.#open === undefined) return;
    this.#closed.push(this.#open);
    this.#open = undefined;
    this.#notify();
  }

  /** Cuts up to an LSN are in the vault. */
  removeThrough(lsn: Lsn): void {
    while (this.#closed[0] !== undefined && this.#closed[0].lastLsn <= lsn) {
      this.#bytes -= this.#closed[0].plainLength;
      this.#closed.shift();
    }
  }

  /** Resolves at the next change. */
  changed(): Promise<void> {
    return this.#wake.promise;
  }

  #openCut(firstLsn: Lsn): Cut {
    if (this.#open === undefined) {
      const { wallMs, monotonicMs } = this.#now();
      this.#open = {
        firstLsn,
        lastLsn: firstLsn - 1n,
        plainLength: 0,
        barriers: [],
        runs: [],
        sinceMs: wallMs,
        sinceMonotonicMs: monotonicMs,
      };
    }
    return this.#open;
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

function addPlace(runs: LogRun[], entry: BacklogEntry, lastLsn: Lsn): void {
  const run = runs.at(-1);
  if (run !== undefined && joins(run, entry)) {
    run.lastLsn = lastLsn;
    run.place = { ...run.place, end: entry.place.end };
    return;
  }
  const { machineId, incarnation, firstLsn, place } = entry;
  runs.push({ machineId, incarnation, firstLsn, lastLsn, place });
}
