/** Everything that a ProtectedVM shows: its conditions (conditions.ts), its fields (fields.ts), its phase. Pure. */
import { ConditionType } from '../../crds/index.ts';
import type { Decided } from '../decisions.ts';
import { newestSound } from '../openvaults/points.ts';
import { passesByItself } from '../summary.ts';
import { conditionsOf, pointsRefused } from './conditions.ts';
import { fieldsOf, type MachineFields } from './fields.ts';
import { newestDurableMs } from './policies.ts';
import type { StatusInput } from './statusInput.ts';

export interface Shown {
  status: MachineFields;
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
      newestPointMs: input.points && newestSound(input.points)?.timeMs,
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

/** A column for people, computed from the conditions and never read back. */
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
