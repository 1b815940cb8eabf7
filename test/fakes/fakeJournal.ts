/** A JournalCache in memory for tests of the process server: keeps what was appended, uploads when told. */

import {
  type BarrierRequest,
  type Fenced,
  type JournalCache,
  type JournalDisk,
  JournalError,
  type JournalPositions,
  type MachineJournal,
  type OpenMachineOptions,
  type RecordBatch,
} from '../../dataplane/journal/machineJournal.ts';
import type { Barrier } from '../../dataplane/journal/record.ts';
import { decodeRecord, RecordKind } from '../../dataplane/journal/record.ts';
import type { ResyncReason } from '../../vault/documents/machineStatus.ts';

export class FakeJournalCache implements JournalCache {
  readonly cacheId: string;
  readonly journals = new Map<string, FakeJournal>();
  /** What openMachine throws, while set. */
  openError: Error | undefined;
  /** As limitUploads was last told. */
  uploadLimit: () => number | undefined = () => undefined;

  constructor(cacheId = 'ca'.repeat(16)) {
    this.cacheId = cacheId;
  }

  usage() {
    return { totalBytes: 1 << 30, freeBytes: 1 << 29, oldestNotUploadedMs: undefined };
  }

  machines(): string[] {
    return [...this.journals.keys()];
  }

  async openMachine(options: OpenMachineOptions): Promise<FakeJournal> {
    if (this.openError !== undefined) throw this.openError;
    const before = this.journals.get(options.machineId);
    const journal = new FakeJournal(options, before);
    this.journals.set(options.machineId, journal);
    return journal;
  }

  async dropMachine(machineId: string): Promise<void> {
    this.journals.delete(machineId);
  }

  limitUploads(bytesPerSecond: () => number | undefined): void {
    this.uploadLimit = bytesPerSecond;
  }

  onFailed(): void {}

  async close(): Promise<void> {}
}

export class FakeJournal implements MachineJournal {
  readonly machineId: string;
  readonly writerEpoch: number;
  readonly dataKey: Uint8Array;
  readonly batches: RecordBatch[] = [];
  readonly barriers: Barrier[] = [];
  closed = false;
  /** Appends wait for this when set: a full cache. */
  full: Promise<void> | undefined;
  appendError: Error | undefined;
  #disks: JournalDisk[];
  #positions: JournalPositions = {
    journaledLsn: 0n,
    uploadedLsn: 0n,
    lastBarrierLsn: 0n,
    uploadedBarrier: undefined,
    uploadedAppBarrier: undefined,
  };
  #nextLsn = 1n;
  #resync: { required: false } | { required: true; reason: ResyncReason } = {
    required: true,
    reason: 'Initial',
  };
  #fenced: Fenced | undefined;
  #taken: { lsn: bigint; barrier: Barrier }[] = [];
  readonly #uploaded = new Set<(positions: JournalPositions) => void>();
  readonly #fencedListeners = new Set<(fenced: Fenced) => void>();
  #last: Promise<void> = Promise.resolve();

  constructor(options: OpenMachineOptions, before: FakeJournal | undefined) {
    this.machineId = options.machineId;
    this.writerEpoch = options.writerEpoch;
    this.dataKey = options.dataKey;
    this.#disks = [...options.disks];
    if (before === undefined) return;
    this.#positions = before.#positions;
    this.#nextLsn = before.#positions.journaledLsn + 1n;
    this.#resync = before.#resync;
    this.#taken = before.#taken;
    this.#disks = before.#disks;
  }

  positions(): JournalPositions {
    return this.#positions;
  }

  resync() {
    return this.#resync;
  }

  append(batch: RecordBatch): Promise<void> {
    this.#check(batch.firstLsn);
    this.#nextLsn += BigInt(batch.count);
    const turn = this.#last.then(() => this.full);
    const done = turn.then(() => {
      if (this.appendError !== undefined) throw this.appendError;
      if (this.closed) throw new JournalError('JournalClosed', 'closed');
      this.batches.push(batch);
      for (let offset = 0; offset < batch.records.length; ) {
        const { record, next } = decodeRecord(batch.records, offset);
        if (record.kind === RecordKind.ResyncBegin)
          this.#resync = { required: true, reason: record.reason as ResyncReason };
        if (record.kind === RecordKind.ResyncEnd) this.#resync = { required: false };
        offset = next;
      }
      this.#positions = {
        ...this.#positions,
        journaledLsn: batch.firstLsn + BigInt(batch.count) - 1n,
      };
    });
    this.#last = done.catch(() => undefined);
    return done;
  }

  async barrier(request: BarrierRequest): Promise<Barrier> {
    this.#check(request.lsn);
    this.#nextLsn += 1n;
    await this.#last;
    if (this.#resync.required) throw new JournalError('ResyncRequired', 'a resync is required');
    const barrier: Barrier = {
      timeMs: request.timeMs,
      consistency: request.consistency,
      disks: request.disks.map((disk) => ({ ...disk, root: '00'.repeat(32) })),
      freezeMs: request.freezeMs,
      ...(request.final === undefined ? {} : { final: request.final }),
    };
    this.barriers.push(barrier);
    this.#taken.push({ lsn: request.lsn, barrier });
    this.#positions = {
      ...this.#positions,
      journaledLsn: request.lsn,
      lastBarrierLsn: request.lsn,
    };
    return barrier;
  }

  async ask(question: { hashes: Uint8Array }): Promise<Uint8Array> {
    await this.#last;
    return new Uint8Array(question.hashes.length / 32).fill(2);
  }

  async setDisks(disks: readonly JournalDisk[]): Promise<void> {
    this.#disks = [...disks];
  }

  disks(): readonly JournalDisk[] {
    return this.#disks;
  }

  async requireResync(reason: ResyncReason): Promise<void> {
    this.#resync = { required: true, reason };
  }

  backlogBytes(): number {
    return Number(this.#positions.journaledLsn - this.#positions.uploadedLsn) * 1000;
  }

  waitingForSpace(): boolean {
    return this.full !== undefined;
  }

  onUploaded(callback: (positions: JournalPositions) => void): () => void {
    this.#uploaded.add(callback);
    return () => this.#uploaded.delete(callback);
  }

  onFenced(callback: (fenced: Fenced) => void): () => void {
    this.#fencedListeners.add(callback);
    return () => this.#fencedListeners.delete(callback);
  }

  fenced(): Fenced | undefined {
    return this.#fenced;
  }

  uploadError() {
    return undefined;
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  async drop(): Promise<void> {
    this.closed = true;
  }

  /** What is journaled becomes durable in the vault. */
  upload(): void {
    const newest = this.#taken.at(-1);
    const { journaledLsn } = this.#positions;
    this.#positions = {
      ...this.#positions,
      uploadedLsn: journaledLsn,
      uploadedBarrier:
        newest === undefined
          ? undefined
          : {
              lsn: newest.lsn,
              timeMs: newest.barrier.timeMs,
              consistency: newest.barrier.consistency,
            },
    };
    for (const callback of this.#uploaded) callback(this.#positions);
  }

  fence(fenced: Fenced): void {
    this.#fenced = fenced;
    for (const callback of this.#fencedListeners) callback(fenced);
  }

  #check(lsn: bigint): void {
    if (this.closed) throw new JournalError('JournalClosed', 'closed');
    if (this.#fenced !== undefined) throw new JournalError('JournalFenced', 'fenced');
    if (lsn !== this.#nextLsn)
      throw new JournalError('LsnGap', `LSN ${lsn} does not follow ${this.#nextLsn - 1n}`);
  }
}
