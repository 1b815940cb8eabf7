/** Whether a Failover that was deleted can go: what a test made is removed, and whatever runs has ended. */
import { type Failover, Reason } from '../../crds/index.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { type Objection, vaultObjection } from '../decisions.ts';
import { type Environment, namespaceOf } from '../environment.ts';
import { isControlled } from '../openvaults/openVaults.ts';
import { conditionOf } from '../runtime/conditions.ts';
import { vaultFacts } from './gather.ts';
import { deletionObjection, isFinal } from './policies.ts';
import type { Scope } from './scope.ts';
import { resourcesOf } from './status.ts';

export interface Seen {
  ledger: FailoverDocument | undefined;
  objection: Objection | undefined;
}

export function objectionToGoing(
  environment: Pick<Environment, 'openVaults'>,
  resource: Failover,
  seen: Seen & { scope: Scope },
): Objection | undefined {
  const unread = unreadLedger(environment, resource, seen.scope);
  if (unread !== undefined) return unread;
  const held = deletionObjection(ownLedger(seen), isControlled(seen.scope.vault));
  // Whatever keeps us from acting on it keeps us from cleaning up, too.
  return held === undefined ? undefined : (seen.objection ?? held);
}

/** What stays in Azure of one that is let go by force. */
export function leftBehind(seen: Seen): string {
  const ledger = ownLedger(seen);
  const resources = ledger === undefined ? [] : resourcesOf(ledger);
  return resources.join(', ') || 'nothing that is known of';
}

/** What stands in the ledger under a name that is taken is not this resource's. */
function ownLedger({ ledger, objection }: Seen): FailoverDocument | undefined {
  return objection?.reason === Reason.NameTaken ? undefined : ledger;
}

/**
 * The ledger can't be read now: what it made is not known. A status that never says that it was accepted proves nothing, as the
 * operator may have died between the ledger and the status; that it was refused for good does.
 */
function unreadLedger(
  environment: Pick<Environment, 'openVaults'>,
  resource: Failover,
  scope: Scope,
): Objection | undefined {
  if (scope.vault !== undefined) return undefined;
  const accepted = conditionOf(resource, 'Accepted');
  const refused = accepted?.status === 'False' && isFinal(accepted);
  const neverBegan =
    resource.status?.acceptedAt === undefined && (refused || scope.vaultResource === undefined);
  if (neverBegan) return undefined;
  return vaultObjection({
    vault: vaultFacts(environment, resource, {
      scope,
      noMachine: 'its machine does not exist any more.',
    }),
    vaultRef: scope.vaultKey ?? '',
    namespace: namespaceOf(resource),
  });
}
