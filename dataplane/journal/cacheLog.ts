/**
 * The cache's log: one append-only sequence of files for all machines of a process server, so that one fdatasync makes the records of
 * many durable. Files are `log/<number>.log`; layout in cacheEntry.ts, what happens after a crash in cacheRecovery.ts.
 */
import { crc32 } from 'node:zlib';
import { errorMessage } from '../../platform/errors.ts';
import type { Disk, DiskFile } from '../../platform/ports.ts';
import {
  decodeEntryHeader,
  ENTRY_HEADER_SIZE,
  ENTRY_PAYLOAD_MAX,
  type EntryHeader,
  encodeEntryHeader,
  encodeLogHeader,
  entrySize,
  LOG_HEADER_SIZE,
} from './cacheEntry.ts';
import { JournalError } from './machineJournal.ts';

export const LOG_DIRECTORY = 'log';
/** Bytes written between two syncs at most, so that nobody waits for a sync of all that others sent. */
const GROUP_BYTES_MAX = 16 << 20;
/** Payloads below this are gathered into one write. */
const GATHER_BELOW = 256 << 10;
const GATHER_SIZE = 1 << 20;
const WINDOW_SIZE = 1 << 20;

export interface LogAppend {
  machineId: string;
  incarnation: bigint;
  firstLsn: bigint;
  count: number;
  /** Not to be changed before the append resolves. */
  payload: Uint8Array;
  /** CRC-32 of the payload, where it is known already. */
  payloadCrc?: number | undefined;
}

/** Where an entry lies: `offset` is that of its header. */
export interface EntryPlace {
  file: number;
  offset: number;
  /** Offset behind it, padding included. */
  end: number;
}

interface WaitingAppend {
  entry: LogAppend;
  resolve: (place: EntryPlace) => void;
  reject: (error: Error) => void;
}

export function logFileName(number: number): string {
  return `${LOG_DIRECTORY}/${String(number).padStart(12, '0')}.log`;
}

export function logNumberOf(name: string): number | undefined {
  const match = /^(\d{12})\.log$/.exec(name);
  return match?.[1] === undefined ? undefined : Number(match[1]);
}

export class CacheLog {
  readonly #disk: Disk;
  readonly #cacheId: string;
  readonly #fileBytes: number;
  #file: DiskFile | undefined;
  #number: number;
  /** End of what is written of the active file; everything before it is synced whenever no group is in work. */
  #end: number;
  #queue: WaitingAppend[] = [];
  #newFileWanted = false;
  #running: Promise<void> | undefined;
  #failure: JournalError | undefined;
  #closed = false;
  readonly #sizes = new Map<number, number>();
  /** One group is written at a time. */
  readonly #gathered = new Uint8Array(GATHER_SIZE);
  readonly #onFailed: (error: JournalError) => void;

  /** Goes on behind the files that recovery left, in a new file. */
  constructor(options: {
    disk: Disk;
    cacheId: string;
    fileBytes: number;
    /** Number → size. */
    files: ReadonlyMap<number, number>;
    /** Numbers up to this were used already. */
    lastNumber: number;
    onFailed: (error: JournalError) => void;
  }) {
    this.#disk = options.disk;
    this.#cacheId = options.cacheId;
    this.#fileBytes = options.fileBytes;
    this.#number = options.lastNumber;
    this.#sizes = new Map(options.files);
    this.#end = this.#sizes.get(options.lastNumber) ?? 0;
    this.#onFailed = options.onFailed;
  }

  /** The file that appends go to, or the next one when none was begun yet. */
  get activeNumber(): number {
    return this.#file === undefined ? this.#number + 1 : this.#number;
  }

  /** The newest file there is; it is never removed, so that numbers only go up. */
  get newestNumber(): number {
    return this.#number;
  }

  /** Begins a new file, so that the one before can be removed. */
  async beginFile(): Promise<void> {
    if (this.#failure !== undefined || this.#closed) return;
    this.#newFileWanted = true;
    this.#running ??= this.#run();
    await this.#running;
  }

  /** Numbers of the files there are, ascending. */
  numbers(): number[] {
    return [...this.#sizes.keys()].sort((a, b) => a - b);
  }

  totalBytes(): number {
    let total = 0;
    for (const size of this.#sizes.values()) total += size;
    return total;
  }

  /**
   * Resolves when the entry is durable. Entries of concurrent appends share a sync; they are in the log in order of call.
   * After a failed write or sync nothing is accepted any more (CacheFailed): what the kernel holds of the file is unknown.
   */
  append(entry: LogAppend): Promise<EntryPlace> {
    if (entry.payload.length > ENTRY_PAYLOAD_MAX)
      throw new RangeError(`log entry of ${entry.payload.length} bytes`);
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      else if (this.#closed) reject(new JournalError('JournalClosed', 'The cache is closed.'));
      else {
        this.#queue.push({ entry, resolve, reject });
        this.#running ??= this.#run();
      }
    });
  }

  /** Removes the oldest file; only ever the oldest, so that a gap in the numbers is always damage. */
  async removeOldest(number: number): Promise<void> {
    if (number !== this.numbers()[0] || number === this.#number)
      throw new RangeError(`log file ${number} is not the oldest that is full`);
    await this.#disk.remove(logFileName(number));
    await this.#disk.remove(`${logFileName(number)}.broken`);
    await this.#disk.syncDirectory(LOG_DIRECTORY);
    this.#sizes.delete(number);
  }

  /** After the appends that were asked for. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
    await this.#file?.close();
    this.#file = undefined;
  }

  async #run(): Promise<void> {
    // Lets appends of the same turn join the first group.
    await Promise.resolve();
    while (this.#queue.length > 0 || this.#newFileWanted) {
      const group = this.#takeGroup();
      try {
        if (this.#file === undefined || this.#end >= this.#fileBytes || this.#newFileWanted)
          await this.#rotate();
        this.#newFileWanted = false;
        if (group.length === 0) continue;
        const places = await this.#writeGroup(group);
        for (const [i, waiting] of group.entries()) waiting.resolve(places[i] as EntryPlace);
      } catch (cause) {
        this.#poison(cause, group);
      }
    }
    this.#running = undefined;
  }

  #takeGroup(): WaitingAppend[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#queue.length && (count === 0 || bytes < GROUP_BYTES_MAX)) {
      bytes += (this.#queue[count] as WaitingAppend).entry.payload.length;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  async #writeGroup(group: readonly WaitingAppend[]): Promise<EntryPlace[]> {
    const file = this.#file as DiskFile;
    const durable = this.#end;
    const writer = new GatheringWriter(file, { offset: this.#end, buffer: this.#gathered });
    const places: EntryPlace[] = [];
    for (const { entry } of group) {
      const offset = writer.end;
      const header: EntryHeader = {
        machineId: entry.machineId,
        incarnation: entry.incarnation,
        firstLsn: entry.firstLsn,
        count: entry.count,
        payloadLength: entry.payload.length,
        payloadCrc: entry.payloadCrc ?? crc32(entry.payload),
        durable,
      };
      await writer.put(header, entry.payload);
      places.push({ file: this.#number, offset, end: writer.end });
    }
    await writer.flush();
    await file.sync();
    this.#end = writer.end;
    this.#sizes.set(this.#number, this.#end);
    return places;
  }

  /** The old file is complete and synced; the new one counts only once its header and its name are durable. */
  async #rotate(): Promise<void> {
    const previousSize = this.#end;
    await this.#file?.close();
    this.#file = undefined;
    const number = this.#number + 1;
    const file = await this.#disk.open(logFileName(number), 'create');
    const header = { cacheId: this.#cacheId, number, previousSize };
    await file.truncate(0);
    await file.write(encodeLogHeader(header), 0);
    await file.sync();
    await this.#disk.syncDirectory(LOG_DIRECTORY);
    this.#file = file;
    this.#number = number;
    this.#end = LOG_HEADER_SIZE;
    this.#sizes.set(number, this.#end);
  }

  #poison(cause: unknown, group: readonly WaitingAppend[]): void {
    this.#newFileWanted = false;
    this.#failure = new JournalError(
      'CacheFailed',
      `The cache's disk failed (${errorMessage(cause)}): nothing is acknowledged any more. The process server must start again and recover its cache; agents keep what was not acknowledged.`,
      { cause },
    );
    for (const waiting of [...group, ...this.#queue.splice(0)]) waiting.reject(this.#failure);
    this.#onFailed(this.#failure);
  }
}

/** Small entries are copied together into few writes; large payloads are written from where they are. */
class GatheringWriter {
  readonly #file: DiskFile;
  readonly #buffer: Uint8Array;
  #filled = 0;
  #written: number;

  /** `buffer` of GATHER_SIZE is its own until the last flush. */
  constructor(file: DiskFile, options: { offset: number; buffer: Uint8Array }) {
    this.#file = file;
    this.#written = options.offset;
    this.#buffer = options.buffer;
  }

  get end(): number {
    return this.#written + this.#filled;
  }

  async put(header: EntryHeader, payload: Uint8Array): Promise<void> {
    const size = entrySize(payload.length);
    const gathered = payload.length < GATHER_BELOW;
    if (this.#filled + (gathered ? size : ENTRY_HEADER_SIZE) > GATHER_SIZE) await this.flush();
    encodeEntryHeader(this.#buffer, this.#filled, header);
    this.#filled += ENTRY_HEADER_SIZE;
    if (gathered) {
      this.#buffer.set(payload, this.#filled);
      this.#filled += payload.length;
    } else {
      await this.flush();
      await this.#file.write(payload, this.#written);
      this.#written += payload.length;
    }
    const padding = size - ENTRY_HEADER_SIZE - payload.length;
    this.#buffer.fill(0, this.#filled, this.#filled + padding);
    this.#filled += padding;
  }

  async flush(): Promise<void> {
    if (this.#filled === 0) return;
    await this.#file.write(this.#buffer.subarray(0, this.#filled), this.#written);
    this.#written += this.#filled;
    this.#filled = 0;
  }
}

/** Damage found while reading back what had been acknowledged. */
export class LogDamage extends Error {}

/**
 * The payloads of one machine's entries between two places of a file, in order; entries of others between them are skipped. A payload is
 * valid until the next is asked for. Throws LogDamage.
 */
export async function* readEntries(
  disk: Disk,
  range: EntryPlace,
  owner: { machineId: string; incarnation: bigint },
): AsyncGenerator<{ header: EntryHeader; place: EntryPlace; payload: Uint8Array }> {
  const file = await disk.open(logFileName(range.file), 'read');
  try {
    const window = new FileWindow(file, range.end - range.offset);
    for (let offset = range.offset; offset < range.end; ) {
      const headerBytes = await window.get(offset, ENTRY_HEADER_SIZE);
      const header = headerBytes && decodeEntryHeader(headerBytes, 0);
      if (header === undefined)
        throw new LogDamage(`${logFileName(range.file)} is damaged at ${offset}`);
      const end = offset + entrySize(header.payloadLength);
      if (header.machineId === owner.machineId && header.incarnation === owner.incarnation) {
        const payload = await window.get(offset + ENTRY_HEADER_SIZE, header.payloadLength);
        if (payload === undefined || crc32(payload) !== header.payloadCrc)
          throw new LogDamage(`${logFileName(range.file)} is damaged at ${offset}`);
        yield { header, place: { file: range.file, offset, end }, payload };
      }
      offset = end;
    }
  } finally {
    await file.close();
  }
}

/** Reads a file front to back with few, large reads. What `get` returns is valid until the next `get`. */
export class FileWindow {
  readonly #file: DiskFile;
  #buffer: Uint8Array;
  #start = 0;
  #length = 0;

  /** `length`: bytes that will be read of it, roughly. */
  constructor(file: DiskFile, length: number) {
    this.#file = file;
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(WINDOW_SIZE, length));
  }

  /** Undefined when the file ends before. */
  async get(offset: number, length: number): Promise<Uint8Array | undefined> {
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length);
      this.#start = offset;
      this.#length = await this.#file.read(this.#buffer, offset);
      if (length > this.#length) return undefined;
    }
    const from = offset - this.#start;
    return this.#buffer.subarray(from, from + length);
  }
}
