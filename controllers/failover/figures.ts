import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { FailoverFigures } from '../openvaults/figures.ts';

/** A failover's figures for the metrics: what its ledger entry says. */
export function failoverFigures(ledger: FailoverDocument): FailoverFigures {
  const count = (state: string) => ledger.steps.filter((step) => step.state === state).length;
  return {
    type: ledger.request.type,
    outcome: ledger.outcome,
    steps: { Running: count('Running'), Done: count('Done'), Failed: count('Failed') },
    rpoSeconds: ledger.rpoSeconds,
    rtoSeconds: ledger.rtoSeconds,
  };
}
