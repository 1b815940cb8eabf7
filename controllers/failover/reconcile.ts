/** Failover: accepted once, entered in the vault's ledger, run from there; the resource's status is a copy of the ledger. */
import { type Failover, type FailoverStatus, farshoreTypes } from '../../crds/index.ts';
import type { Logger } from '../../platform/ports.ts';
import { desire, runFailover } from '../../recovery/failover.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import type { Objection } from '../decisions.ts';
import { type Environment, isDeleted, namespaceOf } from '../environment.ts';
import { assertInControl, isControlled } from '../openvaults/openVaults.ts';
import { type Deletion, hold, mayGo, release } from '../ownFinalizer.ts';
import { conditionOf } from '../runtime/conditions.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { keyOf, nameOfKey, type ObjectKey } from '../runtime/objectKey.ts';
import { leftBehind, objectionToGoing, type Seen } from './deletion.ts';
import { accepted, happeningsOf } from './events.ts';
import { failoverFigures } from './figures.ts';
import { gatherInput } from './gather.ts';
import { decideDesire, isAtRest, isFinal, objectionTo } from './policies.ts';
import { recoveryDeps } from './recoveryDeps.ts';
import { firstEntry, requestOf } from './request.ts';
import { type Scope, scopeOf } from './scope.ts';
import { showFailover } from './status.ts';
import { FailoverTasks } from './tasks.ts';

const type = farshoreTypes.failover;
/** Another cluster may run it: then only the ledger says how far it is. */
const LOOK_AGAIN_MS = 10_000;
const REST_MS = 300_000;
const PROMPTLY = [
  'phase',
  'currentStep',
  'steps',
  'recoveryPoint',
  'rtoSeconds',
  'rootsMatch',
  'vmId',
] as const;

export interface FailoverDeps {
  environment: Environment;
  log: Logger;
  /** How often a step that waits for something looks again. */
  stepPollMs: number;
  /** recovery/failover.ts, unless a test stands in. */
  run?: typeof runFailover | undefined;
}

export class FailoverReconciler {
  readonly #environment: Environment;
  readonly #deps: FailoverDeps;
  readonly #tasks: FailoverTasks;

  constructor(deps: FailoverDeps) {
    this.#deps = deps;
    this.#environment = deps.environment;
    this.#tasks = new FailoverTasks({
      clock: deps.environment.clock,
      onChange: (key) => deps.environment.enqueue('failovers', key),
    });
  }

  /** Resolves when every running failover has stopped; leadership's signal must have aborted. */
  async ended(): Promise<void> {
    await this.#tasks.ended();
  }

  async reconcile(key: ObjectKey, context: ReconcileContext): Promise<ReconcileResult> {
    const environment = this.#environment;
    const cached = environment.caches.failovers.get(key);
    if (cached === undefined) return await this.#forget(key);
    const resource = await hold(environment, type, cached);
    const scope = scopeOf(environment, resource);
    let ledger = await this.#readLedger(key, scope);
    let objection = await this.#objection(resource, { scope, ledger });
    if (objection === undefined && ledger === undefined && !isDeleted(resource)) {
      ledger = await this.#accept(resource, scope);
      // Somebody else may have entered one under this name since we looked.
      if (ledger !== undefined) objection = await this.#objection(resource, { scope, ledger });
    }
    if (objection === undefined && ledger !== undefined)
      ledger = await this.#advance(resource, { scope, ledger, context });
    const deletion = isDeleted(resource)
      ? await this.#letGo(resource, { scope, ledger, objection })
      : undefined;
    if (deletion?.gone) return await this.#forget(key);
    const shown = { objection, ledger, deletion: deletion?.objection };
    return await this.#show(resource, shown, context);
  }

  async #readLedger(key: ObjectKey, scope: Scope): Promise<FailoverDocument | undefined> {
    const newest = this.#tasks.newest(key);
    if (newest !== undefined || scope.vault === undefined) return newest;
    return (await LedgerEntry.read(scope.vault.stores.objects, nameOfKey(key).name))?.document;
  }

  /** Why it can't begin; undefined when it may, or has. */
  async #objection(
    resource: Failover,
    seen: { scope: Scope; ledger: FailoverDocument | undefined },
  ): Promise<Objection | undefined> {
    const input = await gatherInput(this.#environment, resource, seen);
    return objectionTo(input, conditionOf(resource, 'Accepted'));
  }

  /** Enters it in the ledger, under its name at most once. */
  async #accept(resource: Failover, scope: Scope): Promise<FailoverDocument | undefined> {
    const { machine, vault, vaultResource } = scope;
    const machineId = machine?.status?.machineId;
    if (machine === undefined || vaultResource === undefined || machineId === undefined)
      return undefined;
    if (!isControlled(vault)) return undefined;
    await assertInControl(vault);
    const { clock, events, random } = this.#environment;
    const request = requestOf({ failover: resource, machine, machineId, vault: vaultResource });
    const document = firstEntry({ random, now: clock.now() }, vault, {
      failover: resource,
      request,
    });
    const entry = await LedgerEntry.accept(vault.stores.objects, document);
    if (entry.document.failoverId === document.failoverId)
      events.record(resource, accepted(document));
    return entry.document;
  }

  /** Forwards what people want, and has the failover run wherever there is something to do. */
  async #advance(
    resource: Failover,
    options: { scope: Scope; ledger: FailoverDocument; context: ReconcileContext },
  ): Promise<FailoverDocument> {
    const { scope, context } = options;
    let { ledger } = options;
    const { vault, vaultKey } = scope;
    if (!isControlled(vault) || vaultKey === undefined) return ledger;
    const key = keyOf(resource);
    const wanted = decideDesire(resource.spec, ledger, { deleted: isDeleted(resource) });
    if (wanted !== undefined) {
      await assertInControl(vault);
      // The task would lose the race for the entry in the middle of a step; it goes on from the ledger instead.
      await this.#tasks.stop(key);
      ledger = (await desire(ledger.name, { objects: vault.stores.objects }, wanted)) ?? ledger;
    }
    if (this.#tasks.isRunning(key) || this.#tasks.waitMs(key) > 0 || isAtRest(ledger))
      return ledger;
    const run = this.#deps.run ?? runFailover;
    const deps = recoveryDeps(this.#deps, vault, vaultKey);
    this.#tasks.start(key, (task) => run(ledger.name, deps, task), {
      signal: context.signal,
      log: context.logger,
    });
    return ledger;
  }

  async #show(
    resource: Failover,
    seen: Seen & { deletion: Objection | undefined },
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { events, figures, status } = this.#environment;
    const { objection, ledger } = seen;
    const { name } = resource.metadata;
    const shown = showFailover({
      ...seen,
      final: objection !== undefined && isFinal(objection),
      adopted: ledger !== undefined && ledger.uid !== resource.metadata.uid,
    });
    for (const happening of happeningsOf(resource, seen)) events.record(resource, happening);
    if (ledger !== undefined)
      figures.failovers.set({ namespace: namespaceOf(resource), name }, failoverFigures(ledger));
    const written = await status.write<FailoverStatus>(
      type,
      resource,
      { ...shown.status, conditions: shown.conditions },
      { signal: context.signal, promptly: PROMPTLY },
    );
    const waits = [
      written.outcome === 'deferred' ? written.retryAfterMs : REST_MS,
      this.#tasks.waitMs(keyOf(resource)) || REST_MS,
      ledger === undefined || ledger.outcome === 'Running' || seen.deletion !== undefined
        ? LOOK_AGAIN_MS
        : REST_MS,
    ];
    return { requeueAfterMs: Math.min(...waits) };
  }

  async #letGo(resource: Failover, seen: Seen & { scope: Scope }): Promise<Deletion> {
    const environment = this.#environment;
    const objection = objectionToGoing(environment, resource, seen);
    const title = `Failover ${resource.metadata.name}`;
    const mayLeave = mayGo(environment, resource, {
      title,
      objection,
      leftBehind: leftBehind(seen),
    });
    if (!mayLeave) return { gone: false, objection };
    await this.#tasks.stop(keyOf(resource));
    await release(environment, type, resource);
    return { gone: true, objection };
  }

  async #forget(key: ObjectKey): Promise<ReconcileResult> {
    await this.#tasks.stop(key);
    this.#tasks.forget(key);
    const { namespace = '', name } = nameOfKey(key);
    this.#environment.figures.failovers.remove({ namespace, name });
    return {};
  }
}
