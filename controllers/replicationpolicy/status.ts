/** What a ReplicationPolicy shows: who follows it, and the worst of them. Pure. */
import type { ReplicationPolicyStatus } from '../../crds/index.ts';
import { ConditionType, Reason } from '../../crds/index.ts';
import { type Decided, fails, holds, type Objection } from '../decisions.ts';
import { allDone } from '../summary.ts';

export interface PolicyStatusInput {
  machines: number;
  /** Of those that have one. */
  rpoSeconds: readonly number[];
  /** Of its resyncWindow, when nobody knows it. */
  unknownTimeZone: string | undefined;
}

export function showPolicy(input: PolicyStatusInput): {
  status: Omit<ReplicationPolicyStatus, 'conditions' | 'observedGeneration'>;
  conditions: Decided[];
} {
  return {
    status: {
      machines: input.machines,
      ...(input.rpoSeconds.length === 0 ? {} : { worstRpoSeconds: Math.max(...input.rpoSeconds) }),
    },
    conditions:
      input.unknownTimeZone === undefined
        ? allDone('Machines that name the policy follow it.')
        : notFollowed({
            reason: Reason.TimeZoneUnknown,
            message: `Time zone ${input.unknownTimeZone} of resyncWindow is not known to the operator: no resync waits. Use a name of the IANA time zone database, such as Europe/Zurich.`,
          }),
  };
}

function notFollowed(objection: Objection): Decided[] {
  const { Ready, Reconciling, Stalled } = ConditionType;
  const { reason, message } = objection;
  return [
    fails(Ready, objection),
    fails(Reconciling, { reason, message: 'Waits for somebody to correct what Ready says.' }),
    holds(Stalled, reason, message),
  ];
}
