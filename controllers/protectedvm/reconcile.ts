/** ProtectedVM: accepts it, keeps its entry in the vault's catalog, shows what the data plane reports of it. */
import {
  FINALIZER,
  farshoreTypes,
  type ProtectedVM,
  type ProtectedVMStatus,
  Reason,
  type RecoveryVault,
} from '../../crds/index.ts';
import type { Logger } from '../../platform/ports.ts';
import type { CatalogDocument, NameClaim } from '../../vault/documents.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { firstObjection, type Objection } from '../decisions.ts';
import {
  durationSeconds,
  type Environment,
  isDeleted,
  isForced,
  namespaceOf,
  vaultKeyOf,
} from '../environment.ts';
import {
  assertInControl,
  type ControlledVault,
  claimName,
  isControlled,
  nameHeldByOther,
  type OpenVault,
  releaseName,
} from '../openvaults/openVaults.ts';
import type { PointsSummary } from '../openvaults/points.ts';
import { readAssignments } from '../processserver/assignmentStore.ts';
import { chooseReplica } from '../processserver/assignments.ts';
import { replicasOf } from '../processserver/objects.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { addFinalizer, removeFinalizer } from '../runtime/finalizers.ts';
import { keyOf, type ObjectKey } from '../runtime/objectKey.ts';
import { significantOffset } from '../vaultTime.ts';
import { ensureCatalog } from './catalogEntry.ts';
import { machineFigures } from './figures.ts';
import { acceptanceChecks, deletionChecks } from './policies.ts';
import { type StatusInput, show } from './status.ts';
import { resolveTarget } from './target.ts';
import { TargetObserver } from './targetObserver.ts';

const type = farshoreTypes.protectedVM;
/** RPO rises by itself, so its conditions are looked at even when nothing is reported. */
const LOOK_AGAIN_MS = 15_000;
/** Fields that people wait for. */
const PROMPTLY = [
  'phase',
  'machineId',
  'offeredDisks',
  'disks',
  'initialReplication',
  'resync',
  'activeSide',
  'activeFailover',
  'resyncToken',
] as const;

export class ProtectedVMReconciler {
  readonly #environment: Environment;
  readonly #targets: TargetObserver;
  readonly #points = new Map<ObjectKey, { mark: string; atMs: number; summary: PointsSummary }>();

  constructor(environment: Environment) {
    this.#environment = environment;
    this.#targets = new TargetObserver(environment, { keepMs: environment.intervals.targetMs });
  }

  async reconcile(key: ObjectKey, context: ReconcileContext): Promise<ReconcileResult> {
    const { caches, kube } = this.#environment;
    const cached = caches.machines.get(key);
    if (cached === undefined) return this.#forget(key);
    const deletion = isDeleted(cached) ? await this.#letGo(cached) : undefined;
    if (deletion?.gone) return this.#forget(key);
    const resource = isDeleted(cached)
      ? cached
      : await addFinalizer(kube, { type, object: cached, finalizer: FINALIZER });
    const scope = await this.#accept(resource);
    const catalog = await this.#catalog(resource, scope, deletion !== undefined);
    const input = await this.#observe(resource, scope, { catalog, log: context.logger });
    return await this.#show(resource, scope, { ...input, deletion: deletion?.objection }, context);
  }

  // ------------------------------------------------------------------------------------------------------------ acceptance

  async #accept(resource: ProtectedVM): Promise<Scope> {
    const { caches, openVaults } = this.#environment;
    const { spec } = resource;
    const namespace = namespaceOf(resource);
    const vaultKey = vaultKeyOf(resource);
    const vaultResource = caches.vaults.get(vaultKey);
    const policy = caches.policies.get(`${namespace}/${spec.policyRef.name}`);
    const processServer = caches.processServers.get(`${namespace}/${spec.processServerRef.name}`);
    const vault = openVaults.get(vaultKey);
    const facts = openVaults.facts(vaultResource, vaultKey, namespace);
    const input = {
      namespace,
      vaultRef: vaultKey,
      policyRef: spec.policyRef.name,
      processServerRef: spec.processServerRef.name,
      vault: facts,
      policyExists: policy !== undefined,
      processServer: {
        exists: processServer !== undefined,
        vaultRef: processServer === undefined ? undefined : vaultKeyOf(processServer),
      },
    };
    const scope = { vaultKey, vaultResource, vault, policy, processServer };
    const before = firstObjection(acceptanceChecks, { ...input, nameHeldBy: undefined });
    // A name is claimed only for a resource that is right in everything else.
    if (before !== undefined && before.reason !== Reason.NotInControl)
      return { ...scope, claim: undefined, objection: before };
    const { claim, heldBy } = await this.#claim(resource, vault);
    const objection = firstObjection(acceptanceChecks, { ...input, nameHeldBy: heldBy });
    return { ...scope, claim, objection };
  }

  async #claim(
    resource: ProtectedVM,
    vault: OpenVault | undefined,
  ): Promise<{ claim: NameClaim | undefined; heldBy: NameClaim | undefined }> {
    const wanted = {
      kind: 'machine' as const,
      name: resource.metadata.name,
      namespace: namespaceOf(resource),
      uid: resource.metadata.uid ?? '',
    };
    if (!isControlled(vault)) {
      const heldBy = vault === undefined ? undefined : await nameHeldByOther(vault, wanted);
      return { claim: undefined, heldBy };
    }
    const machineId = Buffer.from(this.#environment.random.bytes(16)).toString('hex');
    const result = await claimName(vault, { ...wanted, machineId });
    return result.outcome === 'ours'
      ? { claim: result.claim, heldBy: undefined }
      : { claim: undefined, heldBy: result.holder };
  }

  // --------------------------------------------------------------------------------------------------------------- catalog

  /** The machine's entry, made and kept current where this installation may; else as it was last read. */
  async #catalog(
    resource: ProtectedVM,
    scope: Scope,
    deleted: boolean,
  ): Promise<CatalogDocument | undefined> {
    const machineId = scope.claim?.machineId ?? resource.status?.machineId;
    const { vault, vaultResource, policy, processServer } = scope;
    if (machineId === undefined || vault === undefined) return undefined;
    const known = vault.observation.catalog(machineId);
    const complete =
      vaultResource !== undefined && policy !== undefined && processServer !== undefined;
    // Before the first reading of the vault nothing is known to be missing, so nothing is written.
    if (vault.observation.observedAt === undefined) return known;
    if (deleted || scope.objection !== undefined || !isControlled(vault) || !complete) return known;
    const replica = chooseReplica({
      replicas: replicasOf(processServer).map((one) => one.name),
      current: known?.processServer,
      load: loadOf(vault),
    });
    if (replica === undefined) return known;
    const { document, changed } = await ensureCatalog(
      { random: this.#environment.random, now: this.#environment.clock.now() },
      vault,
      {
        machineId,
        resource,
        vaultResource,
        policy,
        processServer: replica,
        reported: vault.observation.machine(replica, machineId)?.disks ?? [],
      },
    );
    const specChanged = resource.status?.observedGeneration !== resource.metadata.generation;
    if (changed || specChanged || isNew(resource, document))
      this.#environment.enqueue('processServers', keyOf(processServer));
    return document;
  }

  // ----------------------------------------------------------------------------------------------------------- observation

  async #observe(
    resource: ProtectedVM,
    scope: Scope,
    seen: { catalog: CatalogDocument | undefined; log: Logger },
  ): Promise<Omit<StatusInput, 'deletion'>> {
    const { vault, policy } = scope;
    const { catalog } = seen;
    const replica = catalog?.processServer ?? resource.spec.processServerRef.name;
    const server = vault?.observation.processServer(replica);
    const reportedMs = vault?.observation.reportedMs(replica);
    const offered =
      (catalog === undefined ? undefined : vault?.observation.offeredDisks(catalog.machineId)) ??
      resource.status?.offeredDisks;
    const rpoThresholdText = policy?.spec.rpoThreshold ?? '15m';
    return {
      vaultNowMs: vault?.observation.vaultNow() ?? this.#environment.clock.now(),
      acceptance: scope.objection,
      paused: resource.spec.paused,
      rpoThresholdText,
      rpoThresholdSeconds: durationSeconds(rpoThresholdText),
      catalog,
      vaultReadable: vault?.readable ?? false,
      enrolled: offered !== undefined,
      offeredDisks: offered,
      processServer: {
        name: replica,
        heartbeatMs:
          server === undefined
            ? undefined
            : Math.min(
                server.heartbeatMs - significantOffset(server.clockOffsetMs),
                reportedMs ?? Number.POSITIVE_INFINITY,
              ),
        clockOffsetMs: server?.clockOffsetMs ?? 0,
        reportedMs,
      },
      machine:
        catalog === undefined ? undefined : vault?.observation.machine(replica, catalog.machineId),
      applied: catalog === undefined ? undefined : vault?.observation.applied(catalog.machineId),
      points: await this.#pointsOf(keyOf(resource), scope, seen),
      target: await this.#targetOf(resource, scope, catalog),
      before: resource.status,
    };
  }

  async #pointsOf(
    key: ObjectKey,
    scope: Scope,
    seen: { catalog: CatalogDocument | undefined; log: Logger },
  ): Promise<PointsSummary | undefined> {
    const { vault, policy } = scope;
    const { catalog, log } = seen;
    const known = this.#points.get(key);
    if (vault === undefined || catalog === undefined || !vault.readable) return known?.summary;
    const nowMs = this.#environment.clock.monotonic();
    const mark = String(vault.observation.applied(catalog.machineId)?.recoveryPointLsn ?? '');
    if (known?.mark === mark && nowMs - known.atMs < this.#environment.intervals.pointsMs)
      return known.summary;
    try {
      const summary = await vault.points.summary(catalog.machineId, {
        appConsistent: policy?.spec.appConsistentInterval !== undefined,
      });
      this.#points.set(key, { mark, atMs: nowMs, summary });
      return summary;
    } catch (error) {
      log.warn({ error }, 'recovery points could not be listed');
      return known?.summary;
    }
  }

  async #targetOf(
    resource: ProtectedVM,
    scope: Scope,
    catalog: CatalogDocument | undefined,
  ): Promise<StatusInput['target']> {
    const { vault, vaultResource } = scope;
    if (vault === undefined || vaultResource === undefined) return undefined;
    return await this.#targets.verdict(vault.stores.compute, keyOf(resource), {
      targets: [
        resolveTarget(resource, vaultResource, 'Production'),
        resolveTarget(resource, vaultResource, 'Test'),
      ],
      disks:
        catalog?.disks ??
        resource.spec.disks.map((disk, index) => ({ ...disk, index, sizeBytes: 0 })),
    });
  }

  // ------------------------------------------------------------------------------------------------------------------ show

  async #show(
    resource: ProtectedVM,
    scope: Scope,
    input: StatusInput,
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { figures, status, clock, intervals } = this.#environment;
    const shown = show(input);
    figures.machines.set(
      { namespace: namespaceOf(resource), name: resource.metadata.name },
      machineFigures(input, shown, {
        vaultNow: () => scope.vault?.observation.vaultNow() ?? clock.now(),
      }),
    );
    this.#tell(resource, input);
    const written = await status.write<ProtectedVMStatus>(
      type,
      resource,
      { ...shown.status, conditions: shown.conditions },
      { signal: context.signal, promptly: PROMPTLY },
    );
    const wait = written.outcome === 'deferred' ? written.retryAfterMs : Number.POSITIVE_INFINITY;
    const look = Math.min(LOOK_AGAIN_MS, intervals.pointsMs);
    return { requeueAfterMs: Math.min(wait, look) };
  }

  #tell(resource: ProtectedVM, input: StatusInput): void {
    const before = new Map(resource.status?.conditions?.map((one) => [one.type, one]));
    for (const condition of show(input).conditions) {
      const was = before.get(condition.type);
      if (!TOLD.has(condition.type) || was?.status === condition.status) continue;
      if (was === undefined && condition.status !== 'False') continue;
      const bad = condition.status === (BAD_WHEN_TRUE.has(condition.type) ? 'True' : 'False');
      if (was === undefined && !(bad && condition.type === 'Accepted')) continue;
      this.#environment.events.record(resource, {
        type: bad ? 'Warning' : 'Normal',
        reason: condition.reason,
        message: condition.message,
      });
    }
  }

  // -------------------------------------------------------------------------------------------------------------- deletion

  async #letGo(
    resource: ProtectedVM,
  ): Promise<{ gone: boolean; objection: Objection | undefined }> {
    const { kube, events, openVaults, status } = this.#environment;
    const vault = openVaults.get(vaultKeyOf(resource));
    const objection = await this.#deletionObjection(resource, vault);
    if (objection !== undefined && !isForced(resource)) return { gone: false, objection };
    if (objection !== undefined)
      events.record(resource, {
        type: 'Warning',
        reason: Reason.ForceDeleted,
        message: `Machine ${resource.metadata.name} was let go by force. Left behind: ${objection.message}`,
      });
    await removeFinalizer(kube, { type, object: resource, finalizer: FINALIZER });
    status.forget(resource.metadata.uid);
    return { gone: true, objection };
  }

  async #deletionObjection(
    resource: ProtectedVM,
    vault: OpenVault | undefined,
  ): Promise<Objection | undefined> {
    const machineId = resource.status?.machineId;
    // It never had anything in a vault.
    if (machineId === undefined) return undefined;
    if (!isControlled(vault) || vault.observation.observedAt === undefined)
      return {
        reason: Reason.DeletionBlocked,
        message: `The vault can't be changed from here now, so the machine stays with its process server. See RecoveryVault ${vaultKeyOf(resource)}, or set the annotation farshore.dev/force-delete.`,
      };
    const catalog = vault.observation.catalog(machineId);
    if (catalog === undefined || !(await this.#holdsName(resource, vault))) return undefined;
    const { processServer } = catalog;
    const assigned =
      processServer === undefined ? undefined : await readAssignments(vault, processServer);
    const stillAssigned = assigned?.document?.machines.some((one) => one.machineId === machineId);
    const server = this.#processServerOf(resource);
    if (stillAssigned && server !== undefined) this.#environment.enqueue('processServers', server);
    const objection = firstObjection(deletionChecks, {
      activeSide: catalog.activeSide,
      activeFailover: catalog.activeFailover,
      assignedTo: stillAssigned && server !== undefined ? processServer : undefined,
    });
    if (objection === undefined) await this.#forgetUnused(resource, vault, machineId);
    return objection;
  }

  async #holdsName(resource: ProtectedVM, vault: ControlledVault): Promise<boolean> {
    const claim = await vault.names.holder({ kind: 'machine', name: resource.metadata.name });
    return claim?.uid === resource.metadata.uid;
  }

  /** A machine that never sent anything leaves no name behind. What was sent is kept, and its name with it. */
  async #forgetUnused(
    resource: ProtectedVM,
    vault: ControlledVault,
    machineId: string,
  ): Promise<void> {
    for await (const _ of vault.stores.objects.list(vaultLayout.journalPrefix(machineId))) return;
    await assertInControl(vault);
    await vault.catalog.remove(machineId);
    await releaseName(vault, {
      kind: 'machine',
      name: resource.metadata.name,
      namespace: namespaceOf(resource),
      uid: resource.metadata.uid ?? '',
    });
  }

  #processServerOf(resource: ProtectedVM): ObjectKey | undefined {
    const key = `${namespaceOf(resource)}/${resource.spec.processServerRef.name}`;
    return this.#environment.caches.processServers.get(key) === undefined ? undefined : key;
  }

  #forget(key: ObjectKey): ReconcileResult {
    this.#points.delete(key);
    this.#targets.forget(key);
    const [namespace = '', name = ''] = key.split('/');
    this.#environment.figures.machines.remove({ namespace, name });
    return {};
  }
}

interface Scope {
  vaultKey: ObjectKey;
  vaultResource: RecoveryVault | undefined;
  vault: OpenVault | undefined;
  policy: ReturnType<Environment['caches']['policies']['get']>;
  processServer: ReturnType<Environment['caches']['processServers']['get']>;
  claim: NameClaim | undefined;
  objection: Objection | undefined;
}

const TOLD: ReadonlySet<string> = new Set([
  'Accepted',
  'InitialReplicationComplete',
  'ReplicationHealthy',
  'RecoveryPointCurrent',
  'ResyncRequired',
  'TargetValid',
  'SourceStillRunning',
]);
const BAD_WHEN_TRUE: ReadonlySet<string> = new Set(['ResyncRequired', 'SourceStillRunning']);

/** Its entry is there, and its status does not say so yet: its process server has not seen it either. */
function isNew(resource: ProtectedVM, document: CatalogDocument): boolean {
  return resource.status?.machineId !== document.machineId;
}

function loadOf(vault: OpenVault): Map<string, number> {
  const load = new Map<string, number>();
  for (const { processServer } of vault.observation.catalogs())
    if (processServer !== undefined) load.set(processServer, (load.get(processServer) ?? 0) + 1);
  return load;
}
