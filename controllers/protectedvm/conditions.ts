/** Every condition of a ProtectedVM, all of them from the first visit. Pure. */
import { ConditionType, Reason } from '../../crds/index.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import {
  type Decided,
  fails,
  firstObjection,
  fromCode,
  holds,
  type Objection,
  unknown,
} from '../decisions.ts';
import { allDone, beingDeleted, notStalled, passesByItself } from '../summary.ts';
import { rpoSeconds } from '../vaultTime.ts';
import { processServerSilent, replicationChecks } from './policies.ts';
import type { StatusInput } from './statusInput.ts';

/** `durableMs`: time of the newest durable barrier, in the vault's clock; undefined before the first. */
export function conditionsOf(input: StatusInput, durableMs: number | undefined): Decided[] {
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
        message: `The newest barrier in the vault is of ${new Date(durableMs).toISOString()}, older than the policy's threshold of ${input.rpoThresholdText}. ReplicationHealthy says what is in its way.`,
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
export function pointsRefused({ applied }: Pick<StatusInput, 'applied'>): Objection | undefined {
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

/** Whether a first copy of all disks is in the vault. */
export function hasBarrier(input: StatusInput): boolean {
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
