/**
 * What becomes of the cache's log files after a crash. The decision is data: one table, of whose rows exactly one matches any state in
 * which a file can be found (the test enumerates them all).
 */
import { crc32 } from 'node:zlib';
import type { Disk, DiskFile, Logger } from '../../platform/ports.ts';
import {
  decodeEntryHeader,
  decodeLogHeader,
  ENTRY_ALIGNMENT,
  ENTRY_HEADER_SIZE,
  type EntryHeader,
  entrySize,
  LOG_HEADER_SIZE,
} from './cacheEntry.ts';
import { FileWindow, LOG_DIRECTORY, logFileName, logNumberOf } from './cacheLog.ts';
import { type LogRun, RunIndex } from './logRun.ts';
import { JournalError } from './machineJournal.ts';

/** How one log file was found. */
export interface LogFileState {
  found: 'yes' | 'no';
  header: 'whole' | 'cut' | 'damaged' | 'foreign' | 'newer';
  /** Whether anything follows the header. */
  body: 'none' | 'some';
  /**
   * clean: whole entries to the end. torn: bytes at the end that are no entry and that nothing proves to have been synced.
   * damaged: bytes that were synced (a later entry or the next file's header says so) are not what was written, or missing.
   */
  end: 'clean' | 'torn' | 'damaged';
  /** The last file is the only one that was being written when the process died. */
  position: 'last' | 'earlier';
}

export type RecoveryAction =
  /** As it is. */
  | 'keep'
  /** Copy what follows the last whole entry to `.broken`, then cut it off. */
  | 'truncate'
  /** It never held anything. */
  | 'remove'
  /** Acknowledged bytes are lost: machines that can't be proven untouched begin again from the vault, with a resync. */
  | 'distrust'
  /** Not ours, or not for this build: nothing is touched and the cache does not open. */
  | 'refuse';

export interface RecoveryRow {
  label: string;
  explanation: string;
  matches: (state: LogFileState) => boolean;
  action: RecoveryAction;
}

const broken = (state: LogFileState) => state.header === 'cut' || state.header === 'damaged';

export const recoveryTable: readonly RecoveryRow[] = [
  {
    label: 'file missing',
    explanation: 'Files are removed oldest first, so a number missing between others was lost.',
    matches: (state) => state.found === 'no',
    action: 'distrust',
  },
  {
    label: 'of another cache',
    explanation: 'Its header is sound and names another cache: a volume was mixed up.',
    matches: (state) => state.found === 'yes' && state.header === 'foreign',
    action: 'refuse',
  },
  {
    label: 'of a newer build',
    explanation: 'Its header is sound and of a version that this build does not know.',
    matches: (state) => state.found === 'yes' && state.header === 'newer',
    action: 'refuse',
  },
  {
    label: 'died while beginning the file',
    explanation:
      'A header is synced before the first entry, so a broken one with nothing behind it never counted.',
    matches: (state) =>
      state.found === 'yes' && broken(state) && state.position === 'last' && state.body === 'none',
    action: 'remove',
  },
  {
    label: 'header lost',
    explanation:
      'Something was written behind the header, or a later file exists: the header had been synced.',
    matches: (state) =>
      state.found === 'yes' &&
      broken(state) &&
      !(state.position === 'last' && state.body === 'none'),
    action: 'distrust',
  },
  {
    label: 'sound',
    explanation: 'Whole entries from header to end.',
    matches: (state) => state.found === 'yes' && state.header === 'whole' && state.end === 'clean',
    action: 'keep',
  },
  {
    label: 'died while appending',
    explanation: 'The tail was being written and nobody was told that it is durable.',
    matches: (state) =>
      state.found === 'yes' &&
      state.header === 'whole' &&
      state.end === 'torn' &&
      state.position === 'last',
    action: 'truncate',
  },
  {
    label: 'torn, with a file after it',
    explanation:
      'A file is complete and synced before the next one begins: its tail was acknowledged.',
    matches: (state) =>
      state.found === 'yes' &&
      state.header === 'whole' &&
      state.end === 'torn' &&
      state.position === 'earlier',
    action: 'distrust',
  },
  {
    label: 'damaged',
    explanation: 'Bytes that had been synced are wrong or gone.',
    matches: (state) =>
      state.found === 'yes' && state.header === 'whole' && state.end === 'damaged',
    action: 'distrust',
  },
];

export function decideRecovery(state: LogFileState): RecoveryRow {
  const rows = recoveryTable.filter((row) => row.matches(state));
  if (rows.length !== 1)
    throw new RangeError(`${rows.length} recovery rows match ${JSON.stringify(state)}`);
  return rows[0] as RecoveryRow;
}

export interface RecoveredLog {
  /** Number → size, after repair. */
  files: Map<number, number>;
  lastNumber: number;
  /** In log order. */
  runs: LogRun[];
  /** Places where acknowledged entries were lost; whoever has entries on both sides without a gap lost none. */
  holes: { file: number; offset: number }[];
}

/** Reads the whole log, repairs its tail, and says which entries are there, durably. Throws JournalError (CacheUnreadable). */
export async function recoverLog(
  disk: Disk,
  options: { cacheId: string; logger: Logger },
): Promise<RecoveredLog> {
  const numbers = (await disk.list(LOG_DIRECTORY))
    .map(logNumberOf)
    .filter((number) => number !== undefined)
    .sort((a, b) => a - b);
  const recovered: RecoveredLog = { files: new Map(), lastNumber: 0, runs: [], holes: [] };
  const last = numbers.at(-1) ?? 0;
  recovered.lastNumber = last;
  const scans = new Map<number, FileScan>();
  for (const number of numbers) scans.set(number, await scanFile(disk, number));
  for (let number = numbers[0] ?? 1; number <= last; number++) {
    const scan = scans.get(number);
    const state = stateOf({
      scan,
      next: scans.get(number + 1),
      isLast: number === last,
      ...options,
    });
    const row = decideRecovery(state);
    await carryOut({ row, number, scan, disk, recovered, logger: options.logger });
  }
  await makeDurable(disk, recovered);
  return recovered;
}

interface FileScan {
  header: ReturnType<typeof decodeLogHeader>;
  size: number;
  runs: LogRun[];
  /** First byte that is no entry; undefined when all is whole. */
  badAt: number | undefined;
  /** A later entry of the same file proves that `badAt` had been synced. */
  badWasDurable: boolean;
  /** End of the last whole entry. */
  end: number;
}

function stateOf(options: {
  scan: FileScan | undefined;
  next: FileScan | undefined;
  isLast: boolean;
  cacheId: string;
}): LogFileState {
  const { scan, next } = options;
  const position = options.isLast ? 'last' : 'earlier';
  if (scan === undefined)
    return { found: 'no', header: 'cut', body: 'none', end: 'clean', position };
  const { header } = scan;
  const foreign = header.state === 'whole' && header.cacheId !== options.cacheId;
  const promised = next?.header.state === 'whole' ? next.header.previousSize : 0;
  const cutShort = scan.badAt === undefined && scan.size < promised;
  const lost = cutShort || scan.badWasDurable || (scan.badAt ?? Infinity) < promised;
  return {
    found: 'yes',
    header: foreign ? 'foreign' : header.state,
    body: scan.size > LOG_HEADER_SIZE ? 'some' : 'none',
    end: lost ? 'damaged' : scan.badAt === undefined ? 'clean' : 'torn',
    position,
  };
}

async function carryOut(options: {
  row: RecoveryRow;
  number: number;
  scan: FileScan | undefined;
  disk: Disk;
  recovered: RecoveredLog;
  logger: Logger;
}): Promise<void> {
  const { row, number, scan, disk, recovered, logger } = options;
  const fields = { file: logFileName(number), found: row.label, action: row.action };
  if (row.action === 'keep') logger.debug(fields, row.explanation);
  else if (row.action === 'distrust') logger.error(fields, row.explanation);
  else logger.warn(fields, row.explanation);
  switch (row.action) {
    case 'refuse':
      throw new JournalError(
        'CacheUnreadable',
        `Cache file ${logFileName(number)} can't be used (${row.label}): ${row.explanation} Give this process server its own volume, or empty this one; agents send again what is not in the vault.`,
      );
    case 'remove':
      await disk.remove(logFileName(number));
      await disk.syncDirectory(LOG_DIRECTORY);
      // The number is free again: nothing of this file was ever acknowledged.
      recovered.lastNumber = number - 1;
      return;
    case 'truncate':
      await truncateTail(disk, number, scan as FileScan);
      recovered.files.set(number, (scan as FileScan).badAt as number);
      recovered.runs.push(
        ...(scan as FileScan).runs.filter(
          (run) => run.place.offset < ((scan as FileScan).badAt as number),
        ),
      );
      return;
    case 'distrust':
      recovered.holes.push({ file: number, offset: scan?.badAt ?? scan?.end ?? 0 });
      break;
    case 'keep':
      break;
  }
  if (scan !== undefined) {
    recovered.files.set(number, scan.size);
    recovered.runs.push(...scan.runs);
  }
}

/**
 * What a killed process wrote may be in the kernel's memory alone, also the name of its last file. We go on from it, so it must be there
 * when power fails. Files before the last one were synced before that was begun.
 */
async function makeDurable(disk: Disk, recovered: RecoveredLog): Promise<void> {
  const last = Math.max(...recovered.files.keys());
  if (!recovered.files.has(last)) return;
  const file = await disk.open(logFileName(last), 'readWrite');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.syncDirectory(LOG_DIRECTORY);
}

/** Keeps the torn bytes beside the file for whoever wants to know, then cuts; the same again after a crash in between. */
async function truncateTail(disk: Disk, number: number, scan: FileScan): Promise<void> {
  const from = scan.badAt as number;
  const file = await disk.open(logFileName(number), 'readWrite');
  try {
    const copy = await disk.open(`${logFileName(number)}.broken`, 'create');
    try {
      await copy.truncate(0);
      await copyTail(file, copy, { from, size: scan.size });
      await copy.sync();
    } finally {
      await copy.close();
    }
    await disk.syncDirectory(LOG_DIRECTORY);
    await file.truncate(from);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function copyTail(
  from: DiskFile,
  to: DiskFile,
  range: { from: number; size: number },
): Promise<void> {
  const buffer = new Uint8Array(Math.min(1 << 20, range.size - range.from));
  for (let offset = range.from; offset < range.size; offset += buffer.length) {
    const read = await from.read(buffer, offset);
    await to.write(buffer.subarray(0, read), offset - range.from);
  }
}

/** Reads every entry of a file, and past bad bytes goes on at the next whole entry. */
async function scanFile(disk: Disk, number: number): Promise<FileScan> {
  const file = await disk.open(logFileName(number), 'read');
  try {
    const size = await file.size();
    const headerBytes = new Uint8Array(Math.min(size, LOG_HEADER_SIZE));
    await file.read(headerBytes, 0);
    const scan: FileScan = {
      header: decodeLogHeader(headerBytes),
      size,
      runs: [],
      badAt: undefined,
      badWasDurable: false,
      end: LOG_HEADER_SIZE,
    };
    const window = new FileWindow(file, size);
    const index = new RunIndex(number, scan.runs);
    for (let offset = LOG_HEADER_SIZE; offset < size; ) {
      const entry = await readWholeEntry(window, offset);
      if (entry === undefined) {
        scan.badAt ??= offset;
        index.breakRuns();
        offset += ENTRY_ALIGNMENT;
        continue;
      }
      if (scan.badAt !== undefined && entry.durable > scan.badAt) scan.badWasDurable = true;
      const end = offset + entrySize(entry.payloadLength);
      index.add(entry, { file: number, offset, end });
      scan.end = Math.min(end, size);
      offset = end;
    }
    return scan;
  } finally {
    await file.close();
  }
}

async function readWholeEntry(
  window: FileWindow,
  offset: number,
): Promise<EntryHeader | undefined> {
  const headerBytes = await window.get(offset, ENTRY_HEADER_SIZE);
  const header = headerBytes && decodeEntryHeader(headerBytes, 0);
  if (header === undefined) return undefined;
  // The padding is part of the entry: a file that ends inside it was cut.
  const rest = await window.get(
    offset + ENTRY_HEADER_SIZE,
    entrySize(header.payloadLength) - ENTRY_HEADER_SIZE,
  );
  if (rest === undefined) return undefined;
  return crc32(rest.subarray(0, header.payloadLength)) === header.payloadCrc ? header : undefined;
}
