/** What Events tell of a ProtectedVM: conditions that turned, each time, and what else goes wrong while one is bad. Pure. */
import { ConditionType, Reason } from '../../crds/index.ts';
import type { Condition } from '../../platform/kubernetes.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { Decided } from '../decisions.ts';
import type { Happening } from '../runtime/eventRecorder.ts';

const TOLD: ReadonlySet<string> = new Set([
  ConditionType.Accepted,
  ConditionType.InitialReplicationComplete,
  ConditionType.ReplicationHealthy,
  ConditionType.RecoveryPointCurrent,
  ConditionType.ResyncRequired,
  ConditionType.TargetValid,
  ConditionType.SourceStillRunning,
]);
const BAD_WHEN_TRUE: ReadonlySet<string> = new Set([
  ConditionType.ResyncRequired,
  ConditionType.SourceStillRunning,
]);

/** Another process server protects the machine from now on. */
export function moved(before: CatalogDocument | undefined, now: CatalogDocument): Happening[] {
  if (before?.processServer === undefined || before.processServer === now.processServer) return [];
  return [
    {
      type: 'Warning',
      reason: Reason.ProcessServerReplaced,
      message: `Process server ${now.processServer} took over from ${before.processServer} under writer epoch ${now.writerEpoch}; only what was not in the vault is sent again.`,
    },
  ];
}

/** Of what a new resource shows, only that it is refused is news. */
export function happeningsOf(
  before: readonly Condition[],
  decided: readonly Decided[],
): Happening[] {
  const known = new Map(before.map((one) => [one.type, one]));
  const happenings: Happening[] = [];
  for (const { type, status, reason, message } of decided) {
    const was = known.get(type);
    const bad = status === (BAD_WHEN_TRUE.has(type) ? 'True' : 'False');
    const isOld = was?.status === status && !(bad && was.reason !== reason);
    if (!TOLD.has(type) || isOld) continue;
    if (was === undefined && !(bad && type === ConditionType.Accepted)) continue;
    happenings.push({ type: bad ? 'Warning' : 'Normal', reason, message });
  }
  return happenings;
}
