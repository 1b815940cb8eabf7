import type { EntryHeader } from './cacheEntry.ts';
import type { EntryPlace } from './cacheLog.ts';

/** A run of one machine's entries with consecutive LSNs, in one file, possibly with others' entries between them. */
export interface LogRun {
  machineId: string;
  incarnation: bigint;
  firstLsn: bigint;
  lastLsn: bigint;
  place: EntryPlace;
}

/** Entries of a machine lie in runs; a run may span others' small entries, so that an index stays small. */
export class RunIndex {
  /** Others' bytes between two entries that are cheaper to read over than to remember. */
  static readonly gapMax = 256 << 10;
  /** A run shorter than this takes the next entry wherever in the file it is: so there are at most 64 runs a machine and file. */
  static readonly spanMin = 4 << 20;
  readonly #runs: LogRun[];
  readonly #file: number;
  readonly #latest = new Map<string, LogRun>();

  constructor(file: number, runs: LogRun[]) {
    this.#file = file;
    this.#runs = runs;
  }

  /** What follows lies behind bytes that can't be read: no run may span them. */
  breakRuns(): void {
    this.#latest.clear();
  }

  add(entry: EntryHeader, place: EntryPlace): void {
    const key = `${entry.machineId}/${entry.incarnation}`;
    const lastLsn = entry.firstLsn + BigInt(entry.count) - 1n;
    const run = this.#latest.get(key);
    if (run !== undefined && joins(run, { firstLsn: entry.firstLsn, place })) {
      run.lastLsn = lastLsn;
      run.place = { ...run.place, end: place.end };
      return;
    }
    const { machineId, incarnation, firstLsn } = entry;
    const begun: LogRun = {
      machineId,
      incarnation,
      firstLsn,
      lastLsn,
      place: { ...place, file: this.#file },
    };
    this.#latest.set(key, begun);
    this.#runs.push(begun);
  }
}

/** Whether an entry goes on a run: next LSN, same file, and near enough. */
export function joins(run: LogRun, next: { firstLsn: bigint; place: EntryPlace }): boolean {
  if (run.place.file !== next.place.file || run.lastLsn + 1n !== next.firstLsn) return false;
  const gap = next.place.offset - run.place.end;
  const span = run.place.end - run.place.offset;
  return gap <= RunIndex.gapMax || span < RunIndex.spanMin;
}
