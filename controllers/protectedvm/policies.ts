/**
 * Decisions about one protected machine, from what was gathered to a reason and a message. No calls, no clock of its own.
 *
 * Each chain is tried in order and the first that objects decides the condition. Messages hold nothing that changes by itself
 * (ages, percentages): those are fields of the status, so that a condition changes only when something happened.
 */
import { Reason } from '../../crds/index.ts';
import type { DiskSpec } from '../../vault/documents/diskSpec.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import type { NameClaim } from '../../vault/documents/nameClaim.ts';
import {
  type Check,
  fromCode,
  nameTaken,
  standbyObjection,
  type VaultFacts,
  vaultObjection,
} from '../decisions.ts';
import { HEARTBEAT_LIMIT_MS, significantOffset } from '../vaultTime.ts';

// -------------------------------------------------------------------------------------------------------------- acceptance

export interface AcceptanceInput {
  namespace: string;
  vaultRef: string;
  policyRef: string;
  processServerRef: string;
  vault: VaultFacts;
  policyExists: boolean;
  processServer: { exists: boolean; vaultRef: string | undefined };
  /** Who holds the machine's name in the vault, when it is not this object. */
  nameHeldBy: NameClaim | undefined;
}

/** Other resources first, then the vault: what a person can correct here comes before what has to be waited for. */
export const acceptanceChecks: readonly Check<AcceptanceInput>[] = [
  (input) => (input.vault.state === 'NotOpen' ? undefined : vaultObjection(input)),
  (input) =>
    input.policyExists
      ? undefined
      : {
          reason: Reason.PolicyNotFound,
          message: `ReplicationPolicy ${input.policyRef} does not exist in namespace ${input.namespace}. Create it, or correct spec.policyRef.`,
        },
  (input) =>
    input.processServer.exists
      ? undefined
      : {
          reason: Reason.ProcessServerNotFound,
          message: `ProcessServer ${input.processServerRef} does not exist in namespace ${input.namespace}. Create it, or correct spec.processServerRef.`,
        },
  (input) =>
    input.processServer.vaultRef === input.vaultRef
      ? undefined
      : {
          reason: Reason.ProcessServerOfOtherVault,
          message: `ProcessServer ${input.processServerRef} writes to RecoveryVault ${input.processServer.vaultRef ?? '(none)'}, but this machine's vault is ${input.vaultRef}. Let both name the same vault.`,
        },
  vaultObjection,
  (input) =>
    input.nameHeldBy === undefined
      ? undefined
      : nameTaken(input.nameHeldBy, { standby: input.vault.state === 'Standby' }),
  (input) => standbyObjection(input.vault, input.vaultRef),
];

// ------------------------------------------------------------------------------------------------------------- replication

export interface ReplicationInput {
  now: number;
  accepted: boolean;
  paused: boolean;
  /** An agent was ever given a certificate for this machine. */
  enrolled: boolean;
  processServer: { name: string; heartbeatMs: number | undefined };
  machine: MachineStatus | undefined;
}

/** Why what arrives from the machine is not what should arrive. */
export const replicationChecks: readonly Check<ReplicationInput>[] = [
  (input) =>
    input.accepted
      ? undefined
      : {
          reason: Reason.DependencyNotReady,
          message: 'The resource is not accepted; see Accepted.',
        },
  (input) =>
    processServerSilent(input)
      ? {
          reason: Reason.ProcessServerSilent,
          message:
            input.processServer.heartbeatMs === undefined
              ? `Process server ${input.processServer.name} has never reported. Install it, or look at its log.`
              : `Process server ${input.processServer.name} stopped reporting. Look at its log, its host and its way to the vault.`,
        }
      : undefined,
  (input) =>
    input.enrolled || input.machine?.agent.lastSeenMs !== undefined
      ? undefined
      : {
          reason: Reason.AgentNotEnrolled,
          message:
            'No agent has enrolled under this name. Install the agent in the machine with the process server’s passphrase.',
        },
  (input) =>
    input.machine === undefined
      ? {
          reason: Reason.Pending,
          message: `Process server ${input.processServer.name} has not taken the machine up yet.`,
        }
      : undefined,
  (input) =>
    input.machine?.fenced === undefined
      ? undefined
      : {
          reason: input.machine.fenced.by === 'Seal' ? Reason.FailoverActive : Reason.Fenced,
          message:
            input.machine.fenced.by === 'Seal'
              ? `Failover ${input.machine.fenced.failover ?? ''} sealed the journal: the machine is no longer replicated.`
              : 'Another process server writes this machine’s journal under a higher epoch.',
        },
  (input) =>
    input.paused
      ? { reason: Reason.Paused, message: 'spec.paused is true: nothing new is replicated.' }
      : undefined,
  (input) =>
    input.machine?.agent.connected
      ? undefined
      : {
          reason: Reason.AgentDisconnected,
          message: `The agent is not connected to process server ${input.processServer.name}. Look whether the machine runs and reaches it.`,
        },
  (input) => {
    const broken = input.machine?.disks.find((disk) => disk.error !== undefined);
    return broken === undefined
      ? undefined
      : { reason: Reason.DiskMissing, message: `Disk ${broken.index}: ${broken.error}` };
  },
  (input) => {
    const error = input.machine?.errors[0];
    return error === undefined
      ? undefined
      : { reason: fromCode(error.code), message: error.message };
  },
];

export function processServerSilent(
  input: Pick<ReplicationInput, 'now' | 'processServer'>,
): boolean {
  const { heartbeatMs } = input.processServer;
  return heartbeatMs === undefined || input.now - heartbeatMs > HEARTBEAT_LIMIT_MS;
}

// --------------------------------------------------------------------------------------------------------------- positions

/**
 * The newest barrier that is durable in the vault, in the vault's time: what RPO counts from. Points count too, for when the
 * process server's status is gone.
 */
export function newestDurableMs(input: {
  machine: MachineStatus | undefined;
  processServerOffsetMs: number;
  newestPointMs: number | undefined;
  /** In the vault's time. A clock that runs ahead must not make what is old look new. */
  notAfterMs?: number | undefined;
}): number | undefined {
  const barrier = input.machine?.uploadedBarrier?.timeMs;
  const candidates = [barrier, input.newestPointMs].filter((time) => time !== undefined);
  if (candidates.length === 0) return undefined;
  const told = Math.max(...candidates) - significantOffset(input.processServerOffsetMs);
  return Math.min(told, input.notAfterMs ?? told);
}

export interface Progress {
  reason: string;
  bytesTotal: number;
  bytesDone: number;
  bytesSent: number;
  /** 0–100, floored: 100 is shown only when it is done. */
  percent: number;
  bytesPerSecond: number;
  /** Undefined while the rate is not known. */
  etaSeconds: number | undefined;
  startedMs: number;
}

export function progressOf(machine: MachineStatus | undefined): Progress | undefined {
  const resync = machine?.resync;
  if (resync === undefined) return undefined;
  const left = Math.max(0, resync.bytesTotal - resync.bytesDone);
  return {
    reason: resync.reason,
    bytesTotal: resync.bytesTotal,
    bytesDone: resync.bytesDone,
    bytesSent: resync.bytesSent,
    startedMs: resync.startedMs,
    percent:
      resync.bytesTotal === 0
        ? 0
        : Math.min(left === 0 ? 100 : 99, Math.floor((resync.bytesDone / resync.bytesTotal) * 100)),
    bytesPerSecond: resync.bytesPerSecond,
    etaSeconds: resync.bytesPerSecond > 0 ? Math.ceil(left / resync.bytesPerSecond) : undefined,
  };
}

// ------------------------------------------------------------------------------------------------------------------- disks

/**
 * The catalog's disks after the spec named some: known names keep their index, new ones get the next that was never used.
 * Sizes come from what the process server reports, and stay when it reports none.
 */
export function assignDisks(input: {
  wanted: readonly { name: string; device: string }[];
  known: readonly DiskSpec[];
  nextIndex: number | undefined;
  reported: readonly { index: number; sizeBytes: number }[];
}): { disks: DiskSpec[]; nextIndex: number } {
  const highest = input.known.reduce((top, disk) => Math.max(top, disk.index), -1);
  let nextIndex = Math.max(input.nextIndex ?? 0, highest + 1);
  const disks = input.wanted.map((wanted): DiskSpec => {
    const known = input.known.find((disk) => disk.name === wanted.name);
    const index = known?.index ?? nextIndex++;
    const reported = input.reported.find((disk) => disk.index === index)?.sizeBytes ?? 0;
    return {
      index,
      name: wanted.name,
      device: wanted.device,
      sizeBytes: reported > 0 ? reported : (known?.sizeBytes ?? 0),
    };
  });
  return { disks: disks.sort((a, b) => a.index - b.index), nextIndex };
}

// ---------------------------------------------------------------------------------------------------------------- deletion

/** Why the finalizer stays for now. */
export const deletionChecks: readonly Check<{
  activeSide: 'Source' | 'Azure';
  activeFailover: string | undefined;
  assignedTo: string | undefined;
}>[] = [
  (input) =>
    input.activeSide === 'Azure'
      ? {
          reason: Reason.ActiveInAzure,
          message:
            'The machine runs in Azure: its description is kept. Fail it back first, or set the annotation farshore.dev/force-delete to let go of it.',
        }
      : undefined,
  (input) =>
    input.activeFailover === undefined
      ? undefined
      : {
          reason: Reason.FailoverActive,
          message: `Failover ${input.activeFailover} acts on this machine. Wait for its end, or set the annotation farshore.dev/force-delete.`,
        },
  (input) =>
    input.assignedTo === undefined
      ? undefined
      : {
          reason: Reason.Draining,
          message: `Process server ${input.assignedTo} still has the machine in its assignments. It goes once they are rewritten (a large removal waits for a confirmation on the ProcessServer).`,
        },
];
