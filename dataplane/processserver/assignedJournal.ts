/**
 * The journal of an assigned machine, open from the assignment on, whether or not an agent is connected, so that what is journaled
 * gets uploaded. Another writer or a seal fences it; then only a higher writer epoch opens it again.
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger } from '../../platform/ports.ts';
import type { Assignment } from '../../vault/documents/assignments.ts';
import { type BoxKey, openDataKey } from '../../vault/keys.ts';
import {
  type Fenced,
  type JournalCache,
  type JournalDisk,
  JournalError,
  type JournalPositions,
  type MachineJournal,
} from '../journal/machineJournal.ts';
import type { ErrorBook } from './errorBook.ts';
import { fencedRefusal } from './refusals.ts';

const OPEN_RETRY_MS = 10_000;

export interface AssignedJournalDeps {
  cache: JournalCache;
  clock: Clock;
  logger: Logger;
  errors: ErrorBook;
  encryptionKey: BoxKey;
  vaultId: string;
}

export interface JournalOwner {
  assignment(): Assignment;
  /** Bytes of a disk as the agent reports it now; undefined while it does not, or can't read it. */
  reportedSize(index: number): number | undefined;
  journalOpened(journal: MachineJournal): void;
  /** Before this, `fenced` is set. */
  journalFenced(fenced: Fenced): void;
  /** The journal is about to be closed to be opened under a higher epoch. */
  journalReopens(): void;
}

export class AssignedJournal {
  readonly #deps: AssignedJournalDeps;
  readonly #owner: JournalOwner;
  readonly #stop = new AbortController();
  #journal: MachineJournal | undefined;
  #positions: JournalPositions | undefined;
  #fenced: Fenced | undefined;
  /** The writer epoch that was opened or found fenced. */
  #epoch = 0;
  #wake: (() => void) | undefined;
  #changed = false;
  #lifecycle: Promise<void> | undefined;

  constructor(deps: AssignedJournalDeps, owner: JournalOwner) {
    this.#deps = deps;
    this.#owner = owner;
  }

  /** The open journal; undefined while it is being opened, closed, or fenced. */
  get current(): MachineJournal | undefined {
    return this.#fenced === undefined ? this.#journal : undefined;
  }

  get fenced(): Fenced | undefined {
    return this.#fenced;
  }

  /** The positions now, or those of when it was last open. */
  get positions(): JournalPositions | undefined {
    return this.#journal?.positions() ?? this.#positions;
  }

  get disks(): readonly JournalDisk[] {
    return this.#journal?.disks() ?? this.#wantedDisks();
  }

  get backlogBytes(): number {
    return this.#journal?.backlogBytes() ?? 0;
  }

  /** Begins to open it; goes on trying. */
  start(): void {
    this.#lifecycle ??= this.#live();
  }

  /** The assignment is another now. */
  assignmentChanged(): void {
    this.#changed = true;
    this.#wake?.();
  }

  /** Brings the journal's disks in line with the assignment and the reported sizes, once `appended` resolved. Throws JournalError. */
  async setDisks(appended: () => Promise<void>): Promise<void> {
    const journal = this.current;
    if (journal === undefined || sameDisks(journal.disks(), this.#wantedDisks())) return;
    await appended();
    await journal.setDisks(this.#wantedDisks());
  }

  /** Stops; what is not uploaded stays for the next open. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#wake?.();
    await this.#lifecycle;
    await this.#closeJournal();
  }

  async #live(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      this.#changed = false;
      const { writerEpoch } = this.#owner.assignment();
      if (writerEpoch > this.#epoch) await this.#reopen(writerEpoch);
      else if (this.#fenced !== undefined) await this.#closeJournal();
      else await this.#followDisks();
      await this.#sleepUntilWoken();
    }
  }

  async #reopen(writerEpoch: number): Promise<void> {
    if (this.#journal !== undefined) this.#owner.journalReopens();
    try {
      await this.#closeJournal();
      const journal = await this.#open(writerEpoch);
      this.#deps.errors.clearAll();
      this.#journal = journal;
      this.#epoch = writerEpoch;
      this.#fenced = undefined;
      journal.onFenced((fenced) => this.#becomeFenced(fenced));
      this.#owner.journalOpened(journal);
      const fenced = journal.fenced();
      if (fenced !== undefined) this.#becomeFenced(fenced);
    } catch (error) {
      this.#openFailed(error, writerEpoch);
    }
  }

  async #open(writerEpoch: number): Promise<MachineJournal> {
    const { machineId, dataKey } = this.#owner.assignment();
    const { cache, encryptionKey, vaultId, errors } = this.#deps;
    return await cache.openMachine({
      machineId,
      writerEpoch,
      dataKey: openDataKey({ sealed: dataKey, key: encryptionKey, vaultId, machineId }),
      disks: this.#wantedDisks(),
      signal: this.#stop.signal,
      onWaiting: (error) => errors.set(errorCode(error), errorMessage(error)),
    });
  }

  #openFailed(error: unknown, writerEpoch: number): void {
    if (this.#stop.signal.aborted) return;
    if (error instanceof JournalError && error.code === 'JournalFenced') {
      this.#epoch = writerEpoch;
      this.#becomeFenced(fencedBy(error));
      return;
    }
    const code = errorCode(error);
    this.#deps.errors.set(code, errorMessage(error));
    this.#deps.logger.error({ code, error }, "The machine's journal can not be opened");
  }

  #becomeFenced(fenced: Fenced): void {
    if (this.#fenced !== undefined) return;
    this.#fenced = fenced;
    const { code, message } = fencedRefusal(fenced);
    this.#deps.logger.warn({ code, fenced }, message);
    this.#owner.journalFenced(fenced);
    this.assignmentChanged();
  }

  async #followDisks(): Promise<void> {
    try {
      // A session that is under way changes sizes in step with its records, by itself; here only the list changes.
      await this.setDisks(() => Promise.resolve());
    } catch (error) {
      this.#deps.errors.set(errorCode(error), errorMessage(error));
      this.#deps.logger.error({ code: errorCode(error), error }, 'The disks can not be changed');
    }
  }

  async #closeJournal(): Promise<void> {
    const journal = this.#journal;
    if (journal === undefined) return;
    this.#positions = journal.positions();
    this.#journal = undefined;
    await journal.close();
  }

  #wantedDisks(): JournalDisk[] {
    const known = this.#journal?.disks() ?? [];
    return this.#owner.assignment().disks.map(({ index, name, sizeBytes }) => {
      const before = known.find((disk) => disk.index === index)?.sizeBytes;
      return { index, name, sizeBytes: this.#owner.reportedSize(index) || before || sizeBytes };
    });
  }

  /** Until the assignment changes; or, while the journal can't be opened, until it is time to try again. */
  async #sleepUntilWoken(): Promise<void> {
    if (this.#changed || this.#stop.signal.aborted) return;
    const isSettled = this.#journal !== undefined || this.#fenced !== undefined;
    const retry = new AbortController();
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    if (isSettled) await woken;
    else
      await Promise.race([
        woken,
        this.#deps.clock.sleep(OPEN_RETRY_MS, retry.signal).catch(() => undefined),
      ]);
    retry.abort();
    this.#wake = undefined;
  }
}

function sameDisks(left: readonly JournalDisk[], right: readonly JournalDisk[]): boolean {
  const text = (disks: readonly JournalDisk[]) =>
    [...disks]
      .sort((a, b) => a.index - b.index)
      .map((disk) => `${disk.index} ${disk.name} ${disk.sizeBytes}`)
      .join('\n');
  return text(left) === text(right);
}

function fencedBy(error: JournalError): Fenced {
  return error.fenced ?? { by: 'HigherEpoch' };
}
