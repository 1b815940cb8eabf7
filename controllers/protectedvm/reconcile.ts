/** ProtectedVM: accepts it, keeps its entry in the vault's catalog, shows what the data plane reports of it. */
import { farshoreTypes, type ProtectedVM, type ProtectedVMStatus } from '../../crds/index.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import { type Environment, isDeleted, namespaceOf } from '../environment.ts';
import { isControlled, type OpenVault } from '../openvaults/openVaults.ts';
import { hold } from '../ownFinalizer.ts';
import { chooseReplica } from '../processserver/assignments.ts';
import { mayResyncNow } from '../processserver/duties.ts';
import { replicasOf } from '../processserver/objects.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { keyOf, nameOfKey, type ObjectKey } from '../runtime/objectKey.ts';
import { accept, type Scope } from './acceptance.ts';
import { ensureCatalog } from './catalogEntry.ts';
import { letGo } from './deletion.ts';
import { happeningsOf, moved } from './events.ts';
import { machineFigures } from './figures.ts';
import { PointsObserver } from './pointsObserver.ts';
import { show } from './status.ts';
import { gatherStatusInput, type StatusInput } from './statusInput.ts';
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
  readonly #points: PointsObserver;
  /** Machines that had the annotation at the last visit. */
  readonly #resyncNow = new Set<ObjectKey>();

  constructor(environment: Environment) {
    const { intervals } = environment;
    this.#environment = environment;
    this.#targets = new TargetObserver(environment, { keepMs: intervals.targetMs });
    this.#points = new PointsObserver(environment, { keepMs: intervals.pointsMs });
  }

  async reconcile(key: ObjectKey, context: ReconcileContext): Promise<ReconcileResult> {
    const environment = this.#environment;
    const cached = environment.caches.machines.get(key);
    if (cached === undefined) return this.#forget(key);
    const deletion = isDeleted(cached) ? await letGo(environment, cached) : undefined;
    if (deletion?.gone) return this.#forget(key);
    const resource = await hold(environment, type, cached);
    const scope = await accept(environment, resource);
    const catalog = await this.#keepEntry(resource, scope);
    const input = await gatherStatusInput(
      { environment, points: this.#points, targets: this.#targets, log: context.logger },
      resource,
      { scope, catalog, deletion: deletion?.objection },
    );
    return await this.#show(resource, { input, vault: scope.vault }, context);
  }

  /** The machine's entry, made and kept current where this installation may; else as it was last read. */
  async #keepEntry(resource: ProtectedVM, scope: Scope): Promise<CatalogDocument | undefined> {
    const machineId = scope.claim?.machineId ?? resource.status?.machineId;
    const { vault, vaultResource, policy, processServer } = scope;
    if (machineId === undefined || vault === undefined) return undefined;
    const known = vault.observation.catalog(machineId);
    const complete =
      vaultResource !== undefined && policy !== undefined && processServer !== undefined;
    // Before the first reading of the vault nothing is known to be missing, so nothing is written.
    if (vault.observation.observedAt === undefined) return known;
    const refused = isDeleted(resource) || scope.objection !== undefined;
    if (refused || !isControlled(vault) || !complete) return known;
    const replica = chooseReplica({
      replicas: replicasOf(processServer).map((one) => one.name),
      current: known?.processServer,
      load: loadOf(vault),
      isSilent: (name) => vault.observation.isSilent(name),
      isSteady: (name) => vault.observation.isSteady(name),
    });
    if (replica === undefined) return known;
    const environment = this.#environment;
    const { events } = environment;
    const now = environment.clock.now();
    const { document, changed } = await ensureCatalog({ random: environment.random, now }, vault, {
      machineId,
      resource,
      vaultResource,
      policy,
      processServer: replica,
      reported: vault.observation.machine(replica, machineId)?.disks ?? [],
    });
    if (changed) for (const happening of moved(known, document)) events.record(resource, happening);
    const specChanged = resource.status?.observedGeneration !== resource.metadata.generation;
    if (changed || specChanged || isNew(resource, document) || this.#mayResyncOtherwise(resource))
      environment.enqueue('processServers', keyOf(processServer));
    return document;
  }

  /** Annotations change no generation: whether the one that lets a resync begin now came or went since the last visit. */
  #mayResyncOtherwise(resource: ProtectedVM): boolean {
    const key = keyOf(resource);
    const now = mayResyncNow(resource);
    if (this.#resyncNow.has(key) === now) return false;
    if (now) this.#resyncNow.add(key);
    else this.#resyncNow.delete(key);
    return true;
  }

  async #show(
    resource: ProtectedVM,
    seen: { input: StatusInput; vault: OpenVault | undefined },
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { clock, events, figures, intervals, status } = this.#environment;
    const { input, vault } = seen;
    const shown = show(input);
    figures.machines.set(
      { namespace: namespaceOf(resource), name: resource.metadata.name },
      machineFigures(input, shown, {
        vaultNow: () => vault?.observation.vaultNow() ?? clock.now(),
      }),
    );
    for (const happening of happeningsOf(resource.status?.conditions ?? [], shown.conditions))
      events.record(resource, happening);
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

  #forget(key: ObjectKey): ReconcileResult {
    this.#points.forget(key);
    this.#resyncNow.delete(key);
    this.#targets.forget(key);
    const { namespace = '', name } = nameOfKey(key);
    this.#environment.figures.machines.remove({ namespace, name });
    return {};
  }
}

/** Its entry is there, and its status does not say so yet: its process server has not seen it either. */
function isNew(resource: ProtectedVM, document: CatalogDocument): boolean {
  return resource.status?.machineId !== document.machineId;
}

/** How many machines each process server has. */
function loadOf(vault: OpenVault): Map<string, number> {
  const load = new Map<string, number>();
  for (const { processServer } of vault.observation.catalogs())
    if (processServer !== undefined) load.set(processServer, (load.get(processServer) ?? 0) + 1);
  return load;
}
