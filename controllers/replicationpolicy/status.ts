/** What a ReplicationPolicy shows: who follows it, and the worst of them. Pure. */
import { ConditionType, Reason, type ReplicationPolicyStatus } from '../../crds/index.ts';
import { type Decided, fails, holds } from '../decisions.ts';

export interface PolicyStatusInput {
  machines: number;
  /** Of those that have one. */
  rpoSeconds: readonly number[];
}

export function showPolicy(input: PolicyStatusInput): {
  status: Omit<ReplicationPolicyStatus, 'conditions' | 'observedGeneration'>;
  conditions: Decided[];
} {
  const { Ready, Reconciling, Stalled } = ConditionType;
  return {
    status: {
      machines: input.machines,
      ...(input.rpoSeconds.length === 0 ? {} : { worstRpoSeconds: Math.max(...input.rpoSeconds) }),
    },
    conditions: [
      holds(Ready, Reason.Succeeded, 'Machines that name the policy follow it.'),
      fails(Reconciling, { reason: Reason.Succeeded, message: 'Nothing is left to do.' }),
      fails(Stalled, { reason: Reason.Succeeded, message: 'Nothing stands in the way.' }),
    ],
  };
}
