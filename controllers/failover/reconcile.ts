/** Failover: accepted once, entered in the vault's ledger, run from there; the resource's status is a copy of the ledger. */
import {
  type Failover,
  type FailoverStatus,
  FINALIZER,
  farshoreTypes,
  type ProtectedVM,
  Reason,
  type RecoveryVault,
} from '../../crds/index.ts';
import type { Logger } from '../../platform/ports.ts';
import type { RecoveryDeps } from '../../recovery/context.ts';
import { desire, runFailover } from '../../recovery/failover.ts';
import { holderOf } from '../../recovery/steps/catalog.ts';
import type { CatalogDocument } from '../../vault/documents.ts';
import { openDataKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { type FailoverDocument, LedgerEntry } from '../../vault/ledger.ts';
import { firstObjection, type Objection, vaultObjection } from '../decisions.ts';
import { type Environment, isDeleted, isForced, namespaceOf, vaultKeyOf } from '../environment.ts';
import {
  assertInControl,
  type ControlledVault,
  isControlled,
  type OpenVault,
} from '../openvaults/openVaults.ts';
import { conditionOf } from '../runtime/conditions.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { addFinalizer, removeFinalizer } from '../runtime/finalizers.ts';
import { keyOf, type ObjectKey } from '../runtime/objectKey.ts';
import {
  beginChecks,
  decideDesire,
  deletionObjection,
  type FailoverInput,
  isAtRest,
  isFinal,
  nameChecks,
} from './policies.ts';
import { firstEntry, requestOf } from './request.ts';
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
    const { caches, kube } = this.#environment;
    const cached = caches.failovers.get(key);
    if (cached === undefined) return await this.#forget(key);
    const resource = isDeleted(cached)
      ? cached
      : await addFinalizer(kube, { type, object: cached, finalizer: FINALIZER });
    const scope = this.#scope(resource);
    let ledger = await this.#readLedger(key, scope);
    let objection = await this.#objection(resource, scope, ledger);
    if (objection === undefined && ledger === undefined && !isDeleted(resource)) {
      ledger = await this.#accept(resource, scope);
      // Somebody else may have entered one under this name since we looked.
      if (ledger !== undefined) objection = await this.#objection(resource, scope, ledger);
    }
    if (objection === undefined && ledger !== undefined)
      ledger = await this.#advance(resource, { scope, ledger, context });
    const deletion = isDeleted(resource)
      ? await this.#letGo(resource, scope, { ledger, objection })
      : undefined;
    if (deletion?.gone) return await this.#forget(key);
    return await this.#show(
      resource,
      { objection, ledger, deletion: deletion?.objection },
      context,
    );
  }

  // ---------------------------------------------------------------------------------------------------------------- gather

  #scope(resource: Failover): Scope {
    const { caches, openVaults } = this.#environment;
    const machine = caches.machines.get(
      `${namespaceOf(resource)}/${resource.spec.machineRef.name}`,
    );
    const vaultKey = machine === undefined ? undefined : vaultKeyOf(machine);
    return {
      machine,
      vaultKey,
      vaultResource: vaultKey === undefined ? undefined : caches.vaults.get(vaultKey),
      vault: vaultKey === undefined ? undefined : openVaults.get(vaultKey),
    };
  }

  async #readLedger(key: ObjectKey, scope: Scope): Promise<FailoverDocument | undefined> {
    const newest = this.#tasks.newest(key);
    if (newest !== undefined || scope.vault === undefined) return newest;
    const [, name = ''] = key.split('/');
    return (await LedgerEntry.read(scope.vault.stores.objects, name))?.document;
  }

  /** Why it can't begin; undefined when it may, or has. */
  async #objection(
    resource: Failover,
    scope: Scope,
    ledger: FailoverDocument | undefined,
  ): Promise<Objection | undefined> {
    const input = await this.#gather(resource, scope, ledger);
    const unnamed = firstObjection(nameChecks, input);
    if (unnamed !== undefined || ledger !== undefined) return unnamed;
    const before = conditionOf(resource, 'Accepted');
    // Once refused for good it stays refused: nobody waits for it any more.
    if (before?.status === 'False' && isFinal(before)) return before;
    return firstObjection(beginChecks, input);
  }

  async #gather(
    resource: Failover,
    scope: Scope,
    ledger: FailoverDocument | undefined,
  ): Promise<FailoverInput> {
    const { machine, vault, vaultKey, vaultResource } = scope;
    const namespace = namespaceOf(resource);
    const accepted = machine === undefined ? undefined : conditionOf(machine, 'Accepted');
    const machineId = machine?.status?.machineId;
    const catalog = ledger === undefined ? await this.#catalog(vault, machineId) : undefined;
    const holder =
      catalog === undefined || vault === undefined
        ? undefined
        : await holderOf(vault.stores, catalog);
    const reported =
      catalog?.processServer === undefined
        ? undefined
        : vault?.observation.machine(catalog.processServer, catalog.machineId);
    const inVault = catalog !== undefined && vault !== undefined && ledger === undefined;
    return {
      name: resource.metadata.name,
      namespace,
      spec: resource.spec,
      machine: {
        exists: machine !== undefined,
        accepted: accepted?.status === 'True',
        message: accepted?.message,
      },
      vault:
        vaultKey === undefined
          ? { state: 'NotOpen', message: 'its machine does not exist.' }
          : this.#environment.openVaults.facts(vaultResource, vaultKey, namespace),
      vaultRef: vaultKey ?? '',
      ledger,
      catalog,
      otherActive: holder ?? this.#otherActive(resource),
      agentConnected: reported?.agent.connected ?? false,
      points: inVault
        ? await vault.points.summary(catalog.machineId, { appConsistent: false })
        : undefined,
      namedPointExists: inVault && (await hasPoint(vault, catalog.machineId, resource)),
      hasBarrier: reported?.uploadedBarrier !== undefined,
    };
  }

  /** As the vault holds it now: what was observed seconds ago may lack another failover's claim. */
  async #catalog(
    vault: OpenVault | undefined,
    machineId: string | undefined,
  ): Promise<CatalogDocument | undefined> {
    if (vault === undefined || machineId === undefined) return undefined;
    return (await vault.catalog.read(machineId))?.document;
  }

  /** Another Failover of the machine that was accepted and has not ended; the catalog learns of it a moment later. */
  #otherActive(resource: Failover): string | undefined {
    const { name } = resource.metadata;
    return this.#environment.caches.failovers
      .list()
      .find(
        (other) =>
          other.metadata.name !== name &&
          namespaceOf(other) === namespaceOf(resource) &&
          other.spec.machineRef.name === resource.spec.machineRef.name &&
          conditionOf(other, 'Accepted')?.status === 'True' &&
          ACTIVE.has(other.status?.phase ?? ''),
      )?.metadata.name;
  }

  // ------------------------------------------------------------------------------------------------------------------- act

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
      events.record(resource, {
        type: 'Normal',
        reason: Reason.Accepted,
        message: `${request.type} failover ${resource.metadata.name} of machine ${machine.metadata.name} was accepted.`,
      });
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
    const deps = this.#recoveryDeps(vault, vaultKey);
    this.#tasks.start(key, (task) => run(ledger.name, deps, task), {
      signal: context.signal,
      log: context.logger,
    });
    return ledger;
  }

  #recoveryDeps(vault: ControlledVault, vaultKey: ObjectKey): RecoveryDeps {
    const { clock, random, openVaults } = this.#environment;
    const { objects, pages, compute, images } = vault.stores;
    return {
      clock,
      random,
      logger: this.#deps.log,
      objects,
      pages,
      compute,
      images,
      pollMs: this.#deps.stepPollMs,
      openDataKey: async (catalog) =>
        openDataKey({
          sealed: catalog.dataKey,
          key: vault.boxKey,
          vaultId: vault.document.vaultId,
          machineId: catalog.machineId,
        }),
      // What is open now, not what was open when the task began: control may be gone.
      assertInControl: () => assertInControl(openVaults.get(vaultKey) ?? vault),
    };
  }

  // ------------------------------------------------------------------------------------------------------------------ show

  async #show(
    resource: Failover,
    seen: {
      objection: Objection | undefined;
      ledger: FailoverDocument | undefined;
      deletion: Objection | undefined;
    },
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { status } = this.#environment;
    const { objection, ledger } = seen;
    const shown = showFailover({
      ...seen,
      final: objection !== undefined && isFinal(objection),
      adopted: ledger !== undefined && ledger.uid !== resource.metadata.uid,
    });
    this.#tell(resource, ledger, objection);
    this.#setFigures(resource, ledger);
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

  /** What happened since the status was last written, step by step. */
  #tell(
    resource: Failover,
    ledger: FailoverDocument | undefined,
    objection: Objection | undefined,
  ): void {
    const { events } = this.#environment;
    const before = conditionOf(resource, 'Accepted');
    if (objection !== undefined && before?.reason !== objection.reason)
      events.record(resource, { type: 'Warning', ...objection });
    const known = new Map(resource.status?.steps?.map((step) => [step.name, step.state]));
    for (const step of ledger?.steps ?? []) {
      if (step.state === 'Running' || known.get(step.name) === step.state) continue;
      events.record(resource, {
        type: step.state === 'Done' ? 'Normal' : 'Warning',
        reason: step.state === 'Done' ? Reason.Progressing : Reason.StepFailed,
        message: `Step ${step.name}: ${step.message ?? step.state}`,
      });
    }
    const was = resource.status?.phase;
    if (ledger !== undefined && ledger.outcome !== 'Running' && was !== ledger.outcome)
      events.record(resource, {
        type: ledger.outcome === 'Failed' ? 'Warning' : 'Normal',
        reason: ledger.outcome === 'Failed' ? Reason.StepFailed : Reason.Succeeded,
        message: `Failover ${ledger.name} of machine ${ledger.request.machineName} came to ${ledger.outcome}.`,
      });
  }

  #setFigures(resource: Failover, ledger: FailoverDocument | undefined): void {
    if (ledger === undefined) return;
    const count = (state: string) => ledger.steps.filter((step) => step.state === state).length;
    this.#environment.figures.failovers.set(
      { namespace: namespaceOf(resource), name: resource.metadata.name },
      {
        type: ledger.request.type,
        outcome: ledger.outcome,
        steps: { Running: count('Running'), Done: count('Done'), Failed: count('Failed') },
        rpoSeconds: ledger.rpoSeconds,
        rtoSeconds: ledger.rtoSeconds,
      },
    );
  }

  // -------------------------------------------------------------------------------------------------------------- deletion

  async #letGo(
    resource: Failover,
    scope: Scope,
    seen: { ledger: FailoverDocument | undefined; objection: Objection | undefined },
  ): Promise<{ gone: boolean; objection: Objection | undefined }> {
    const { events, kube, status } = this.#environment;
    // What stands in the ledger under a name that is taken is not this resource's.
    const ledger = seen.objection?.reason === Reason.NameTaken ? undefined : seen.ledger;
    const held = deletionObjection(ledger, isControlled(scope.vault));
    const unread = this.#unread(resource, scope);
    // Whatever keeps us from acting on it keeps us from cleaning up, too.
    const objection = unread ?? (held === undefined ? undefined : (seen.objection ?? held));
    if (objection !== undefined && !isForced(resource)) return { gone: false, objection };
    if (objection !== undefined)
      events.record(resource, {
        type: 'Warning',
        reason: Reason.ForceDeleted,
        message: `Failover ${resource.metadata.name} was let go by force. Left behind: ${showFailover({ objection: undefined, final: false, deletion: undefined, ledger, adopted: false }).status.resources?.join(', ') || 'nothing that is known of'}`,
      });
    await this.#tasks.stop(keyOf(resource));
    await removeFinalizer(kube, { type, object: resource, finalizer: FINALIZER });
    status.forget(resource.metadata.uid);
    return { gone: true, objection };
  }

  /**
   * The ledger can't be read now: what it made is not known. A status that never says that it was accepted proves nothing, as the
   * operator may have died between the ledger and the status; that it was refused for good does.
   */
  #unread(resource: Failover, scope: Scope): Objection | undefined {
    if (scope.vault !== undefined) return undefined;
    const accepted = conditionOf(resource, 'Accepted');
    const refused = accepted?.status === 'False' && isFinal(accepted);
    const neverBegan =
      resource.status?.acceptedAt === undefined && (refused || scope.vaultResource === undefined);
    if (neverBegan) return undefined;
    return (
      vaultObjection({
        vault:
          scope.vaultKey === undefined
            ? { state: 'NotOpen', message: 'its machine does not exist any more.' }
            : this.#environment.openVaults.facts(
                scope.vaultResource,
                scope.vaultKey,
                namespaceOf(resource),
              ),
        vaultRef: scope.vaultKey ?? '',
        namespace: namespaceOf(resource),
      }) ?? undefined
    );
  }

  async #forget(key: ObjectKey): Promise<ReconcileResult> {
    await this.#tasks.stop(key);
    this.#tasks.forget(key);
    const [namespace = '', name = ''] = key.split('/');
    this.#environment.figures.failovers.remove({ namespace, name });
    return {};
  }
}

interface Scope {
  machine: ProtectedVM | undefined;
  vaultKey: ObjectKey | undefined;
  vaultResource: RecoveryVault | undefined;
  vault: OpenVault | undefined;
}

/** Phases in which a failover has its machine. */
const ACTIVE: ReadonlySet<string> = new Set(['Running', 'FailedOver']);

async function hasPoint(vault: OpenVault, machineId: string, resource: Failover): Promise<boolean> {
  const { recoveryPoint } = resource.spec;
  if (recoveryPoint.type !== 'Name' || !/^(0|[1-9][0-9]{0,18})$/.test(recoveryPoint.name ?? ''))
    return false;
  const key = vaultLayout.point(machineId, BigInt(recoveryPoint.name ?? ''));
  return (await vault.stores.objects.head(key)) !== undefined;
}
