/** Everything that a ProtectedVM shows: its conditions, all of them from the first visit, and its fields. Pure. */
import { ConditionType, type ProtectedVMStatus, Reason } from '../../crds/index.ts';
import type {
  ApplierStatus,
  CatalogDocument,
  EndedResync,
  MachineStatus,
} from '../../vault/documents.ts';
import {
  type Decided,
  fails,
  firstObjection,
  fromCode,
  holds,
  type Objection,
  unknown,
} from '../decisions.ts';
import type { PointsSummary } from '../openvaults/points.ts';
import { allDone, beingDeleted, notStalled, passesByItself } from '../summary.ts';
import { rpoSeconds } from '../vaultTime.ts';
import {
  newestDurableMs,
  type Progress,
  processServerSilent,
  progressOf,
  replicationChecks,
} from './policies.ts';

export interface StatusInput {
  /** Now, by the vault's clock. */
  vaultNowMs: number;
  /** Why the resource can't be acted on; undefined when it can. */
  acceptance: Objection | undefined;
  deletion: Objection | undefined;
  paused: boolean;
  rpoThresholdSeconds: number;
  rpoThresholdText: string;
  /** Undefined while the machine has no entry in the vault, or the vault can't be read. */
  catalog: CatalogDocument | undefined;
  vaultReadable: boolean;
  enrolled: boolean;
  offeredDisks: ProtectedVMStatus['offeredDisks'];
  processServer: {
    name: string;
    heartbeatMs: number | undefined;
    clockOffsetMs: number;
    /** When its status was written, by the vault's clock: nothing that it tells of happened later. */
    reportedMs?: number | undefined;
  };
  machine: MachineStatus | undefined;
  applied: ApplierStatus['machines'][number] | undefined;
  points: PointsSummary | undefined;
  /** Undefined while Azure has not been asked. */
  target: { objection: Objection | undefined } | undefined;
  /** What was shown before: progress of an initial replication stays after its end. */
  before: ProtectedVMStatus | undefined;
}

export interface Shown {
  status: Omit<ProtectedVMStatus, 'conditions' | 'observedGeneration'>;
  conditions: Decided[];
  /** For RPO as a figure; undefined before the first durable barrier. */
  durableMs: number | undefined;
}

export function show(input: StatusInput): Shown {
  const durableMs =
    newestDurableMs({
      // A barrier that can't be proven can't be recovered: only points count then.
      machine: pointsRefused(input) === undefined ? input.machine : undefined,
      processServerOffsetMs: input.processServer.clockOffsetMs,
      newestPointMs: input.points?.recent[0]?.timeMs,
      notAfterMs: input.processServer.reportedMs,
    }) ?? lastShown(input.before?.lastBarrierTime);
  const conditions = conditionsOf(input, durableMs);
  return {
    status: { ...fieldsOf(input, durableMs), phase: phaseOf(input, conditions) },
    conditions,
    durableMs,
  };
}

/** What was durable stays durable: a vault that can't be read now must not make the RPO look unknown. */
function lastShown(time: string | undefined): number | undefined {
  return time === undefined ? undefined : Date.parse(time);
}

// --------------------------------------------------------------------------------------------------------------- conditions

function conditionsOf(input: StatusInput, durableMs: number | undefined): Decided[] {
  const parts = [
    accepted(input),
    initialReplication(input),
    replicationHealthy(input),
    recoveryPointCurrent(input, durableMs),
    resyncRequired(input),
    recoverable(input),
    targetValid(input),
    sourceStillRunning(input),
  ];
  return [...parts, ...summary(input, parts)];
}

function accepted(input: StatusInput): Decided {
  return input.acceptance === undefined
    ? holds(
        ConditionType.Accepted,
        Reason.Accepted,
        'Vault, policy and process server exist, and the name is this resource’s.',
      )
    : fails(ConditionType.Accepted, input.acceptance);
}

function initialReplication(input: StatusInput): Decided {
  const type = ConditionType.InitialReplicationComplete;
  if (hasBarrier(input))
    return holds(type, Reason.InitialReplicationDone, 'A first copy of all disks is in the vault.');
  if (input.catalog === undefined)
    return input.acceptance === undefined
      ? unknown(type, notReadYet)
      : fails(type, {
          reason: Reason.DependencyNotReady,
          message: 'The resource is not accepted; see Accepted.',
        });
  if (input.machine?.resync !== undefined)
    return fails(type, {
      reason: Reason.InitialReplicationRunning,
      message: 'The disks are being copied; status.initialReplication says how far.',
    });
  return fails(
    type,
    replicationObjection(input) ?? {
      reason: Reason.Pending,
      message: 'The agent is connected and has not begun yet.',
    },
  );
}

function replicationHealthy(input: StatusInput): Decided {
  const type = ConditionType.ReplicationHealthy;
  if (input.acceptance === undefined && !input.vaultReadable) return unknown(type, notReadYet);
  const objection = replicationObjection(input);
  return objection === undefined
    ? holds(
        type,
        Reason.Replicating,
        `Changes arrive at process server ${input.processServer.name}.`,
      )
    : fails(type, objection);
}

function recoveryPointCurrent(input: StatusInput, durableMs: number | undefined): Decided {
  const type = ConditionType.RecoveryPointCurrent;
  const refused = pointsRefused(input);
  if (refused !== undefined) return fails(type, refused);
  if (durableMs === undefined)
    return unknown(type, {
      reason: Reason.NoBarrierYet,
      message: 'No barrier is in the vault yet.',
    });
  const rpo = rpoSeconds({ vaultNowMs: input.vaultNowMs, durableMs });
  return rpo <= input.rpoThresholdSeconds
    ? holds(
        type,
        Reason.WithinThreshold,
        `The newest barrier is younger than the policy's threshold of ${input.rpoThresholdText}.`,
      )
    : fails(type, {
        reason: Reason.ThresholdExceeded,
        message: `The newest barrier in the vault is of ${iso(durableMs)}, older than the policy's threshold of ${input.rpoThresholdText}. ReplicationHealthy says what is in its way.`,
      });
}

function resyncRequired(input: StatusInput): Decided {
  const type = ConditionType.ResyncRequired;
  const resync = input.machine?.resync;
  if (resync !== undefined && hasBarrier(input))
    return holds(
      type,
      fromCode(resync.reason),
      `The disks are compared with the vault (${RESYNC[resync.reason]}). No recovery point is made until it is done; earlier ones stay.`,
    );
  if (input.machine === undefined)
    return unknown(type, {
      reason: Reason.Pending,
      message: 'The process server has not reported the machine yet.',
    });
  return fails(type, {
    reason: Reason.TrackingComplete,
    message: 'Every write since the last barrier is accounted for.',
  });
}

/** Why what arrives becomes no recovery point. That another holds the replica, as a failover does, passes by itself. */
function pointsRefused({ applied }: Pick<StatusInput, 'applied'>): Objection | undefined {
  const error = applied?.error;
  return error === undefined || error.code === 'ReplicaHeld' || error.code === 'ReplicaFenced'
    ? undefined
    : {
        reason: fromCode(error.code),
        message: `The applier makes no recovery points: ${error.message}`,
      };
}

const RESYNC: Record<NonNullable<MachineStatus['resync']>['reason'], string> = {
  Initial: 'for the first time',
  TrackingLost: 'the tracer lost sight of writes',
  AfterReboot: 'the machine was restarted',
  SourceReverted: 'the machine went back to an older state',
  DiskResized: 'a disk has another size',
  VaultGap: 'the vault lacks something that the source no longer remembers',
  Manual: 'asked for by resyncRequest',
};

function recoverable(input: StatusInput): Decided {
  const type = ConditionType.Recoverable;
  const count = input.points?.count ?? input.before?.recoveryPoints?.count;
  if (count === undefined && !input.vaultReadable) return unknown(type, notReadYet);
  if ((count ?? 0) === 0)
    return fails(type, {
      reason: Reason.NoPointYet,
      message: 'There is no recovery point yet.',
    });
  if (!input.vaultReadable)
    return unknown(type, {
      reason: Reason.VaultUnreachable,
      message: 'The vault can’t be read now; it held recovery points when it last could.',
    });
  if (input.catalog?.activeSide === 'Azure')
    return fails(type, {
      reason: Reason.ActiveInAzure,
      message: 'The machine runs in Azure already.',
    });
  if (input.target === undefined)
    return unknown(type, {
      reason: Reason.Pending,
      message: 'There are recovery points; Azure has not been asked yet whether the target fits.',
    });
  if (input.target.objection !== undefined)
    return fails(type, {
      reason: input.target.objection.reason,
      message: `The target is not valid: ${input.target.objection.message}`,
    });
  return holds(
    type,
    Reason.PointAvailable,
    'The machine can be brought up from its recovery points.',
  );
}

function targetValid(input: StatusInput): Decided {
  const type = ConditionType.TargetValid;
  if (input.target === undefined)
    return unknown(type, { reason: Reason.Pending, message: 'Azure has not been asked yet.' });
  return input.target.objection === undefined
    ? holds(type, Reason.TargetFits, 'Resource group, network and size exist and fit the machine.')
    : fails(type, input.target.objection);
}

function sourceStillRunning(input: StatusInput): Decided {
  const type = ConditionType.SourceStillRunning;
  const inAzure = input.catalog?.activeSide === 'Azure' || input.machine?.fenced?.by === 'Seal';
  if (!inAzure)
    return fails(type, {
      reason: Reason.Replicating,
      message: 'The machine runs at its source, as it should.',
    });
  if (input.machine === undefined || processServerSilent(silence(input)))
    return unknown(type, {
      reason: Reason.ProcessServerSilent,
      message: 'Nobody can see the source: its process server does not report.',
    });
  return input.machine.agent.connected
    ? holds(
        type,
        Reason.SourceWrites,
        'The machine was failed over to Azure, but its source still runs: two of it may write to the outside. Shut the source down.',
      )
    : fails(type, {
        reason: Reason.SourceSilent,
        message: 'The source has not been seen since its journal was sealed.',
      });
}

function summary(input: StatusInput, parts: readonly Decided[]): Decided[] {
  const { Ready, Reconciling, Stalled } = ConditionType;
  if (input.deletion !== undefined) return beingDeleted(input.deletion);
  const broken = parts.find((part) => part.status !== BEST[part.type]);
  if (broken === undefined) return allDone('The machine is protected.');
  const stuck = input.acceptance !== undefined && !passesByItself(input.acceptance);
  return [
    fails(Ready, broken),
    stuck
      ? fails(Reconciling, {
          reason: broken.reason,
          message: 'Waits for somebody to correct what Ready says.',
        })
      : holds(Reconciling, broken.reason, broken.message),
    stuck ? holds(Stalled, broken.reason, broken.message) : notStalled(),
  ];
}

/** What each condition is when all is well. */
const BEST: Record<string, 'True' | 'False'> = {
  [ConditionType.Accepted]: 'True',
  [ConditionType.InitialReplicationComplete]: 'True',
  [ConditionType.ReplicationHealthy]: 'True',
  [ConditionType.RecoveryPointCurrent]: 'True',
  [ConditionType.ResyncRequired]: 'False',
  [ConditionType.Recoverable]: 'True',
  [ConditionType.TargetValid]: 'True',
  [ConditionType.SourceStillRunning]: 'False',
};

const notReadYet: Objection = {
  reason: Reason.VaultNotReady,
  message: 'The vault could not be read yet.',
};

function hasBarrier(input: StatusInput): boolean {
  return (
    (input.points?.count ?? input.before?.recoveryPoints?.count ?? 0) > 0 ||
    input.machine?.uploadedBarrier !== undefined ||
    input.before?.initialReplication?.finishedAt !== undefined
  );
}

function silence(input: StatusInput) {
  return { now: input.vaultNowMs, processServer: input.processServer };
}

function replicationObjection(input: StatusInput): Objection | undefined {
  return firstObjection(replicationChecks, {
    ...silence(input),
    accepted: input.acceptance === undefined,
    paused: input.paused,
    enrolled: input.enrolled,
    machine: input.machine,
  });
}

// ------------------------------------------------------------------------------------------------------------------- fields

function phaseOf(input: StatusInput, conditions: readonly Decided[]): string {
  const is = (type: string) => conditions.find((one) => one.type === type)?.status === 'True';
  if (input.deletion !== undefined) return 'Deleting';
  if (!is(ConditionType.Accepted))
    return input.acceptance !== undefined && passesByItself(input.acceptance)
      ? 'Waiting'
      : 'Rejected';
  if (input.catalog?.activeSide === 'Azure') return 'InAzure';
  if (input.catalog?.activeFailover !== undefined) return 'FailingOver';
  if (input.paused) return 'Paused';
  if (!is(ConditionType.InitialReplicationComplete))
    return input.machine?.resync === undefined ? 'WaitingForAgent' : 'InitialReplication';
  if (is(ConditionType.ResyncRequired)) return 'Resync';
  return is(ConditionType.ReplicationHealthy) && is(ConditionType.RecoveryPointCurrent)
    ? 'Protected'
    : 'Degraded';
}

function fieldsOf(input: StatusInput, durableMs: number | undefined): Shown['status'] {
  const { catalog, machine, applied } = input;
  const progress = progressOf(machine);
  const initial = initialReplicationField(input, progress, durableMs);
  const status: Shown['status'] = {
    ...lastKnown(input),
    ...(catalog === undefined ? {} : catalogFields(catalog, machine)),
    ...(input.offeredDisks === undefined ? {} : { offeredDisks: input.offeredDisks }),
    ...(machine === undefined ? {} : machineFields(machine)),
    ...(initial === undefined ? {} : { initialReplication: initial }),
    ...(progress === undefined || !hasBarrier(input)
      ? {}
      : { resync: { reason: progress.reason, ...progressField(progress) } }),
    ...(durableMs === undefined ? {} : { lastBarrierTime: iso(durableMs) }),
    ...(input.points === undefined ? {} : { recoveryPoints: pointsField(input.points) }),
  };
  if (machine !== undefined || applied !== undefined) {
    status.positions = {
      ...(machine === undefined
        ? {}
        : {
            captured: String(machine.positions.capturedLsn),
            journaled: String(machine.positions.journaledLsn),
            uploaded: String(machine.positions.uploadedLsn),
          }),
      ...(applied === undefined ? {} : { applied: String(applied.appliedLsn) }),
      ...(recoveryPointLsn(input) === undefined
        ? {}
        : { recoveryPoint: String(recoveryPointLsn(input)) }),
    };
    status.bytesBehind = {
      ...(machine === undefined
        ? {}
        : { agent: machine.backlog.agentBytes, cache: machine.backlog.cacheBytes }),
      ...(applied === undefined ? {} : { applier: applied.behindBytes }),
    };
  }
  return status;
}

/**
 * Facts of the machine that stay true while nobody can look: after a restart, or while the vault does not answer, a status that
 * forgot them would take the machine from its process server.
 */
function lastKnown({ before, catalog, points }: StatusInput): Shown['status'] {
  const { machineId, activeSide, activeFailover, disks, recoveryPoints } = before ?? {};
  return {
    ...(catalog !== undefined || machineId === undefined ? {} : { machineId }),
    ...(catalog !== undefined || activeSide === undefined ? {} : { activeSide }),
    ...(catalog !== undefined || activeFailover === undefined ? {} : { activeFailover }),
    ...(catalog !== undefined || disks === undefined ? {} : { disks }),
    ...(points !== undefined || recoveryPoints === undefined ? {} : { recoveryPoints }),
  };
}

export function recoveryPointLsn(
  input: Pick<StatusInput, 'applied' | 'points'>,
): bigint | undefined {
  return input.points?.recent[0]?.lsn ?? input.applied?.recoveryPointLsn;
}

function catalogFields(
  catalog: CatalogDocument,
  machine: MachineStatus | undefined,
): Shown['status'] {
  return {
    machineId: catalog.machineId,
    activeSide: catalog.activeSide,
    ...(catalog.activeFailover === undefined ? {} : { activeFailover: catalog.activeFailover }),
    disks: catalog.disks.map((disk) => {
      const error = machine?.disks.find((reported) => reported.index === disk.index)?.error;
      return {
        name: disk.name,
        index: disk.index,
        sizeBytes: disk.sizeBytes,
        ...(error === undefined ? {} : { error: error.slice(0, 4096) }),
      };
    }),
  };
}

function machineFields(machine: MachineStatus): Shown['status'] {
  const { agent, barriers } = machine;
  return {
    agent: {
      connected: agent.connected,
      ...(agent.lastSeenMs === undefined ? {} : { lastSeen: iso(agent.lastSeenMs) }),
      ...(agent.version === undefined ? {} : { version: agent.version.slice(0, 128) }),
      ...(agent.hostname === undefined ? {} : { hostname: agent.hostname.slice(0, 256) }),
      ...(agent.kernel === undefined ? {} : { kernel: agent.kernel.slice(0, 256) }),
    },
    barriers: {
      count: barriers.count,
      voided: barriers.voided,
      lastFreezeMs: Math.round(barriers.lastFreezeMs),
      maxFreezeMs: Math.round(barriers.maxFreezeMs),
      ...(barriers.lastVoid === undefined ? {} : { lastVoid: barriers.lastVoid.slice(0, 4096) }),
    },
    ...(machine.resyncToken === undefined ? {} : { resyncToken: machine.resyncToken.slice(0, 63) }),
  };
}

function initialReplicationField(
  input: StatusInput,
  progress: Progress | undefined,
  durableMs: number | undefined,
): ProtectedVMStatus['initialReplication'] {
  const before = input.before?.initialReplication;
  const ended = input.machine?.lastResync;
  if (before?.finishedAt !== undefined) return before;
  // Told by the agent itself: it may have been too quick for anybody to see it under way.
  if (ended?.reason === 'Initial') return endedField(ended);
  if (hasBarrier(input))
    return {
      ...before,
      ...(before?.bytesTotal === undefined ? {} : { bytesDone: before.bytesTotal }),
      percent: 100,
      etaSeconds: 0,
      finishedAt: iso(durableMs ?? input.vaultNowMs),
    };
  return progress === undefined ? before : progressField(progress);
}

function endedField(ended: EndedResync): NonNullable<ProtectedVMStatus['initialReplication']> {
  const seconds = (ended.finishedMs - ended.startedMs) / 1000;
  return {
    bytesTotal: ended.bytesTotal,
    bytesDone: ended.bytesTotal,
    bytesSent: ended.bytesSent,
    percent: 100,
    ...(seconds > 0 ? { bytesPerSecond: Math.round(ended.bytesTotal / seconds) } : {}),
    etaSeconds: 0,
    startedAt: iso(ended.startedMs),
    finishedAt: iso(ended.finishedMs),
  };
}

function progressField(progress: Progress): NonNullable<ProtectedVMStatus['initialReplication']> {
  return {
    bytesTotal: progress.bytesTotal,
    bytesDone: progress.bytesDone,
    bytesSent: progress.bytesSent,
    percent: progress.percent,
    bytesPerSecond: Math.round(progress.bytesPerSecond),
    ...(progress.etaSeconds === undefined ? {} : { etaSeconds: progress.etaSeconds }),
    startedAt: iso(progress.startedMs),
  };
}

function pointsField(points: PointsSummary): NonNullable<ProtectedVMStatus['recoveryPoints']> {
  const point = (one: NonNullable<PointsSummary['oldest']>) => ({
    name: one.name,
    lsn: String(one.lsn),
    time: iso(one.timeMs),
  });
  return {
    count: points.count,
    ...(points.oldest === undefined ? {} : { oldestTime: iso(points.oldest.timeMs) }),
    ...(points.newestCrash === undefined ? {} : { newestCrash: point(points.newestCrash) }),
    ...(points.newestApp === undefined ? {} : { newestApp: point(points.newestApp) }),
    recent: points.recent.map((one) => ({ ...point(one), consistency: one.consistency })),
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
