/**
 * A process server's cache directory:
 *
 *   cache.json                        who this cache is
 *   log/<number>.log                  records of all machines, in the order in which they became durable
 *   machines/<machineId>/state.json   how far a machine is uploaded, how far its tables are synced
 *   machines/<machineId>/disk-<n>.leaves, .unsettled
 *   machines/<machineId>/<seq>-<digest>.seg   segments on their way to the vault
 *
 * Opening it recovers it. A machine's journal goes on exactly where it was, at whatever instruction the process died; what the cache
 * can't vouch for is taken from the vault instead (openJournal.ts).
 */
import { z } from 'zod';
import { replaceFile } from '../../platform/durableFile.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type {
  Clock,
  Disk,
  Logger,
  ObjectStore,
  PageBlobStore,
  Random,
} from '../../platform/ports.ts';
import { CacheLog, LOG_DIRECTORY } from './cacheLog.ts';
import { type RecoveredLog, recoverLog } from './cacheRecovery.ts';
import { HashPages } from './leafTable.ts';
import type { LocalJournal, LocalJournalDeps } from './localJournal.ts';
import { joins, type LogRun } from './logRun.ts';
import {
  type CacheUsage,
  type JournalCache,
  JournalError,
  type MachineJournal,
  type OpenMachineOptions,
} from './machineJournal.ts';
import { MACHINES_DIRECTORY, machineDirectory, readSmallFile } from './machineState.ts';
import { openJournal } from './openJournal.ts';
import { SEGMENT_PLAIN_MAX } from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { SpaceGate } from './spaceGate.ts';
import { Uplink } from './uplink.ts';

export interface CacheLimits {
  /** A log file is closed at this size. */
  logFileBytes: number;
  /** Records in a segment, bytes. */
  segmentBytes: number;
  /** A segment is sealed at the latest so long after its oldest record, also when no barrier comes. */
  sealAfterMs: number;
  /** While nothing is on its way to the vault, records are sealed from so many bytes on: a link that could be used is not left idle. */
  sealEarlyBytes: number;
  /** Appends wait while the disk has less than this left. */
  minFreeBytes: number;
  /** Appends wait while the log is larger than this. */
  maxBytes: number;
}

export const DEFAULT_CACHE_LIMITS: CacheLimits = {
  logFileBytes: 256 << 20,
  segmentBytes: SEGMENT_PLAIN_MAX,
  sealAfterMs: 10_000,
  sealEarlyBytes: 16 << 20,
  minFreeBytes: 256 << 20,
  maxBytes: Number.MAX_SAFE_INTEGER,
};

export interface CacheDeps {
  disk: Disk;
  objects: ObjectStore;
  pages: PageBlobStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  codec: SegmentCodec;
  limits?: Partial<CacheLimits>;
}

const CACHE_FILE = 'cache.json';
const cacheFileSchema = z.object({
  version: z.literal(1),
  cacheId: z.string().regex(/^[0-9a-f]{32}$/),
});

export class Cache implements JournalCache {
  readonly cacheId: string;
  readonly #deps: CacheDeps;
  readonly #limits: CacheLimits;
  readonly #log: CacheLog;
  readonly #gate: SpaceGate;
  readonly #uplink: Uplink;
  readonly #hashPages = new HashPages();
  readonly #holes: RecoveredLog['holes'];
  /** What the log holds of each machine, in log order. */
  readonly #runs = new Map<string, LogRun[]>();
  /** Machines with a directory here. */
  readonly #known: Set<string>;
  /** Undefined while it is being opened. */
  readonly #journals = new Map<string, LocalJournal | undefined>();
  #trimming: Promise<void> | undefined;
  #trimAgain = false;
  #failure: JournalError | undefined;
  #onFailed: ((error: Error) => void) | undefined;

  private constructor(
    deps: CacheDeps,
    found: { cacheId: string; recovered: RecoveredLog; machines: string[] },
  ) {
    this.#deps = deps;
    this.#limits = { ...DEFAULT_CACHE_LIMITS, ...deps.limits };
    this.cacheId = found.cacheId;
    this.#holes = found.recovered.holes;
    this.#known = new Set(found.machines);
    for (const run of found.recovered.runs) this.#runsOf(run.machineId).push(run);
    this.#log = new CacheLog({
      disk: deps.disk,
      cacheId: found.cacheId,
      fileBytes: this.#limits.logFileBytes,
      ...found.recovered,
      onFailed: (error) => this.#fail(error),
    });
    this.#uplink = new Uplink({ clock: deps.clock });
    this.#gate = new SpaceGate({
      disk: deps.disk,
      clock: deps.clock,
      limits: this.#limits,
      usedBytes: () => this.#log.totalBytes(),
    });
  }

  /** Recovers what is there. Throws JournalError (CacheUnreadable) for a directory that is not a cache of ours. */
  static async open(deps: CacheDeps): Promise<Cache> {
    const { disk, logger } = deps;
    const cacheId = await identify(deps);
    await disk.makeDirectory(LOG_DIRECTORY);
    await disk.makeDirectory(MACHINES_DIRECTORY);
    await disk.syncDirectory('.');
    const recovered = await recoverLog(disk, { cacheId, logger });
    const machines = (await disk.list(MACHINES_DIRECTORY)).filter((name) =>
      /^[0-9a-f]{32}$/.test(name),
    );
    const cache = new Cache(deps, { cacheId, recovered, machines });
    await cache.#gate.measure();
    return cache;
  }

  machines(): string[] {
    return [...new Set([...this.#known, ...this.#journals.keys()])];
  }

  usage(): CacheUsage {
    let oldest: number | undefined;
    for (const journal of this.#journals.values()) {
      const since = journal?.oldestNotUploadedMs();
      if (since !== undefined && (oldest === undefined || since < oldest)) oldest = since;
    }
    // The next caller sees what the disk says now.
    this.#gate.measure().catch((error: unknown) => this.#fail(asError(error)));
    return { ...this.#gate.space, oldestNotUploadedMs: oldest };
  }

  limitUploads(bytesPerSecond: () => number | undefined): void {
    this.#uplink.limitTo(bytesPerSecond);
  }

  onFailed(callback: (error: Error) => void): void {
    this.#onFailed = callback;
    if (this.#failure !== undefined) callback(this.#failure);
  }

  async openMachine(options: OpenMachineOptions): Promise<MachineJournal> {
    const { machineId } = options;
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#journals.has(machineId))
      throw new JournalError('JournalOpen', `The journal of machine ${machineId} is open already.`);
    this.#journals.set(machineId, undefined);
    try {
      const journal = await openJournal(
        {
          ...this.#deps,
          ...this.#limits,
          ...this.#journalDeps(machineId),
          holes: this.#holes,
          runsOf: (id) => this.#runsOf(id),
        },
        options,
      );
      this.#journals.set(machineId, journal);
      this.#known.add(machineId);
      this.#requestTrim();
      return journal;
    } catch (error) {
      this.#journals.delete(machineId);
      throw error;
    }
  }

  async dropMachine(machineId: string): Promise<void> {
    if (this.#journals.has(machineId))
      throw new JournalError('JournalOpen', `The journal of machine ${machineId} is open.`);
    await this.#removeMachine(machineId);
    this.#requestTrim();
  }

  async close(): Promise<void> {
    for (const journal of [...this.#journals.values()]) await journal?.close();
    await this.#trimming;
    await this.#log.close();
  }

  #journalDeps(machineId: string): LocalJournalDeps {
    const { disk, objects, codec, clock, random, logger } = this.#deps;
    return {
      ...{ disk, objects, codec, clock, random, logger },
      log: this.#log,
      uplink: this.#uplink,
      hashPages: this.#hashPages,
      waitForSpace: (signal) =>
        this.#gate.wait(
          signal,
          () => this.#hasMost(machineId),
          () => this.#makeRoom(),
        ),
      onFailed: (error) => this.#fail(error),
      onJournaled: (run) => this.#remember(run),
      onSettled: () => this.#requestTrim(),
      onClosed: async ({ drop }) => {
        this.#journals.delete(machineId);
        if (drop) await this.#removeMachine(machineId);
        this.#requestTrim();
      },
    };
  }

  #runsOf(machineId: string): LogRun[] {
    let runs = this.#runs.get(machineId);
    if (runs === undefined) {
      runs = [];
      this.#runs.set(machineId, runs);
    }
    return runs;
  }

  #remember(run: LogRun): void {
    this.#gate.taken(run.place.end - run.place.offset);
    const runs = this.#runsOf(run.machineId);
    const last = runs.at(-1);
    if (last?.incarnation === run.incarnation && joins(last, run)) {
      last.lastLsn = run.lastLsn;
      last.place = { ...last.place, end: run.place.end };
    } else runs.push(run);
  }

  /** State last: with it gone the rest means nothing, and a crash in between leaves something to drop again. */
  async #removeMachine(machineId: string): Promise<void> {
    const { disk } = this.#deps;
    const directory = machineDirectory(machineId);
    await disk.remove(`${directory}/state.json`);
    await disk.syncDirectory(directory).catch(ignoreMissing);
    for (const name of await disk.list(directory)) await disk.remove(`${directory}/${name}`);
    await disk.syncDirectory(directory).catch(ignoreMissing);
    this.#known.delete(machineId);
    this.#runs.delete(machineId);
  }

  // ----------------------------------------------------------------------------------------------------------------- space

  #requestTrim(): void {
    this.#trimAgain = true;
    this.#trimming ??= this.#trim()
      .catch((error: unknown) => this.#fail(asError(error)))
      .finally(() => {
        this.#trimming = undefined;
      });
  }

  /** Removes log files, oldest first, that neither upload nor tables need any more. */
  async #trim(): Promise<void> {
    while (this.#trimAgain && this.#failure === undefined) {
      this.#trimAgain = false;
      for (;;) {
        const oldest = this.#log.numbers()[0];
        if (oldest === undefined || oldest === this.#log.newestNumber) break;
        if (!(await this.#settle(oldest))) break;
        await this.#log.removeOldest(oldest);
        this.#forget(oldest);
        this.#gate.release();
      }
    }
  }

  /** Whether nobody needs a file any more; tables that only lack a sync are synced. */
  async #settle(file: number): Promise<boolean> {
    for (const [machineId, runs] of this.#runs) {
      const inFile = runs.filter(({ place }) => place.file === file);
      if (inFile.length === 0) continue;
      const journal = this.#journals.get(machineId);
      // Not opened yet, or closed: its state may still need what is here.
      if (journal === undefined) {
        if (this.#known.has(machineId)) return false;
        continue;
      }
      const lastLsn = inFile.findLast(
        ({ incarnation }) => incarnation === journal.incarnation,
      )?.lastLsn;
      if (lastLsn === undefined || journal.settledLsn() >= lastLsn) continue;
      if (journal.positions().uploadedLsn < lastLsn) return false;
      await journal.checkpoint();
      if (journal.settledLsn() < lastLsn) return false;
    }
    return true;
  }

  /** Whether a machine holds more than an equal part of what all that have something here hold; alone, it may have all. */
  #hasMost(machineId: string): boolean {
    let sum = 0;
    let count = 0;
    for (const journal of this.#journals.values()) {
      const bytes = journal?.backlogBytes() ?? 0;
      sum += bytes;
      if (bytes > 0) count += 1;
    }
    const own = this.#journals.get(machineId)?.backlogBytes() ?? 0;
    return count > 1 && own > sum / count;
  }

  #forget(file: number): void {
    for (const [machineId, runs] of this.#runs) {
      const left = runs.filter(({ place }) => place.file !== file);
      if (left.length === 0) this.#runs.delete(machineId);
      else if (left.length < runs.length) this.#runs.set(machineId, left);
    }
  }

  /** The file being written can't be removed; when it is all that is left, a new one is begun. */
  #makeRoom(): void {
    const [oldest] = this.#log.numbers();
    if (oldest === undefined || oldest !== this.#log.newestNumber) return;
    this.#settle(oldest)
      .then(async (settled) => {
        if (!settled) return;
        await this.#log.beginFile();
        this.#requestTrim();
      })
      .catch((error: unknown) => this.#fail(asError(error)));
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure =
      error instanceof JournalError && error.code === 'CacheFailed'
        ? error
        : new JournalError(
            'CacheFailed',
            `The cache's disk failed (${errorMessage(error)}): nothing is acknowledged any more. The process server must start again and recover its cache.`,
            { cause: error },
          );
    this.#deps.logger.error({ code: errorCode(error) }, this.#failure.message);
    for (const journal of this.#journals.values()) journal?.stop(this.#failure);
    this.#onFailed?.(this.#failure);
  }
}

/** The cache's id, made on the first open. */
async function identify(deps: CacheDeps): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readSmallFile(deps.disk, CACHE_FILE);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
    const cacheId = Buffer.from(deps.random.bytes(16)).toString('hex');
    const text = JSON.stringify({ version: 1, cacheId });
    await replaceFile(deps.disk, CACHE_FILE, new TextEncoder().encode(text));
    return cacheId;
  }
  try {
    return cacheFileSchema.parse(JSON.parse(new TextDecoder().decode(bytes))).cacheId;
  } catch (cause) {
    throw new JournalError(
      'CacheUnreadable',
      'cache.json on the cache volume is damaged or of a newer version. Run the version that wrote it, or empty the volume; agents send again what is not in the vault.',
      { cause },
    );
  }
}

function ignoreMissing(error: unknown): void {
  if (errorCode(error) !== 'ENOENT') throw error;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
