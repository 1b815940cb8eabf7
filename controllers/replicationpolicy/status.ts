/** What a ReplicationPolicy shows: who follows it, and the worst of them. Pure. */
import type { ReplicationPolicyStatus } from '../../crds/index.ts';
import type { Decided } from '../decisions.ts';
import { allDone } from '../summary.ts';

export interface PolicyStatusInput {
  machines: number;
  /** Of those that have one. */
  rpoSeconds: readonly number[];
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
    conditions: allDone('Machines that name the policy follow it.'),
  };
}
