/**
 * One machine's journal on a process server: what its interface (machineJournal.ts) promises, over log, leaf tables and upload. What
 * happens when is kept in order by entryOrder.ts.
 */
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary, ResyncReason } from '../../vault/documents/machineStatus.ts';
import type { BacklogEntry } from './backlog.ts';
import { checkBatch } from './batchCheck.ts';
import type { CacheLog } from './cacheLog.ts';
import { EntryOrder } from './entryOrder.ts';
import { checkBarrierDisks, knownDisk } from './journalDisks.ts';
import { JournalTables } from './journalTables.ts';
import { JournalTip } from './journalTip.ts';
import { JournalUpload, type JournalUploadOptions } from './journalUpload.ts';
import type { HashPages, LeafTable } from './leafTable.ts';
import type { LogRun } from './logRun.ts';
import { maxLsn, minLsn } from './lsn.ts';
import {
  type BarrierRequest,
  type Fenced,
  fencedError,
  type JournalDisk,
  JournalError,
  type JournalPositions,
  type MachineJournal,
  type RecordBatch,
} from './machineJournal.ts';
import { type MachineState, StoredState } from './machineState.ts';
import { type Barrier, encodeControlRecord, type JournalRecord, RecordKind } from './record.ts';
import type { SealedSegment } from './sealedFile.ts';
import type { UploaderDeps } from './uploader.ts';

export interface LocalJournalDeps extends UploaderDeps {
  log: CacheLog;
  hashPages: HashPages;
  /** Resolves when the cache has room, or at once when the signal aborts. */
  waitForSpace(signal: AbortSignal): Promise<void>;
  /** The local disk does not do what it must: the whole cache stops. */
  onFailed(error: Error): void;
  /** An entry of this machine lies in a log file. */
  onJournaled(run: LogRun): void;
  /** Log files may have become removable. */
  onSettled(): void;
  onClosed(options: { drop: boolean }): Promise<void>;
}

export interface LocalJournalParts extends JournalUploadOptions {
  state: MachineState;
  tables: Map<number, LeafTable>;
}

export class LocalJournal implements MachineJournal {
  readonly machineId: string;
  readonly writerEpoch: number;
  readonly #deps: LocalJournalDeps;
  readonly #stored: StoredState;
  readonly #upload: JournalUpload;
  readonly #tables: JournalTables;
  readonly #order: EntryOrder;
  /** What has taken effect. */
  readonly #applied: JournalTip;
  /** What `#applied` will be once everything that was asked for has taken effect. */
  #submitted: JournalTip;
  #lastBarrier: BarrierSummary | undefined;
  #stopped: JournalError | undefined;
  readonly #ending = new AbortController();
  #fenced: Fenced | undefined;
  readonly #uploadedListeners = new Set<(positions: JournalPositions) => void>();
  readonly #fencedListeners = new Set<(fenced: Fenced) => void>();

  constructor(deps: LocalJournalDeps, parts: LocalJournalParts) {
    const { state } = parts;
    const { machineId, incarnation } = state;
    this.#deps = deps;
    this.machineId = machineId;
    this.writerEpoch = state.writerEpoch;
    this.#stored = new StoredState(deps.disk, state);
    this.#order = new EntryOrder(
      {
        log: deps.log,
        waitForSpace: () => this.#onDisk(() => deps.waitForSpace(this.#ending.signal)),
        assertAccepting: () => this.#assertAccepting(),
        onJournaled: (run) => deps.onJournaled(run),
      },
      { machineId, incarnation },
    );
    this.#tables = new JournalTables({
      disk: deps.disk,
      machineId,
      pages: deps.hashPages,
      tables: parts.tables,
    });
    this.#applied = JournalTip.of(state);
    this.#submitted = this.#applied.copy();
    this.#lastBarrier = state.table.lastBarrier;
    this.#upload = new JournalUpload({ ...deps, stored: this.#stored }, parts, {
      reached: (lsn) => this.#tables.uploaded({ uploadedLsn: lsn, appliedLsn: this.#applied.lsn }),
      uploaded: () => this.#onUploaded(),
      fenced: (fenced) => this.#onFenced(fenced),
    });
  }

  // ------------------------------------------------------------------------------------------------------------- positions

  positions(): JournalPositions {
    const { uploaded } = this.#stored.state;
    return {
      journaledLsn: this.#applied.lsn,
      uploadedLsn: uploaded.lsn,
      lastBarrierLsn: this.#lastBarrier?.lsn ?? 0n,
      uploadedBarrier: uploaded.barrier,
      uploadedAppBarrier: uploaded.appBarrier,
    };
  }

  resync(): ReturnType<MachineJournal['resync']> {
    return this.#applied.resync;
  }

  disks(): readonly JournalDisk[] {
    return [...this.#applied.disks.values()];
  }

  backlogBytes(): number {
    return this.#upload.backlog.bytes;
  }

  oldestNotUploadedMs(): number | undefined {
    return this.#upload.backlog.oldestMs;
  }

  waitingForSpace(): boolean {
    return this.#order.waitingForSpace;
  }

  fenced(): Fenced | undefined {
    return this.#fenced;
  }

  uploadError(): { error: Error; sinceMs: number } | undefined {
    return this.#upload.error;
  }

  /** Everything up to here is both in the vault and in synced tables: the log may forget it. */
  settledLsn(): Lsn {
    const { uploaded, table } = this.#stored.state;
    return minLsn(uploaded.lsn, table.lsn);
  }

  get incarnation(): bigint {
    return this.#stored.state.incarnation;
  }

  // ---------------------------------------------------------------------------------------------------------------- writing

  async append(batch: RecordBatch): Promise<void> {
    this.#assertAccepting();
    this.#assertNext(batch.firstLsn);
    const records = checkBatch(batch, this.#applied.disks);
    const { firstLsn, count, records: payload, recordsCrc: payloadCrc } = batch;
    this.#submitted.lsn += BigInt(count);
    for (const [i, record] of records.entries()) this.#submitted.pass(record, firstLsn + BigInt(i));
    const entry = { firstLsn, count, payload, payloadCrc, barrier: undefined };
    await this.#order.append(entry, (journaled) =>
      this.#takeEffect(journaled, () => {
        for (const [i, record] of records.entries()) this.#apply(record, firstLsn + BigInt(i));
      }),
    );
  }

  async barrier(request: BarrierRequest): Promise<Barrier> {
    this.#assertAccepting();
    this.#assertNext(request.lsn);
    const { resync, disks } = this.#submitted;
    if (resync.required)
      throw new JournalError(
        'ResyncRequired',
        `No barrier at LSN ${request.lsn}: machine ${this.machineId} must resync first (${resync.reason}).`,
      );
    checkBarrierDisks(this.machineId, disks, request.disks);
    this.#submitted.lsn += 1n;
    // Holds the queue until the barrier is on its way to the log: its record must follow everything before it.
    const prepared = this.#order.submit(async () => {
      this.#assertAccepting();
      const barrier = await this.#order.operate(() => this.#makeBarrier(request));
      const { lsn, consistency } = request;
      const payload = encodeControlRecord({ kind: RecordKind.Barrier, barrier });
      const summary = { lsn, timeMs: barrier.timeMs, consistency };
      const entry = { firstLsn: lsn, count: 1, payload, barrier: summary };
      const done = this.#order.toLog(entry, (journaled) =>
        this.#takeEffect(journaled, () => this.#applyBarrier(summary)),
      );
      return { barrier, done };
    });
    const { barrier, done } = await prepared;
    await done;
    return barrier;
  }

  async ask(question: {
    disk: number;
    firstLeaf: number;
    hashes: Uint8Array;
  }): Promise<Uint8Array> {
    this.#assertAccepting();
    const disk = knownDisk(this.machineId, this.#applied.disks, question.disk);
    return await this.#order.operate(() => this.#tables.ask(disk, question));
  }

  async setDisks(disks: readonly JournalDisk[]): Promise<void> {
    this.#assertAccepting();
    this.#submitted.changeDisks(disks);
    await this.#order.operateInTurn(() => this.#changeDisks(disks));
  }

  async requireResync(reason: ResyncReason): Promise<void> {
    this.#assertAccepting();
    this.#submitted.requireResync(reason);
    await this.#order.operateInTurn(async () => {
      this.#applied.requireResync(reason);
      await this.#checkpoint();
    });
  }

  // ------------------------------------------------------------------------------------------------------------ life of it

  /** A log entry of an earlier life, in order; before `start`. */
  async replay(entry: BacklogEntry, records: readonly JournalRecord[]): Promise<void> {
    const { uploaded, table } = this.#stored.state;
    const lastLsn = entry.firstLsn + BigInt(entry.count) - 1n;
    if (lastLsn > uploaded.lsn) this.#upload.backlog.add(entry);
    if (lastLsn <= table.lsn && lastLsn <= uploaded.lsn) return;
    for (const [i, record] of records.entries()) {
      const lsn = entry.firstLsn + BigInt(i);
      if (record.kind === RecordKind.Barrier) {
        const { timeMs, consistency } = record.barrier;
        if (lsn > table.lsn) this.#applyBarrier({ lsn, timeMs, consistency });
      } else if (lsn > table.lsn) this.#apply(record, lsn);
      else this.#markPending(record, lsn);
    }
    await this.#tables.relieve();
    this.#applied.lsn = maxLsn(this.#applied.lsn, lastLsn);
  }

  /** The segment that an earlier life sealed covers the backlog up to this LSN. */
  expectSealed(lastLsn: Lsn): void {
    this.#upload.backlog.endCutAt(lastLsn);
  }

  start(waiting: SealedSegment | undefined): void {
    this.#submitted = this.#applied.copy();
    this.#upload.start(waiting);
  }

  /** Syncs the tables, so that the log before this moment is needed by the upload alone. */
  async checkpoint(): Promise<void> {
    if (this.#stopped === undefined) await this.#order.operate(() => this.#checkpoint());
  }

  onUploaded(callback: (positions: JournalPositions) => void): () => void {
    this.#uploadedListeners.add(callback);
    return () => this.#uploadedListeners.delete(callback);
  }

  onFenced(callback: (fenced: Fenced) => void): () => void {
    this.#fencedListeners.add(callback);
    return () => this.#fencedListeners.delete(callback);
  }

  async close(): Promise<void> {
    await this.#end({ drop: false });
  }

  async drop(): Promise<void> {
    await this.#end({ drop: true });
  }

  /** The cache's disk failed: no more promises. */
  stop(error: JournalError): void {
    this.#stopped ??= error;
    this.#ending.abort();
  }

  async #end(options: { drop: boolean }): Promise<void> {
    const failed = this.#stopped?.code === 'CacheFailed';
    if (this.#stopped?.code === 'JournalClosed') return;
    this.#stopped = new JournalError(
      'JournalClosed',
      `The journal of ${this.machineId} is closed.`,
    );
    this.#ending.abort();
    await this.#upload.close();
    await this.#order.settled();
    if (!failed && !options.drop) await this.#checkpoint().catch(() => {});
    await this.#stored.settled();
    await this.#tables.close();
    await this.#deps.onClosed(options);
  }

  // ---------------------------------------------------------------------------------------------------------------- effects

  /** Of a durable entry, once everything before it has taken effect. */
  async #takeEffect(entry: BacklogEntry, apply: () => void): Promise<void> {
    apply();
    this.#applied.lsn = entry.firstLsn + BigInt(entry.count) - 1n;
    this.#upload.backlog.add(entry);
    await this.#onDisk(() => this.#tables.relieve());
  }

  #apply(record: JournalRecord, lsn: Lsn): void {
    this.#applied.pass(record, lsn);
    if (record.kind === RecordKind.Data && this.#tables.apply(record))
      this.#markPending(record, lsn);
  }

  #markPending(record: JournalRecord, lsn: Lsn): void {
    if (record.kind === RecordKind.Data && lsn > this.#stored.state.uploaded.lsn)
      this.#tables.setPending(record);
  }

  #applyBarrier(barrier: BarrierSummary): void {
    this.#tables.settle();
    this.#lastBarrier = barrier;
  }

  async #makeBarrier(request: BarrierRequest): Promise<Barrier> {
    return await this.#onDisk(async () => {
      const disks = await this.#tables.roots(request.disks);
      const earliest = this.#lastBarrier === undefined ? 0 : this.#lastBarrier.timeMs + 1;
      return {
        timeMs: Math.max(Math.floor(request.timeMs), earliest),
        consistency: request.consistency,
        disks,
        freezeMs: request.freezeMs,
        ...(request.final === undefined ? {} : { final: request.final }),
      };
    });
  }

  /** The state first: whatever a crash leaves of the tables, the next open makes them fit what the state says. */
  async #changeDisks(disks: readonly JournalDisk[]): Promise<void> {
    this.#applied.changeDisks(disks);
    await this.#checkpoint();
    await this.#onDisk(() => this.#tables.fit(this.#applied.disks));
  }

  async #checkpoint(): Promise<void> {
    await this.#onDisk(async () => {
      await this.#tables.sync();
      const { lsn, resync, disks } = this.#applied;
      const table = { lsn, resync, lastBarrier: this.#lastBarrier };
      await this.#stored.change({ table, disks: [...disks.values()] });
    });
    this.#deps.onSettled();
  }

  /** A failure of the cache's disk is not this machine's alone. */
  async #onDisk<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof JournalError))
        this.#deps.onFailed(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  // ----------------------------------------------------------------------------------------------------------------- upload

  #onUploaded(): void {
    this.#deps.onSettled();
    const positions = this.positions();
    for (const listener of this.#uploadedListeners) listener(positions);
  }

  #onFenced(fenced: Fenced): void {
    this.#fenced = fenced;
    this.#stopped ??= fencedError(this.machineId, fenced);
    this.#ending.abort();
    for (const listener of this.#fencedListeners) listener(fenced);
  }

  // ----------------------------------------------------------------------------------------------------------------- checks

  #assertAccepting(): void {
    if (this.#stopped !== undefined) throw this.#stopped;
  }

  #assertNext(lsn: Lsn): void {
    const next = this.#submitted.lsn + 1n;
    if (lsn !== next)
      throw new JournalError(
        'LsnGap',
        `Machine ${this.machineId} sent LSN ${lsn}; ${next} is next. The agent must go on from what Welcome says.`,
      );
  }
}
