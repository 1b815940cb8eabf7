/** ProcessServer: its objects in the cluster, its bootstrap files, who may enrol with it, and the signed list of its machines. */
import {
  FINALIZER,
  farshoreTypes,
  type ProcessServer,
  type ProcessServerStatus,
  Reason,
} from '../../crds/index.ts';
import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import type { AssignmentsDocument, NameClaim } from '../../vault/documents.ts';
import {
  type Check,
  firstObjection,
  fromCode,
  nameTaken,
  type Objection,
  standbyObjection,
  type VaultFacts,
  vaultObjection,
} from '../decisions.ts';
import { type Environment, isDeleted, isForced, namespaceOf, vaultKeyOf } from '../environment.ts';
import { type BootstrapWish, ensureBootstrap } from '../openvaults/bootstrapSecret.ts';
import { registrationOf } from '../openvaults/enrolment.ts';
import {
  assertInControl,
  type ControlledVault,
  claimName,
  isControlled,
  nameHeldByOther,
  type OpenVault,
  releaseName,
} from '../openvaults/openVaults.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { addFinalizer, removeFinalizer } from '../runtime/finalizers.ts';
import { keyOf, type ObjectKey } from '../runtime/objectKey.ts';
import { secretText } from '../secrets.ts';
import { readAssignments, writeAssignments } from './assignmentStore.ts';
import { decideAssignments } from './assignments.ts';
import { applyService, applyStatefulSet } from './cluster.ts';
import { type Duties, gatherDuties } from './duties.ts';
import { admitAgents, admitReplica, type EnrolmentOutcome, eventOf } from './enrolments.ts';
import {
  bootstrapSecretName,
  CACHE_DIRECTORY,
  endpointsOf,
  ownerOf,
  type Replica,
  replicasOf,
  selectorOf,
} from './objects.ts';
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
    const { caches, kube } = this.#environment;
    const cached = caches.processServers.get(key);
    if (cached === undefined) return this.#forget(key);
    const draining = isDeleted(cached) ? this.#draining(cached) : undefined;
    if (isDeleted(cached) && (draining === undefined || isForced(cached)))
      return await this.#letGo(cached, draining);
    const resource = isDeleted(cached)
      ? cached
      : await addFinalizer(kube, { type, object: cached, finalizer: FINALIZER });
    const replicas = replicasOf(resource);
    const scope = await this.#accept(resource, replicas);
    const done = isControlled(scope.vault)
      ? await this.#serve(resource, scope.vault, { replicas, scope, context })
      : NOTHING_DONE;
    return await this.#show(resource, { replicas, scope, done, draining }, context);
  }

  // ------------------------------------------------------------------------------------------------------------ acceptance

  async #accept(resource: ProcessServer, replicas: readonly Replica[]): Promise<Scope> {
    const { caches, openVaults } = this.#environment;
    const vaultKey = vaultKeyOf(resource);
    const namespace = namespaceOf(resource);
    const vault = openVaults.get(vaultKey);
    const facts = openVaults.facts(caches.vaults.get(vaultKey), vaultKey, namespace);
    const input = { vault: facts, vaultRef: vaultKey, namespace };
    const before = vaultObjection(input);
    if (before !== undefined || vault === undefined) return { vault: undefined, objection: before };
    const nameHeldBy = await this.#claim(resource, vault, replicas);
    return { vault, objection: firstObjection(acceptanceChecks, { ...input, nameHeldBy }) };
  }

  async #claim(
    resource: ProcessServer,
    vault: OpenVault,
    replicas: readonly Replica[],
  ): Promise<NameClaim | undefined> {
    const namespace = namespaceOf(resource);
    for (const { name } of replicas) {
      const wanted = { kind: 'processserver' as const, name, namespace };
      if (!isControlled(vault)) {
        const holder = await nameHeldByOther(vault, wanted);
        if (holder !== undefined) return holder;
        continue;
      }
      const result = await claimName(vault, { ...wanted, uid: resource.metadata.uid ?? '' });
      if (result.outcome === 'taken') return result.holder;
    }
    return undefined;
  }

  // --------------------------------------------------------------------------------------------------------------- service

  /** Everything that a controlled vault lets us do. A phase that fails is told and does not keep the others from running. */
  async #serve(
    resource: ProcessServer,
    vault: ControlledVault,
    options: { replicas: readonly Replica[]; scope: Scope; context: ReconcileContext },
  ): Promise<Done> {
    const { replicas, scope, context } = options;
    if (scope.objection !== undefined) return NOTHING_DONE;
    const done: Done = { ...NOTHING_DONE };
    const phase = async (run: () => Promise<void>) => {
      try {
        await run();
      } catch (error) {
        context.signal.throwIfAborted();
        done.failure ??= error;
      }
    };
    await phase(async () => {
      for (const replica of replicas) await this.#prepareReplica(resource, vault, replica);
      if (resource.spec.mode === 'StatefulSet')
        await applyStatefulSet(this.#environment.kube, resource, replicas);
    });
    await phase(async () => {
      done.more = await this.#admitAgents(resource, vault, replicas);
    });
    await phase(async () => {
      Object.assign(done, await this.#assign(resource, vault, replicas));
    });
    return done;
  }

  /** Its Service, its bootstrap file, and its certificate when it asks. */
  async #prepareReplica(
    resource: ProcessServer,
    vault: ControlledVault,
    replica: Replica,
  ): Promise<void> {
    const balancer =
      resource.spec.mode === 'StatefulSet'
        ? await applyService(this.#environment.kube, resource, replica)
        : [];
    const endpoints = endpointsOf(resource, replica, balancer);
    if (endpoints === undefined) return;
    const wish: BootstrapWish = {
      secret: { namespace: namespaceOf(resource), name: bootstrapSecretName(replica.name) },
      owner: ownerOf(resource),
      name: replica.name,
      port: resource.spec.port,
      endpoints,
      ...(resource.spec.mode === 'StatefulSet' ? { cacheDirectory: CACHE_DIRECTORY } : {}),
    };
    const { token } = await ensureBootstrap(this.#environment, vault, wish);
    const { outcomes, spent } = await admitReplica(this.#environment, vault, {
      replica: replica.name,
      token,
      secret: `${wish.secret.namespace}/${wish.secret.name}`,
      endpoints,
    });
    if (spent) await ensureBootstrap(this.#environment, vault, wish, { renewToken: true });
    this.#tell(resource, outcomes);
    // Machines' data keys are sealed for it by their own controller.
    if (outcomes.some((outcome) => outcome.refusal === undefined)) this.#enqueueMachines(resource);
  }

  async #admitAgents(
    resource: ProcessServer,
    vault: ControlledVault,
    replicas: readonly Replica[],
  ): Promise<boolean> {
    const { caches, kube } = this.#environment;
    const namespace = namespaceOf(resource);
    const { passphraseSecretRef } = resource.spec;
    const passphrase = await secretText(
      kube,
      { namespace, name: passphraseSecretRef.name },
      passphraseSecretRef.key,
    );
    const { outcomes, more } = await admitAgents(vault, {
      server: resource,
      replicas: new Set(replicas.map((replica) => replica.name)),
      // A trailing newline is the editor's, not the passphrase's.
      passphrase: passphrase.replace(/\r?\n$/, ''),
      findMachine: (name) => caches.machines.get(`${namespace}/${name}`),
    });
    this.#tell(resource, outcomes);
    for (const { machine } of outcomes)
      if (machine !== undefined) this.#environment.enqueue('machines', `${namespace}/${machine}`);
    return more;
  }

  // ----------------------------------------------------------------------------------------------------------- assignments

  async #assign(
    resource: ProcessServer,
    vault: ControlledVault,
    replicas: readonly Replica[],
  ): Promise<Pick<Done, 'assignments' | 'pending' | 'machines'>> {
    // Nothing is written from half a picture: the vault must have been read once, as the caches have.
    if (vault.observation.observedAt === undefined || !vault.readable)
      return { assignments: undefined, pending: undefined, machines: 0 };
    const names = new Set(replicas.map((replica) => replica.name));
    const duties = gatherDuties(this.#environment, vault, { server: resource, replicas: names });
    const lists: AssignmentsDocument[] = [];
    let pending: Done['pending'];
    for (const { name } of replicas) {
      const outcome = await this.#assignReplica(resource, vault, { replica: name, duties });
      lists.push(outcome.standing);
      pending ??= outcome.pending;
    }
    const [oldest] = [...lists].sort((a, b) => a.generation - b.generation);
    return {
      pending,
      machines: lists.reduce((sum, list) => sum + list.machines.length, 0),
      assignments:
        oldest === undefined
          ? undefined
          : { controllerEpoch: oldest.controllerEpoch, generation: oldest.generation },
    };
  }

  async #assignReplica(
    resource: ProcessServer,
    vault: ControlledVault,
    options: { replica: string; duties: Duties },
  ): Promise<{ standing: AssignmentsDocument; pending: Done['pending'] }> {
    const { replica, duties } = options;
    const before = await readAssignments(vault, replica);
    const decision = decideAssignments({
      vaultId: vault.document.vaultId,
      processServer: replica,
      controllerEpoch: vault.control.controllerEpoch,
      caCertificatePem: vault.document.ca.certificatePem,
      machines: duties.machines.get(replica) ?? [],
      keep: duties.keep,
      redirects: this.#redirects(vault, { replica, duties }),
      current: before?.document,
      generationFloor: Math.max(
        resource.status?.assignments?.generation ?? 0,
        vault.observation.processServer(replica)?.assignments?.generation ?? 0,
      ),
      confirmedToken: resource.spec.confirmRemoval,
    });
    if (decision.write !== undefined) {
      await assertInControl(vault);
      const written = await writeAssignments(vault, decision.write, before);
      if (!written) throw new AssignmentsContended(replica);
    }
    const standing = decision.write ?? before?.document;
    if (standing === undefined) throw new TypeError('a list is either written or there');
    const held = decision.awaitingConfirmation;
    return {
      standing,
      pending:
        held === undefined
          ? undefined
          : { token: held.token, machines: held.machines.map((one) => one.name) },
    };
  }

  /** Where agents of machines that moved to another replica are sent. */
  #redirects(
    vault: OpenVault,
    options: { replica: string; duties: Duties },
  ): Record<string, string[]> {
    const redirects: Record<string, string[]> = {};
    for (const [machineId, owner] of options.duties.owners) {
      if (owner === options.replica) continue;
      const endpoints = vault.observation.processServer(owner)?.endpoints ?? [];
      if (endpoints.length > 0) redirects[machineId] = endpoints;
    }
    return redirects;
  }

  // ------------------------------------------------------------------------------------------------------------------ show

  async #show(
    resource: ProcessServer,
    seen: {
      replicas: readonly Replica[];
      scope: Scope;
      done: Done;
      draining: Objection | undefined;
    },
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { status, intervals } = this.#environment;
    const input = this.#statusInput(resource, seen);
    const shown = showProcessServer(input);
    this.#setFigures(input, seen.scope.vault, keyOf(resource));
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
    seen: {
      replicas: readonly Replica[];
      scope: Scope;
      done: Done;
      draining: Objection | undefined;
    },
  ): ProcessServerStatusInput {
    const { vault } = seen.scope;
    const { failure } = seen.done;
    return {
      vaultNowMs: vault?.observation.vaultNow() ?? this.#environment.clock.now(),
      acceptance: seen.scope.objection,
      deletion: seen.draining,
      selector: resource.spec.mode === 'StatefulSet' ? selectorOf(resource) : '',
      bootstrapSecretName:
        resource.spec.mode === 'External' && vault !== undefined
          ? bootstrapSecretName(resource.metadata.name)
          : undefined,
      replicas: seen.replicas.map(({ name }) => ({
        name,
        registered:
          vault !== undefined && registrationOf(vault, 'processserver', name) !== undefined,
        reported: vault?.observation.processServer(name),
      })),
      machines:
        seen.done.assignments === undefined ? (resource.status?.machines ?? 0) : seen.done.machines,
      assignments: seen.done.assignments ?? standingOf(resource),
      assignmentsTrouble:
        failure === undefined
          ? undefined
          : { reason: fromError(failure), message: errorMessage(failure) },
      pendingRemoval: seen.done.pending,
      vaultReadable: vault?.readable ?? false,
    };
  }

  #setFigures(input: ProcessServerStatusInput, vault: OpenVault | undefined, key: ObjectKey): void {
    const { figures, clock } = this.#environment;
    const [namespace = ''] = key.split('/');
    for (const { name, reported } of input.replicas)
      if (reported !== undefined)
        figures.processServers.set(
          { namespace, name },
          {
            heartbeatMs: reported.heartbeatMs,
            vaultNow: () => vault?.observation.vaultNow() ?? clock.now(),
            machines: reported.machines.length,
            cacheTotalBytes: reported.cache.totalBytes,
            cacheFreeBytes: reported.cache.freeBytes,
            inBytesPerSecond: reported.throughput.inBytesPerSecond,
            outBytesPerSecond: reported.throughput.outBytesPerSecond,
          },
        );
  }

  #tell(resource: ProcessServer, outcomes: readonly EnrolmentOutcome[]): void {
    for (const outcome of outcomes) this.#environment.events.record(resource, eventOf(outcome));
  }

  // -------------------------------------------------------------------------------------------------------------- deletion

  /** Machines that name it keep it: it drains by being named by none. */
  #draining(resource: ProcessServer): Objection | undefined {
    const machines = this.#machinesOf(resource);
    if (machines.length === 0) return undefined;
    const some = machines
      .slice(0, 5)
      .map((machine) => machine.metadata.name)
      .join(', ');
    return {
      reason: Reason.Draining,
      message: `${machines.length} machines still name it (${some}${machines.length > 5 ? ', …' : ''}). Point them at another process server or delete them, or set the annotation farshore.dev/force-delete.`,
    };
  }

  async #letGo(
    resource: ProcessServer,
    leftBehind: Objection | undefined,
  ): Promise<ReconcileResult> {
    const { events, kube, openVaults, status } = this.#environment;
    const vault = openVaults.get(vaultKeyOf(resource));
    if (leftBehind !== undefined)
      events.record(resource, {
        type: 'Warning',
        reason: Reason.ForceDeleted,
        message: `Process server ${resource.metadata.name} was let go by force. Left behind: ${leftBehind.message}`,
      });
    if (isControlled(vault)) await this.#release(resource, vault);
    await removeFinalizer(kube, { type, object: resource, finalizer: FINALIZER });
    status.forget(resource.metadata.uid);
    return this.#forget(keyOf(resource));
  }

  async #release(resource: ProcessServer, vault: ControlledVault): Promise<void> {
    for (const { name } of replicasOf(resource)) {
      await this.#emptyList(vault, name);
      await releaseName(vault, {
        kind: 'processserver',
        name,
        namespace: namespaceOf(resource),
        uid: resource.metadata.uid ?? '',
      });
    }
  }

  /** Machines that moved elsewhere are taken off for good; whoever still runs the old process server sees that it has none. */
  async #emptyList(vault: ControlledVault, replica: string): Promise<void> {
    const before = await readAssignments(vault, replica);
    if (before?.document === undefined || before.document.machines.length === 0) return;
    await assertInControl(vault);
    const { controllerEpoch } = vault.control;
    const generation = before.document.generation + 1;
    const list = { ...before.document, controllerEpoch, generation, machines: [], redirects: {} };
    if (!(await writeAssignments(vault, list, before))) throw new AssignmentsContended(replica);
  }

  #machinesOf(resource: ProcessServer) {
    return this.#environment.caches.machines
      .list()
      .filter(
        (machine) =>
          namespaceOf(machine) === namespaceOf(resource) &&
          machine.spec.processServerRef.name === resource.metadata.name,
      );
  }

  #enqueueMachines(resource: ProcessServer): void {
    for (const machine of this.#machinesOf(resource))
      this.#environment.enqueue('machines', keyOf(machine));
  }

  #forget(key: ObjectKey): ReconcileResult {
    const [namespace = '', name = ''] = key.split('/');
    for (const { namespace: ns, name: replica } of [...this.#environment.figures.processServers])
      if (ns === namespace && (replica === name || replica.replace(/-\d+$/, '') === name))
        this.#environment.figures.processServers.remove({ namespace, name: replica });
    return {};
  }
}

interface Scope {
  vault: OpenVault | undefined;
  objection: Objection | undefined;
}

interface Done {
  assignments: { controllerEpoch: number; generation: number } | undefined;
  pending: { token: string; machines: readonly string[] } | undefined;
  machines: number;
  /** Enrolments wait for the next visit. */
  more: boolean;
  /** The first phase that failed, thrown once the status is written. */
  failure: unknown;
}

const NOTHING_DONE: Done = {
  assignments: undefined,
  pending: undefined,
  machines: 0,
  more: false,
  failure: undefined,
};

const acceptanceChecks: readonly Check<{
  vault: VaultFacts;
  vaultRef: string;
  namespace: string;
  nameHeldBy: NameClaim | undefined;
}>[] = [
  vaultObjection,
  ({ nameHeldBy, vault }) =>
    nameHeldBy === undefined
      ? undefined
      : nameTaken(nameHeldBy, { standby: vault.state === 'Standby' }),
  ({ vault, vaultRef }) => standbyObjection(vault, vaultRef),
];

/** Somebody else wrote the list between our reading and our writing. */
class AssignmentsContended extends FarshoreError {
  constructor(processServer: string) {
    super(
      'AssignmentsContended',
      `The assignments of process server ${processServer} were changed by somebody else at the same time; they are read again.`,
    );
  }
}

function standingOf(resource: ProcessServer): Done['assignments'] {
  const { controllerEpoch, generation } = resource.status?.assignments ?? {};
  return controllerEpoch === undefined || generation === undefined
    ? undefined
    : { controllerEpoch, generation };
}

function fromError(error: unknown): string {
  return fromCode(errorCode(error));
}
