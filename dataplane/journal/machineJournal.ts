/**
 * What a process server sees of its cache and of each machine's journal in it. The class behind it is in cache.ts.
 *
 * A machine's records go: append → cache log (fsync) → leaf table → segment → vault. `append` and `barrier` resolve when the bytes
 * are durable on the cache's disk; `onUploaded` tells when they are durable in the vault.
 */
import { FarshoreError } from '../../platform/errors.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { BarrierSummary, ResyncReason } from '../../vault/documents/machineStatus.ts';
import type { Barrier } from './record.ts';

export interface JournalDisk {
  /** Position in every record. */
  index: number;
  name: string;
  /** 0 while the agent has not said it: nothing can be appended for the disk until `setDisks` does. */
  sizeBytes: number;
}

export interface JournalCache {
  /** 16 random bytes, hex, made with the cache directory. Another id: what was journaled and not uploaded is gone. */
  readonly cacheId: string;
  usage(): CacheUsage;
  /** Machines that have state here, opened or not. One that is not assigned any more must be dropped, or its log files stay. */
  machines(): string[];
  /**
   * Opens a machine's journal for writing as the given writer epoch. With intact state of the same epoch this touches nothing but the
   * disk; otherwise it claims the journal in the vault and rebuilds the leaf tables from there, trying for as long as the vault does
   * not answer (abort by `signal`; `onWaiting` hears of every failed try).
   * Throws JournalError: JournalFenced when a higher epoch or a seal is in the vault, JournalOpen when it is open already.
   */
  openMachine(options: OpenMachineOptions): Promise<MachineJournal>;
  /** Forgets a machine that is not open: its tables, its waiting segments; log files follow. */
  dropMachine(machineId: string): Promise<void>;
  /** From now on asked for the limit of uploads in force, in bytes per second over all machines; undefined: none. */
  limitUploads(bytesPerSecond: () => number | undefined): void;
  /** Called once when the cache's disk failed: nothing more is accepted; the process must end and open the cache again. */
  onFailed(callback: (error: Error) => void): void;
  close(): Promise<void>;
}

export interface OpenMachineOptions {
  machineId: string;
  writerEpoch: number;
  /** 32 bytes. */
  dataKey: Uint8Array;
  disks: readonly JournalDisk[];
  signal?: AbortSignal;
  onWaiting?: (error: Error) => void;
}

export interface CacheUsage {
  totalBytes: number;
  freeBytes: number;
  /** When the oldest record that is not in the vault was journaled (process server's clock). */
  oldestNotUploadedMs: number | undefined;
}

export interface JournalPositions {
  journaledLsn: Lsn;
  uploadedLsn: Lsn;
  /** Newest barrier in the journal, uploaded or not; 0 when there is none. */
  lastBarrierLsn: Lsn;
  /** Newest barrier at or before uploadedLsn, of any kind; and the newest app-consistent one. */
  uploadedBarrier: BarrierSummary | undefined;
  uploadedAppBarrier: BarrierSummary | undefined;
}

/** A run of records with consecutive LSNs, encoded as in record.ts. `records` belongs to the journal until append resolves. */
export interface RecordBatch {
  firstLsn: Lsn;
  count: number;
  records: Uint8Array;
  /** CRC-32 of `records`, where it is known already. */
  recordsCrc?: number;
}

export interface BarrierRequest {
  /** The barrier record's own; journaledLsn + 1 once all appends before it are through. */
  lsn: Lsn;
  /** When the freeze was asked for. Raised to the previous barrier's + 1 when the clock went back. */
  timeMs: number;
  consistency: 'Crash' | 'App';
  disks: readonly { index: number; sizeBytes: number }[];
  freezeMs: number;
  final?: { failover: string };
}

export type Fenced = { by: 'HigherEpoch' } | { by: 'Seal'; failover: string };

export interface MachineJournal {
  readonly machineId: string;
  readonly writerEpoch: number;
  positions(): JournalPositions;
  /** Whether the agent must resync before barriers count, and why. `beginLsn`: of the resync that has begun; what it sent counts. */
  resync(): { required: false } | { required: true; reason: ResyncReason; beginLsn?: Lsn };
  /**
   * Checks the batch (every record, LSN continuity, leaves inside their disks, hashes of whole leaves), journals it and applies it to
   * the leaf tables. Resolves when it is fsynced. Barrier records are refused: `barrier` writes them. Waits while the cache is full.
   * Calls may overlap; they take effect in order of call. The records are looked at no more once it resolves. Throws JournalError (LsnGap, RecordRefused, LeafHashMismatch, BatchTooLong,
   * JournalFenced, JournalClosed) or RecordError, having journaled nothing.
   */
  append(batch: RecordBatch): Promise<void>;
  /**
   * Ends a pass: computes the root of each disk from the leaf hashes, journals the barrier, cuts a segment. Resolves when fsynced.
   * Throws JournalError (LsnGap, ResyncRequired, DiskSizeMismatch, DiskUnknown, JournalFenced, JournalClosed).
   */
  barrier(request: BarrierRequest): Promise<Barrier>;
  /** One AnswerCode (wire/messages.ts) a leaf for `hashes`, 32 bytes each. Waits for the appends before it. */
  ask(question: { disk: number; firstLeaf: number; hashes: Uint8Array }): Promise<Uint8Array>;
  /** New disks, other sizes, removed disks. A new or resized disk makes a resync required. Durable when it resolves. */
  setDisks(disks: readonly JournalDisk[]): Promise<void>;
  disks(): readonly JournalDisk[];
  /** Demands a resync until the next ResyncEnd. Durable when it resolves. */
  requireResync(reason: ResyncReason): Promise<void>;
  /** Bytes journaled and not uploaded. */
  backlogBytes(): number;
  /** Whether append waits for space now. */
  waitingForSpace(): boolean;
  /** Called after each segment that became durable in the vault. Returns how to stop listening. */
  onUploaded(callback: (positions: JournalPositions) => void): () => void;
  onFenced(callback: (fenced: Fenced) => void): () => void;
  /** Set once another writer or a seal was found in the vault: nothing more is accepted. */
  fenced(): Fenced | undefined;
  /** Why uploading does not get on, since when; undefined when it does. */
  uploadError(): { error: Error; sinceMs: number } | undefined;
  /** Stops; everything durable stays for the next open. */
  close(): Promise<void>;
  /** Closes and forgets the machine here (not in the vault). */
  drop(): Promise<void>;
}

export type JournalErrorCode =
  /** A batch or barrier does not begin at the next LSN. */
  | 'LsnGap'
  /** A record that this machine's agent may not send: a barrier, an unknown disk, a leaf past the disk's end. */
  | 'RecordRefused'
  /** A whole leaf's content does not have the hash that came with it. */
  | 'LeafHashMismatch'
  | 'BatchTooLong'
  /** A barrier while a resync is required or running. */
  | 'ResyncRequired'
  | 'DiskUnknown'
  | 'DiskSizeMismatch'
  /** Another writer or a seal holds the journal. */
  | 'JournalFenced'
  | 'JournalClosed'
  | 'JournalOpen'
  /** The cache's disk failed; what was not acknowledged is void. */
  | 'CacheFailed'
  /** The cache belongs to a newer version, or its files are not a cache's. */
  | 'CacheUnreadable';

export class JournalError extends FarshoreError {
  declare readonly code: JournalErrorCode;
  /** With JournalFenced: by whom. */
  readonly fenced: Fenced | undefined;

  constructor(
    code: JournalErrorCode,
    message: string,
    options?: ErrorOptions & { fenced?: Fenced },
  ) {
    super(code, message, options);
    this.fenced = options?.fenced;
  }
}

export function fencedError(machineId: string, fenced: Fenced): JournalError {
  const message =
    fenced.by === 'Seal'
      ? `Failover ${fenced.failover} sealed the journal of ${machineId}: nothing is accepted for it until it is protected again.`
      : `Another writer holds the journal of ${machineId}: this process server stopped writing it. Its assignment should move or disappear here.`;
  return new JournalError('JournalFenced', message, { fenced });
}
