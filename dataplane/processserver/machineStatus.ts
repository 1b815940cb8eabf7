import type { Assignment } from '../../vault/documents/assignments.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import type { Fenced, JournalDisk, JournalPositions } from '../journal/machineJournal.ts';
import type { AgentView } from './agentView.ts';
import type { BarrierBook } from './barrierConversation.ts';
import type { BookedError } from './errorBook.ts';
import type { MachineRecord } from './machineRecord.ts';

const ERRORS_MAX = 16;
const MESSAGE_MAX = 1_000;

export interface MachineFacts {
  assignment: Assignment;
  agent: AgentView;
  connected: boolean;
  record: MachineRecord | undefined;
  positions: JournalPositions | undefined;
  disks: readonly JournalDisk[];
  backlogBytes: number;
  uploadError: { error: Error; sinceMs: number } | undefined;
  waitingForSpace: boolean;
  book: BarrierBook;
  fenced: Fenced | undefined;
  errors: readonly BookedError[];
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
    lastResync: agent.lastResync,
    backlog: { agentBytes: agent.dirtyBytes, cacheBytes: facts.backlogBytes },
    finalBarrier: finalBarrier(facts),
    fenced: facts.fenced,
    resyncToken: agent.resyncToken,
    errors: errorsOf(facts),
  };
}

/** Told only once it is durable in the vault and the agent has said that the machine is off, or says so of a frozen one still. */
function finalBarrier({
  assignment,
  connected,
  record,
  positions,
}: MachineFacts): MachineStatus['finalBarrier'] {
  const final = record?.final;
  if (final === undefined || final.failover !== assignment.finalSync?.failover) return undefined;
  if (final.poweredOff === undefined) return undefined;
  // The agent had heard of its upload; while the journal is being opened we have no better word.
  if (positions !== undefined && final.lsn > positions.uploadedLsn) return undefined;
  // Frozen machines can be thawed by anybody.
  if (!final.poweredOff && !connected) return undefined;
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
