import type { Assignment } from '../../vault/documents/assignments.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import type {
  Fenced,
  JournalDisk,
  JournalPositions,
  MachineJournal,
} from '../journal/machineJournal.ts';
import type { AgentView } from './agentView.ts';
import type { BarrierBook } from './barrierConversation.ts';
import type { BookedError } from './errorBook.ts';
import type { MachineRecord } from './machineRecord.ts';
import type { WaitingResyncs } from './resyncWindow.ts';

const ERRORS_MAX = 16;
const MESSAGE_MAX = 1_000;

export interface MachineFacts {
  assignment: Assignment;
  agent: AgentView;
  connected: boolean;
  /** The connected agent says that the machine stands still behind its last barrier. */
  held: boolean;
  record: MachineRecord | undefined;
  positions: JournalPositions | undefined;
  disks: readonly JournalDisk[];
  backlogBytes: number;
  uploadError: { error: Error; sinceMs: number } | undefined;
  waitingForSpace: boolean;
  book: BarrierBook;
  fenced: Fenced | undefined;
  errors: readonly BookedError[];
  resync: ReturnType<MachineJournal['resync']>;
  /** Resyncs that wait for the policy's window now. */
  waiting: WaitingResyncs | undefined;
  nowMs: number;
}

/** What the operator is told of one machine. */
export function machineStatus(facts: MachineFacts): MachineStatus {
  const { assignment, agent, positions, book } = facts;
  const journaledLsn = positions?.journaledLsn ?? 0n;
  const capturedLsn = agent.capturedLsn > journaledLsn ? agent.capturedLsn : journaledLsn;
  return {
    machineId: assignment.machineId,
    writerEpoch: assignment.writerEpoch,
    agent: {
      connected: facts.connected,
      lastSeenMs: agent.lastSeenMs,
      version: agent.version,
      hostname: agent.hostname,
      kernel: agent.kernel,
    },
    disks: facts.disks.map((disk) => ({
      index: disk.index,
      sizeBytes: disk.sizeBytes,
      error: agent.disks.find((report) => report.index === disk.index)?.error?.message,
    })),
    positions: { capturedLsn, journaledLsn, uploadedLsn: positions?.uploadedLsn ?? 0n },
    uploadedBarrier: positions?.uploadedBarrier,
    uploadedAppBarrier: positions?.uploadedAppBarrier,
    barriers: {
      count: book.count,
      voided: book.voided,
      lastFreezeMs: book.lastFreezeMs,
      maxFreezeMs: book.maxFreezeMs,
      lastVoid: book.lastVoid,
    },
    resync: facts.connected ? agent.resync : undefined,
    resyncRequired: resyncRequired(facts),
    lastResync: agent.lastResync,
    backlog: { agentBytes: agent.dirtyBytes, cacheBytes: facts.backlogBytes },
    finalBarrier: finalBarrier(facts),
    fenced: facts.fenced,
    resyncToken: agent.resyncToken,
    errors: errorsOf(facts),
  };
}

/** What the agent says counts while it is connected; the journal knows of one that must come when it is not. */
function resyncRequired({
  agent,
  connected,
  resync,
  waiting,
}: MachineFacts): MachineStatus['resyncRequired'] {
  if (connected && agent.resync !== undefined) return undefined;
  const reason =
    (connected ? agent.loss?.reason : undefined) ?? (resync.required ? resync.reason : undefined);
  if (reason === undefined) return undefined;
  const waits = waiting?.reasons.includes(reason) ? waiting.untilMs : undefined;
  return { reason, ...(waits === undefined ? {} : { waitsUntilMs: waits }) };
}

/** Told only once it is durable in the vault and the agent has said that the machine is off, or says so of a frozen one still. */
function finalBarrier({
  assignment,
  held,
  record,
  positions,
}: MachineFacts): MachineStatus['finalBarrier'] {
  const final = record?.final;
  if (final === undefined || final.failover !== assignment.finalSync?.failover) return undefined;
  if (final.poweredOff === undefined) return undefined;
  // The agent had heard of its upload; while the journal is being opened we have no better word.
  if (positions !== undefined && final.lsn > positions.uploadedLsn) return undefined;
  // Frozen machines can be thawed by anybody: what an earlier session said is no news.
  if (!final.poweredOff && !held) return undefined;
  return { failover: final.failover, lsn: final.lsn, poweredOff: final.poweredOff };
}

function errorsOf(facts: MachineFacts): MachineStatus['errors'] {
  const upload =
    facts.uploadError === undefined
      ? []
      : [
          {
            code: 'UploadFailing',
            message: facts.uploadError.error.message,
            sinceMs: facts.uploadError.sinceMs,
          },
        ];
  const full = facts.waitingForSpace
    ? [
        {
          code: 'CacheFull',
          message:
            'The cache is full: the agent is not read from until segments are uploaded. Its changes wait in its bitmaps; nothing is lost, but the RPO grows.',
          sinceMs: facts.nowMs,
        },
      ]
    : [];
  return [...facts.errors, ...upload, ...full, ...(facts.connected ? facts.agent.errors : [])]
    .slice(0, ERRORS_MAX)
    .map((error) => ({ ...error, message: error.message.slice(0, MESSAGE_MAX) }));
}
