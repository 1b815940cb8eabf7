/** What Events tell of a Failover: that it was accepted or refused, each step that ended, its outcome. Pure. */
import { type Failover, Reason } from '../../crds/index.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { Objection } from '../decisions.ts';
import { conditionOf } from '../runtime/conditions.ts';
import type { Happening } from '../runtime/eventRecorder.ts';

export function accepted({ name, request }: FailoverDocument): Happening {
  return {
    type: 'Normal',
    reason: Reason.Accepted,
    message: `${request.type} failover ${name} of machine ${request.machineName} was accepted.`,
  };
}

/** What happened since the status was last written. */
export function happeningsOf(
  resource: Failover,
  seen: { ledger: FailoverDocument | undefined; objection: Objection | undefined },
): Happening[] {
  const { ledger, objection } = seen;
  const happenings: Happening[] = [];
  const before = conditionOf(resource, 'Accepted');
  if (objection !== undefined && before?.reason !== objection.reason)
    happenings.push({ type: 'Warning', ...objection });
  const known = new Map(resource.status?.steps?.map((step) => [step.name, step.state]));
  for (const step of ledger?.steps ?? []) {
    if (step.state === 'Running' || known.get(step.name) === step.state) continue;
    happenings.push({
      type: step.state === 'Done' ? 'Normal' : 'Warning',
      reason: step.state === 'Done' ? Reason.Progressing : Reason.StepFailed,
      message: `Step ${step.name}: ${step.message ?? step.state}`,
    });
  }
  const was = resource.status?.phase;
  if (ledger !== undefined && ledger.outcome !== 'Running' && was !== ledger.outcome)
    happenings.push({
      type: ledger.outcome === 'Failed' ? 'Warning' : 'Normal',
      reason: ledger.outcome === 'Failed' ? Reason.StepFailed : Reason.Succeeded,
      message: `Failover ${ledger.name} of machine ${ledger.request.machineName} came to ${ledger.outcome}.`,
    });
  return happenings;
}
