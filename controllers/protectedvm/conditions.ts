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
        message: `The newest barrier in the vault is of ${new Date(durableMs).toISOString()}, older than the policy's threshold of ${input.rpoThresholdText}. ${whatIsInTheWay(input)}`,
      });
}

/** A barrier may be void for a reason that only the process server saw, with everything else well. */
function whatIsInTheWay({ machine }: StatusInput): string {
  const lastVoid = machine?.barriers.lastVoid;
  const of = lastVoid === undefined ? '' : ` The last barrier that was void: ${lastVoid}`;
  return `ReplicationHealthy says what is in its way.${of}`;
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
  const required = input.machine?.resyncRequired;
  if (required !== undefined && hasBarrier(input))
    return holds(
      type,
      fromCode(required.reason),
      `The disks have to be compared with the vault (${RESYNC[required.reason]}). No recovery point is made until that is done; earlier ones stay. ${whenItBegins(required)}`,
    );
  const damage = damageText(input);
  if (damage !== undefined) return holds(type, Reason.ChecksumMismatch, damage);
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

function whenItBegins({ waitsUntilMs }: NonNullable<MachineStatus['resyncRequired']>): string {
  return waitsUntilMs === undefined
    ? 'It begins as soon as the agent can; ReplicationHealthy says what is in its way.'
    : `It waits for the policy's resyncWindow, which opens at ${new Date(waitsUntilMs).toISOString()}; set spec.resyncRequest, or the annotation farshore.dev/resync-now, to begin at once.`;
}

/** Why what arrives becomes no recovery point. That another holds the replica, as a failover does, passes by itself. */
export function pointsRefused(
  input: Pick<StatusInput, 'applied' | 'catalog'>,
): Objection | undefined {
  const error = input.applied?.error;
  if (error !== undefined && error.code !== 'ReplicaHeld' && error.code !== 'ReplicaFenced')
    return {
      reason: fromCode(error.code),
      message: `The applier makes no recovery points: ${error.message}`,
    };
  const damage = damageText(input);
  return damage === undefined ? undefined : { reason: Reason.ChecksumMismatch, message: damage };
}

const DAMAGE_NAMED = 4;

/** What sampled verification found, until the source has sent it again. */
function damageText({
  applied,
  catalog,
}: Pick<StatusInput, 'applied' | 'catalog'>): string | undefined {
  const damaged = applied?.damaged ?? [];
  if (damaged.length === 0) return undefined;
  const named = damaged.slice(0, DAMAGE_NAMED).map(({ disk, leaf }) => {
    const name = catalog?.disks.find(({ index }) => index === disk)?.name ?? String(disk);
    return `leaf ${leaf} of disk ${name} (from byte ${leaf * LEAF_BYTES})`;
  });
  const more = damaged.length > DAMAGE_NAMED ? ` and ${damaged.length - DAMAGE_NAMED} more` : '';
  return `The replica in the storage account is not what the source sent: ${named.join(', ')}${more}. The agent sends these leaves again; recovery points that hold them are marked damaged, and those made until then too. Find out what happened to the storage account.`;
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

/** Of a leaf (dataplane/journal/record.ts). */
const LEAF_BYTES = 65_536;

function recoverable(input: StatusInput): Decided {
  const type = ConditionType.Recoverable;
  const count = input.points?.count ?? input.before?.recoveryPoints?.count;
  if (count === undefined && !input.vaultReadable) return unknown(type, notReadYet);
  if ((count ?? 0) === 0)
    return fails(type, {
      reason: Reason.NoPointYet,
      message: 'There is no recovery point yet.',
    });
  if (input.points?.damaged !== undefined && input.points.damaged.newestSound === undefined)
    return fails(type, {
      reason: Reason.ChecksumMismatch,
      message:
        'Every recovery point is marked damaged: some leaves are not what the source sent. A Failover with verify None brings one up all the same.',
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
