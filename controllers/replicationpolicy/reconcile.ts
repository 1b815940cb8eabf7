/** ReplicationPolicy: counts who follows it. What it says reaches machines through their own controllers. */
import { farshoreTypes, type ReplicationPolicyStatus } from '../../crds/index.ts';
import { isTimeZone } from '../../vault/documents/weeklyWindow.ts';
import { type Environment, namespaceOf } from '../environment.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';
import { rpoSeconds } from '../vaultTime.ts';
import { showPolicy } from './status.ts';

const type = farshoreTypes.replicationPolicy;
const LOOK_AGAIN_MS = 15_000;

export class ReplicationPolicyReconciler {
  readonly #environment: Environment;

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  async reconcile(key: ObjectKey, context: ReconcileContext): Promise<ReconcileResult> {
    const { caches, figures, status } = this.#environment;
    const resource = caches.policies.get(key);
    if (resource === undefined) return {};
    const namespace = namespaceOf(resource);
    const followers = new Set(
      caches.machines
        .list()
        .filter(
          (one) =>
            namespaceOf(one) === namespace && one.spec.policyRef.name === resource.metadata.name,
        )
        .map((one) => one.metadata.name),
    );
    const rpos: number[] = [];
    for (const machine of figures.machines) {
      const { durableMs } = machine.figures;
      if (machine.namespace === namespace && followers.has(machine.name) && durableMs !== undefined)
        rpos.push(rpoSeconds({ vaultNowMs: machine.figures.vaultNow(), durableMs }));
    }
    const { timeZone } = resource.spec.resyncWindow ?? {};
    const shown = showPolicy({
      machines: followers.size,
      rpoSeconds: rpos,
      unknownTimeZone: timeZone === undefined || isTimeZone(timeZone) ? undefined : timeZone,
    });
    const written = await status.write<ReplicationPolicyStatus>(
      type,
      resource,
      { ...shown.status, conditions: shown.conditions },
      { signal: context.signal, promptly: ['machines'] },
    );
    return {
      requeueAfterMs:
        written.outcome === 'deferred'
          ? Math.min(written.retryAfterMs, LOOK_AGAIN_MS)
          : LOOK_AGAIN_MS,
    };
  }
}
