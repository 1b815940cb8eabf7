/** One machine that this process server is assigned: its journal, its agent's sessions, its barriers, and what is told of it. */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Disk, Logger } from '../../platform/ports.ts';
import type { Assignment } from '../../vault/documents/assignments.ts';
import type { MachineStatus, ResyncReason } from '../../vault/documents/machineStatus.ts';
import type { BoxKey } from '../../vault/keys.ts';
import type { Fenced, JournalCache, MachineJournal } from '../journal/machineJournal.ts';
import type { Barrier } from '../journal/record.ts';
import type { Connection } from '../wire/connection.ts';
import { type Configuration, RefusalCode } from '../wire/messages.ts';
import { type AgentView, emptyAgentView } from './agentView.ts';
import { AssignedJournal, type JournalOwner } from './assignedJournal.ts';
import type { BarrierBook } from './barrierConversation.ts';
import { noBarriers } from './barrierSchedule.ts';
import type { CreditPool } from './creditPool.ts';
import { ErrorBook } from './errorBook.ts';
import { FinalBarrier } from './finalBarrier.ts';
import { MachineMemory } from './machineRecord.ts';
import type { AgentStatus } from './machineSession.ts';
import {
  type Hello,
  MachineSessions,
  SESSION_ERRORS,
  type SessionOwner,
} from './machineSessions.ts';
import { machineStatus } from './machineStatus.ts';
import { fencedRefusal, refusal } from './refusals.ts';
import { resyncDemanded } from './resyncDemand.ts';
import { ResyncWatch, type WaitingResyncs } from './resyncWindow.ts';

export interface AssignedMachineDeps {
  cache: JournalCache;
  /** The process server's own directory (not the journal's). */
  disk: Disk;
  clock: Clock;
  logger: Logger;
  encryptionKey: BoxKey;
  vaultId: string;
  credit: CreditPool;
  /** Endpoints of the other replicas. */
  peers: () => readonly string[];
  observeFreeze?: ((milliseconds: number) => void) | undefined;
}

export class AssignedMachine implements SessionOwner, JournalOwner {
  readonly book: BarrierBook = newBook();
  readonly #deps: AssignedMachineDeps;
  readonly #errors: ErrorBook;
  readonly #journal: AssignedJournal;
  #assignment: Assignment;
  readonly #memory: MachineMemory;
  readonly #final: FinalBarrier;
  readonly #sessions: MachineSessions;
  #agent: AgentView = emptyAgentView;
  readonly #window = new ResyncWatch();

  private constructor(deps: AssignedMachineDeps, assignment: Assignment, memory: MachineMemory) {
    const { name, machineId, namespace } = assignment;
    this.#deps = { ...deps, logger: deps.logger.child({ machine: name, namespace, machineId }) };
    this.#assignment = assignment;
    this.#memory = memory;
    this.#final = new FinalBarrier({
      memory,
      wanted: () => this.#assignment.finalSync,
      uploadedBarrierLsn: () => this.#journal.positions?.uploadedBarrier?.lsn,
    });
    this.#agent = { ...emptyAgentView, lastSeenMs: memory.record.lastSeenMs };
    this.#errors = new ErrorBook(deps);
    this.#journal = new AssignedJournal({ ...this.#deps, errors: this.#errors }, this);
    const { cacheId } = deps.cache;
    const parts = { errors: this.#errors, journal: this.#journal, cacheId };
    this.#sessions = new MachineSessions({ ...this.#deps, ...parts }, this);
  }

  /** Begins to open the machine's journal. Throws when what is remembered of it can't be read. */
  static async begin(deps: AssignedMachineDeps, assignment: Assignment): Promise<AssignedMachine> {
    const { machineId } = assignment;
    const { cacheId } = deps.cache;
    const memory = await MachineMemory.load(deps.disk, { machineId, cacheId });
    const machine = new AssignedMachine(deps, assignment, memory);
    machine.#journal.start();
    return machine;
  }

  get machineId(): string {
    return this.#assignment.machineId;
  }

  get connected(): boolean {
    return this.#sessions.connected;
  }

  /** Bytes of Data from agents since this process began, and what waits for upload. */
  get traffic(): { receivedBytes: number; backlogBytes: number } {
    return {
      receivedBytes: this.#sessions.receivedBytes,
      backlogBytes: this.#journal.backlogBytes,
    };
  }

  /** `peersChanged`: others would take over than when the agent was told last. */
  update(assignment: Assignment, { peersChanged }: { peersChanged: boolean }): void {
    const before = this.configuration();
    this.#assignment = assignment;
    if (assignment.finalSync === undefined && this.#memory.record.final !== undefined)
      this.#memory.save({ final: undefined }).catch((error: unknown) => this.#noteFailure(error));
    if (peersChanged || JSON.stringify(before) !== JSON.stringify(this.configuration()))
      this.#sessions.configurationChanged();
    this.#journal.assignmentChanged();
  }

  /** Ends the session, closes the journal. What is not uploaded stays for the next time. */
  async close(): Promise<void> {
    const ended = this.#sessions.close();
    await this.#journal.close();
    await ended;
    await this.#memory.settled();
  }

  /** Forgets the machine here, after `close`: it is assigned to somebody else, or not protected any more. */
  async drop(): Promise<void> {
    await this.#deps.cache.dropMachine(this.machineId);
    await this.#memory.remove();
  }

  /** Shown with the machine until its next barrier. */
  noteError(code: string, message: string): void {
    this.#errors.set(code, message);
  }

  /** Serves an agent that proved to be this machine, to the end of its connection. Never rejects. */
  async serve(connection: Connection, hello: Hello): Promise<void> {
    await this.#sessions.serve(connection, hello);
  }

  status(): MachineStatus {
    const journal = this.#journal.current;
    return machineStatus({
      assignment: this.#assignment,
      agent: this.#agent,
      connected: this.connected,
      held: this.connected && this.#final.isHeld,
      record: this.#memory.record,
      positions: this.#journal.positions,
      disks: this.#journal.disks,
      backlogBytes: this.#journal.backlogBytes,
      uploadError: journal?.uploadError(),
      waitingForSpace: journal?.waitingForSpace() ?? false,
      book: this.book,
      fenced: this.#journal.fenced,
      errors: this.#errors.list(),
      resync: journal?.resync() ?? { required: false },
      waiting: this.#waitingResyncs(),
      nowMs: this.#deps.clock.now(),
    });
  }

  // ------------------------------------------------------------------------------------------------ for its sessions

  greeted(hello: Hello): void {
    this.#agent = {
      ...emptyAgentView,
      lastSeenMs: this.#deps.clock.now(),
      version: hello.agentVersion,
      hostname: hello.hostname,
      kernel: hello.kernel,
      capturedLsn: hello.capturedLsn,
      resyncToken: hello.resyncToken,
    };
  }

  async demandResync(journal: MachineJournal, hello: Hello): Promise<void> {
    const reason = resyncDemanded({
      hello,
      cacheId: this.#deps.cache.cacheId,
      cacheHasData: this.#memory.record.hasData,
      positions: journal.positions(),
    });
    // One that went back in time must not go on with a resync that it had begun before.
    if (reason === undefined || (journal.resync().required && reason !== 'SourceReverted')) return;
    this.#deps.logger.warn({ code: 'ResyncRequired', reason }, 'The machine must be resynced');
    await journal.requireResync(reason);
  }

  configuration(): Configuration {
    const { disks, paused, policy, resyncToken, finalSync, repair } = this.#assignment;
    const waits = this.resyncWaits();
    return {
      disks: disks.map(({ index, name, device, sizeBytes }) => ({
        index,
        name,
        device,
        ...(sizeBytes === 0 ? {} : { sizeBytes }),
      })),
      paused,
      hooks: policy.hooks,
      resyncToken,
      final: finalSync,
      ...(waits.length === 0 ? {} : { resyncWaits: [...waits] }),
      ...(repair === undefined ? {} : { repair }),
    };
  }

  resyncWaits(): readonly ResyncReason[] {
    return this.#waitingResyncs()?.reasons ?? [];
  }

  peers(): readonly string[] {
    return this.#deps.peers();
  }

  situation(): ReturnType<SessionOwner['situation']> {
    const { policy, paused, finalSync, disks } = this.#assignment;
    return {
      policy,
      paused,
      finalSync,
      final: this.#final.state,
      diskMissing: disks.some((disk) => this.reportedSize(disk.index) === undefined),
    };
  }

  heard(): void {
    this.#agent = { ...this.#agent, lastSeenMs: this.#deps.clock.now() };
  }

  async agentReported(status: AgentStatus, appended: () => Promise<void>): Promise<void> {
    this.#agent = {
      ...this.#agent,
      ...status,
      resync: status.resync,
      loss: status.loss,
      lastResync: status.lastResync ?? this.#agent.lastResync,
      final: status.final,
      resyncToken: status.resyncToken ?? this.#agent.resyncToken,
    };
    await this.#journal.setDisks(appended);
    await this.#final.reported(status.final);
  }

  async barrierTaken(taken: { lsn: bigint; barrier: Barrier }): Promise<void> {
    this.#errors.clear(...SESSION_ERRORS);
    this.#deps.observeFreeze?.(taken.barrier.freezeMs);
    const failover = taken.barrier.final?.failover;
    if (failover !== undefined) await this.#final.taken({ failover, lsn: taken.lsn });
  }

  dataCame(): void {
    if (this.#memory.record.hasData) return;
    this.#memory.save({ hasData: true }).catch((error: unknown) => this.#noteFailure(error));
  }

  finalVoided(): void {
    this.#final.voided().catch((error: unknown) => this.#noteFailure(error));
  }

  async sessionEnded(): Promise<void> {
    try {
      await this.#final.sessionEnded();
    } catch (error) {
      this.#noteFailure(error);
    }
    this.#memory
      .save({ lastSeenMs: this.#agent.lastSeenMs })
      .catch((error: unknown) => this.#noteFailure(error));
  }

  // ------------------------------------------------------------------------------------------------ for its journal

  assignment(): Assignment {
    return this.#assignment;
  }

  reportedSize(index: number): number | undefined {
    const report = this.#agent.disks.find((disk) => disk.index === index);
    return report?.error === undefined && report?.sizeBytes !== 0 ? report?.sizeBytes : undefined;
  }

  journalOpened(journal: MachineJournal): void {
    const { uploadedBarrier, uploadedAppBarrier, ...positions } = journal.positions();
    this.#deps.logger.info(
      {
        writerEpoch: journal.writerEpoch,
        journaledLsn: String(positions.journaledLsn),
        uploadedLsn: String(positions.uploadedLsn),
        resync: journal.resync(),
      },
      "The machine's journal is open",
    );
    const times = [uploadedBarrier?.timeMs ?? 0, uploadedAppBarrier?.timeMs ?? 0];
    this.book.lastTimeMs = Math.max(this.book.lastTimeMs, ...times);
    if (this.book.count > 0) return;
    // After a restart the intervals go on from the last barriers' times, as far as the wall clock makes sense.
    const [lastBarrierMs, lastAppMs] = times.map((timeMs) => {
      const agoMs = this.#deps.clock.now() - timeMs;
      return timeMs === 0 || agoMs < 0 ? undefined : this.#deps.clock.monotonic() - agoMs;
    });
    this.book.history = { ...noBarriers, lastBarrierMs, lastAppMs };
  }

  journalFenced(fenced: Fenced): void {
    this.#sessions.end(fencedRefusal(fenced));
  }

  journalReopens(): void {
    this.#sessions.end(
      refusal(RefusalCode.NotReady, 'The journal is taken up under a new writer epoch.', 'soon'),
    );
  }

  #waitingResyncs(): WaitingResyncs | undefined {
    return this.#window.waiting(this.#assignment.policy.resyncWindow, this.#deps.clock.now());
  }

  #noteFailure(error: unknown): void {
    this.noteError(RefusalCode.JournalFailed, `${errorCode(error)}: ${errorMessage(error)}`);
    this.#deps.logger.error(
      { code: errorCode(error), error },
      'What must be remembered can not be written',
    );
  }
}

function newBook(): BarrierBook {
  return {
    history: noBarriers,
    count: 0,
    voided: 0,
    lastFreezeMs: 0,
    maxFreezeMs: 0,
    lastVoid: undefined,
    lastTimeMs: 0,
    nextId: 1,
  };
}
