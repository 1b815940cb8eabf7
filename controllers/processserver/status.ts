/** Everything that a ProcessServer shows. Pure. */
import { ConditionType, type ProcessServerStatus, Reason } from '../../crds/index.ts';
import type { ProcessServerStatus as ReportedStatus } from '../../vault/documents/processServerStatus.ts';
import { type Decided, fails, fromCode, holds, type Objection, unknown } from '../decisions.ts';
import { allDone, beingDeleted, notStalled, passesByItself } from '../summary.ts';
import { HEARTBEAT_LIMIT_MS, significantOffset } from '../vaultTime.ts';

/** A cache with less than this share free is nearly full. */
const CACHE_FREE_SHARE = 0.1;
const PENDING_SHOWN = 100;

export interface ReplicaFacts {
  name: string;
  registered: boolean;
  reported: ReportedStatus | undefined;
}

export interface ProcessServerStatusInput {
  vaultNowMs: number;
  acceptance: Objection | undefined;
  deletion: Objection | undefined;
  replicas: readonly ReplicaFacts[];
  selector: string;
  bootstrapSecretName: string | undefined;
  machines: number;
  /** What stands in the vault, of the replica whose generation is lowest. */
  assignments: { controllerEpoch: number; generation: number } | undefined;
  /** Why the lists of machines in the vault are not what the cluster asks for. */
  assignmentsTrouble: Objection | undefined;
  pendingRemoval: { token: string; machines: readonly string[] } | undefined;
  vaultReadable: boolean;
}

export interface ProcessServerShown {
  status: Omit<ProcessServerStatus, 'conditions' | 'observedGeneration'>;
  conditions: Decided[];
}

export function showProcessServer(input: ProcessServerStatusInput): ProcessServerShown {
  const parts = [
    accepted(input),
    enrolled(input),
    heartbeatCurrent(input),
    cacheHasRoom(input),
    assignmentsCurrent(input),
  ];
  const heartbeats = input.replicas.map((replica) => replica.reported?.heartbeatMs);
  const oldest = heartbeats.includes(undefined)
    ? undefined
    : Math.min(...heartbeats.filter((one) => one !== undefined));
  return {
    conditions: [...parts, ...summary(input, parts)],
    status: {
      replicas: input.replicas.length,
      selector: input.selector,
      machines: input.machines,
      ...(oldest === undefined || !Number.isFinite(oldest) ? {} : { heartbeatTime: iso(oldest) }),
      ...(input.bootstrapSecretName === undefined
        ? {}
        : { bootstrapSecretName: input.bootstrapSecretName }),
      ...(input.assignments === undefined ? {} : { assignments: input.assignments }),
      ...(input.pendingRemoval === undefined
        ? {}
        : {
            pendingRemoval: {
              token: input.pendingRemoval.token,
              machines: input.pendingRemoval.machines.slice(0, PENDING_SHOWN),
            },
          }),
      replicaStatuses: input.replicas.map(replicaStatus),
    },
  };
}

function accepted(input: ProcessServerStatusInput): Decided {
  return input.acceptance === undefined
    ? holds(
        ConditionType.Accepted,
        Reason.Accepted,
        'The vault exists, and the name is this resource’s.',
      )
    : fails(ConditionType.Accepted, input.acceptance);
}

function enrolled(input: ProcessServerStatusInput): Decided {
  const type = ConditionType.Enrolled;
  const missing = input.replicas.find((replica) => !replica.registered);
  if (missing === undefined)
    return holds(type, Reason.CertificateIssued, 'Every replica has its certificate.');
  if (!input.vaultReadable) return unknown(type, vaultNotRead);
  return fails(type, {
    reason: Reason.Pending,
    message: `Process server ${missing.name} has not asked for its certificate yet. Start it with its bootstrap file.`,
  });
}

function heartbeatCurrent(input: ProcessServerStatusInput): Decided {
  const type = ConditionType.HeartbeatCurrent;
  if (!input.vaultReadable && input.replicas.every((replica) => replica.reported === undefined))
    return unknown(type, vaultNotRead);
  const unseen = input.replicas.find((replica) => replica.reported === undefined);
  if (unseen !== undefined)
    return fails(type, {
      reason: Reason.NeverSeen,
      message: `Process server ${unseen.name} has never reported.`,
    });
  const silent = input.replicas.find(
    ({ reported }) =>
      reported !== undefined &&
      input.vaultNowMs - (reported.heartbeatMs - significantOffset(reported.clockOffsetMs)) >
        HEARTBEAT_LIMIT_MS,
  );
  return silent === undefined
    ? holds(type, Reason.HeartbeatSeen, 'Every replica has reported within the last minute.')
    : fails(type, {
        reason: Reason.HeartbeatMissing,
        message: `Process server ${silent.name} stopped reporting. Look at its log, its host and its way to the vault.`,
      });
}

function cacheHasRoom(input: ProcessServerStatusInput): Decided {
  const type = ConditionType.CacheHasRoom;
  const reported = input.replicas.filter((replica) => replica.reported !== undefined);
  if (reported.length === 0)
    return unknown(type, { reason: Reason.NeverSeen, message: 'No replica has reported yet.' });
  const full = reported.find(({ reported: status }) => {
    const { freeBytes, totalBytes } = status?.cache ?? { freeBytes: 1, totalBytes: 1 };
    return freeBytes < totalBytes * CACHE_FREE_SHARE;
  });
  return full === undefined
    ? holds(type, Reason.CacheFree, 'Every cache has room.')
    : fails(type, {
        reason: Reason.CacheNearlyFull,
        message: `The cache of process server ${full.name} is more than nine tenths full: changes wait in the machines. Look at its way to the vault, or enlarge the cache.`,
      });
}

function assignmentsCurrent(input: ProcessServerStatusInput): Decided {
  const type = ConditionType.AssignmentsCurrent;
  if (input.pendingRemoval !== undefined)
    return fails(type, {
      reason: Reason.RemovalNotConfirmed,
      message: `${input.pendingRemoval.machines.length} machines would be taken from this process server at once. They stay until spec.confirmRemoval is ${input.pendingRemoval.token}.`,
    });
  if (input.assignmentsTrouble !== undefined) return fails(type, input.assignmentsTrouble);
  const refusing = input.replicas.find(({ reported }) => (reported?.errors ?? []).length > 0);
  const [refusal] = refusing?.reported?.errors ?? [];
  if (refusal !== undefined)
    return fails(type, {
      reason: fromCode(refusal.code),
      message: `Process server ${refusing?.name} does not take all of its list: ${refusal.message}`,
    });
  return input.assignments === undefined
    ? unknown(type, { reason: Reason.Pending, message: 'Nothing has been written yet.' })
    : holds(
        type,
        Reason.AssignmentsWritten,
        'The signed list of machines in the vault is current.',
      );
}

function summary(input: ProcessServerStatusInput, parts: readonly Decided[]): Decided[] {
  const { Ready, Reconciling, Stalled } = ConditionType;
  if (input.deletion !== undefined) return beingDeleted(input.deletion);
  const broken = parts.find((part) => part.status !== 'True');
  if (broken === undefined) return allDone('The process server works.');
  const stuck =
    broken.reason === Reason.RemovalNotConfirmed ||
    (input.acceptance !== undefined && !passesByItself(input.acceptance));
  return [
    fails(Ready, broken),
    holds(Reconciling, broken.reason, broken.message),
    stuck ? holds(Stalled, broken.reason, broken.message) : notStalled(),
  ];
}

const vaultNotRead: Objection = {
  reason: Reason.VaultNotReady,
  message: 'The vault could not be read yet.',
};

function replicaStatus({
  name,
  reported,
}: ReplicaFacts): NonNullable<ProcessServerStatus['replicaStatuses']>[number] {
  if (reported === undefined) return { name };
  const { cache } = reported;
  return {
    name,
    heartbeatTime: iso(reported.heartbeatMs),
    version: reported.version.slice(0, 128),
    machines: reported.machines.length,
    endpoints: reported.endpoints.slice(0, 32).map((one) => one.slice(0, 262)),
    clockOffsetMs: Math.round(reported.clockOffsetMs),
    cache: {
      totalBytes: cache.totalBytes,
      freeBytes: cache.freeBytes,
      ...(cache.oldestNotUploadedMs === undefined
        ? {}
        : { oldestNotUploadedTime: iso(cache.oldestNotUploadedMs) }),
    },
    ...(reported.uploadLimitBytesPerSecond === undefined
      ? {}
      : { uploadLimitBitsPerSecond: reported.uploadLimitBytesPerSecond * 8 }),
    throughput: {
      inBytesPerSecond: Math.round(reported.throughput.inBytesPerSecond),
      outBytesPerSecond: Math.round(reported.throughput.outBytesPerSecond),
    },
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
