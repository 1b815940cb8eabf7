/** ProcessServer: its objects in the cluster, its bootstrap files, who may enrol with it, and the signed list of its machines. */
import { farshoreTypes, type ProcessServer, type ProcessServerStatus } from '../../crds/index.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import { fromCode, type Objection } from '../decisions.ts';
import { type Environment, isDeleted } from '../environment.ts';
import { registrationOf } from '../openvaults/enrolment.ts';
import { isControlled, type OpenVault } from '../openvaults/openVaults.ts';
import { hold } from '../ownFinalizer.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { nameOfKey, type ObjectKey } from '../runtime/objectKey.ts';
import { accept, type Scope } from './acceptance.ts';
import { type KeptLists, keepLists } from './assignmentLists.ts';
import { letGo } from './deletion.ts';
import { admitWaitingAgents } from './enrolments.ts';
import { isReplicaName, replicaFigures } from './figures.ts';
import { bootstrapSecretName, selectorOf } from './objects.ts';
import { prepareReplicas } from './replicas.ts';
import { type ProcessServerStatusInput, showProcessServer } from './status.ts';

const type = farshoreTypes.processServer;
const LOOK_AGAIN_MS = 15_000;
const PROMPTLY = ['machines', 'assignments', 'pendingRemoval', 'bootstrapSecretName'] as const;

export class ProcessServerReconciler {
  readonly #environment: Environment;

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  async reconcile(key: ObjectKey, context: ReconcileContext): Promise<ReconcileResult> {
    const environment = this.#environment;
    const cached = environment.caches.processServers.get(key);
    if (cached === undefined) return this.#forget(key);
    const deletion = isDeleted(cached) ? await letGo(environment, cached) : undefined;
    if (deletion?.gone) return this.#forget(key);
    const resource = await hold(environment, type, cached);
    const scope = await accept(environment, resource);
    const done = await this.#serve(resource, scope, context);
    return await this.#show(resource, { scope, done, draining: deletion?.objection }, context);
  }

  /** Everything that a controlled vault lets us do. A part that fails is told and does not keep the others from running. */
  async #serve(resource: ProcessServer, scope: Scope, context: ReconcileContext): Promise<Done> {
    const { objection, replicas, vault } = scope;
    if (!isControlled(vault) || objection !== undefined) return NOTHING_DONE;
    const environment = this.#environment;
    const done: Done = { ...NOTHING_DONE };
    const options = { server: resource, replicas };
    const parts: (() => Promise<void>)[] = [
      async () => await prepareReplicas(environment, vault, options),
      async () => {
        done.more = await admitWaitingAgents(environment, vault, options);
      },
      async () => {
        done.lists = await keepLists(environment, vault, options);
      },
    ];
    for (const part of parts)
      try {
        await part();
      } catch (error) {
        context.signal.throwIfAborted();
        done.failure ??= error;
      }
    return done;
  }

  async #show(
    resource: ProcessServer,
    seen: { scope: Scope; done: Done; draining: Objection | undefined },
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { status, intervals } = this.#environment;
    const input = this.#statusInput(resource, seen);
    const shown = showProcessServer(input);
    this.#setFigures(resource, input, seen.scope.vault);
    const written = await status.write<ProcessServerStatus>(
      type,
      resource,
      { ...shown.status, conditions: shown.conditions },
      { signal: context.signal, promptly: PROMPTLY },
    );
    if (seen.done.failure !== undefined) throw seen.done.failure;
    const wait = written.outcome === 'deferred' ? written.retryAfterMs : LOOK_AGAIN_MS;
    return {
      requeueAfterMs: seen.done.more
        ? 0
        : Math.min(wait, Math.max(LOOK_AGAIN_MS, intervals.pollMs)),
    };
  }

  #statusInput(
    resource: ProcessServer,
    seen: { scope: Scope; done: Done; draining: Objection | undefined },
  ): ProcessServerStatusInput {
    const { objection, replicas, vault } = seen.scope;
    const { failure, lists } = seen.done;
    return {
      vaultNowMs: vault?.observation.vaultNow() ?? this.#environment.clock.now(),
      acceptance: objection,
      deletion: seen.draining,
      selector: resource.spec.mode === 'StatefulSet' ? selectorOf(resource) : '',
      bootstrapSecretName:
        resource.spec.mode === 'External' && vault !== undefined
          ? bootstrapSecretName(resource.metadata.name)
          : undefined,
      replicas: replicas.map(({ name }) => ({
        name,
        registered:
          vault !== undefined && registrationOf(vault, 'processserver', name) !== undefined,
        reported: vault?.observation.processServer(name),
      })),
      machines:
        lists?.assignments === undefined ? (resource.status?.machines ?? 0) : lists.machines,
      assignments: lists?.assignments ?? lastShown(resource),
      assignmentsTrouble:
        failure === undefined
          ? undefined
          : { reason: fromCode(errorCode(failure)), message: errorMessage(failure) },
      pendingRemoval: lists?.pending,
      vaultReadable: vault?.readable ?? false,
    };
  }

  #setFigures(
    resource: ProcessServer,
    input: ProcessServerStatusInput,
    vault: OpenVault | undefined,
  ): void {
    const { figures, clock } = this.#environment;
    const { namespace = '' } = resource.metadata;
    const vaultNow = () => vault?.observation.vaultNow() ?? clock.now();
    for (const { name, reported } of input.replicas)
      if (reported !== undefined)
        figures.processServers.set({ namespace, name }, replicaFigures(reported, { vaultNow }));
  }

  #forget(key: ObjectKey): ReconcileResult {
    const { processServers } = this.#environment.figures;
    const { namespace = '', name } = nameOfKey(key);
    for (const figures of [...processServers])
      if (figures.namespace === namespace && isReplicaName(figures.name, name))
        processServers.remove({ namespace, name: figures.name });
    return {};
  }
}

/** What was done in one visit. */
interface Done {
  /** Undefined when they could not be looked at. */
  lists: KeptLists | undefined;
  /** Enrolments wait for the next visit. */
  more: boolean;
  /** The first part that failed, thrown once the status is written. */
  failure: unknown;
}

const NOTHING_DONE: Done = { lists: undefined, more: false, failure: undefined };

function lastShown(resource: ProcessServer): KeptLists['assignments'] {
  const { controllerEpoch, generation } = resource.status?.assignments ?? {};
  return controllerEpoch === undefined || generation === undefined
    ? undefined
    : { controllerEpoch, generation };
}
