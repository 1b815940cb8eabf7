/**
 * RecoveryVault: opens the vault, keeps control of it, reads what the data plane writes, and tells other controllers what changed.
 *
 * This is also the operator's one poller of the vault: each visit lists its control documents and reads those that changed.
 */
import {
  ConditionType,
  farshoreTypes,
  Reason,
  type RecoveryVault,
  type RecoveryVaultStatus,
} from '../../crds/index.ts';
import type { Logger } from '../../platform/ports.ts';
import { readRecoveryCheck, verifyRecoveryCheck } from '../../vault/recoveryCheck.ts';
import type { Objection } from '../decisions.ts';
import { type Environment, isDeleted, vaultKeyOf } from '../environment.ts';
import type { ObservedChanges } from '../openvaults/observation.ts';
import {
  assertInControl,
  type Installation,
  isControlled,
  type OpenVault,
} from '../openvaults/openVaults.ts';
import type { VaultConnection, VaultStores } from '../openvaults/stores.ts';
import { hold, mayGo, release } from '../ownFinalizer.ts';
import { conditionOf } from '../runtime/conditions.ts';
import type { ReconcileContext, ReconcileResult } from '../runtime/controller.ts';
import { keyOf, type ObjectKey } from '../runtime/objectKey.ts';
import { serveAppliers } from './appliers.ts';
import { fingerprint, locationOf, resolveConnection } from './connection.ts';
import { type Opened, openVault } from './open.ts';
import { reachabilityOf } from './policies.ts';
import { showVault, type VaultStatusInput } from './status.ts';

const type = farshoreTypes.recoveryVault;

export interface RecoveryVaultDeps {
  environment: Environment;
  installation: Installation;
  makeStores: (connection: VaultConnection) => Promise<VaultStores>;
}

interface HeldStores {
  stores: VaultStores;
  fingerprint: string;
  location: OpenVault['location'];
}

export class RecoveryVaultReconciler {
  readonly #deps: RecoveryVaultDeps;
  readonly #stores = new Map<ObjectKey, HeldStores>();

  constructor(deps: RecoveryVaultDeps) {
    this.#deps = deps;
  }

  async reconcile(key: ObjectKey, context: ReconcileContext): Promise<ReconcileResult> {
    const { environment } = this.#deps;
    const cached = environment.caches.vaults.get(key);
    if (cached === undefined) return await this.#close(key);
    if (isDeleted(cached) && (await this.#letGo(cached))) return await this.#close(key);
    const resource = await hold(environment, type, cached);
    const seen = await this.#look(resource, context.logger);
    await this.#tell(resource, seen);
    const written = await environment.status.write<RecoveryVaultStatus>(
      type,
      resource,
      toStatus(seen.input),
      {
        signal: context.signal,
        promptly: ['controllerEpoch', 'vaultId', 'machines'],
      },
    );
    const wait = written.outcome === 'deferred' ? written.retryAfterMs : Number.POSITIVE_INFINITY;
    return { requeueAfterMs: Math.min(wait, environment.intervals.pollMs) };
  }

  /** Gives back what all vaults' stores hold. */
  async close(): Promise<void> {
    for (const key of [...this.#stores.keys()]) await this.#close(key);
  }

  /** Opens and reads the vault; whatever fails is a condition, never an end. */
  async #look(resource: RecoveryVault, log: Logger): Promise<Seen> {
    const { environment } = this.#deps;
    const key = keyOf(resource);
    const base = {
      machines: this.#users(key).machines,
      deletion: isDeleted(resource) ? this.#inUse(key) : undefined,
    };
    try {
      const opened = await this.#open(resource, log);
      // Looked at before anybody sees it as open: a Failover would be refused for good by a vault that seems empty.
      const changes = await opened.vault.observation.refresh();
      environment.openVaults.set(opened.vault);
      await this.#serve(resource, opened.vault);
      const check = await readRecoveryCheck(opened.vault.stores.objects);
      return {
        opened,
        changes,
        input: {
          ...base,
          trouble: undefined,
          vault: opened.vault,
          standby: opened.standby,
          recoveryKey: verifyRecoveryCheck(opened.vault.document, check),
          recipientsDiffer: !sameSet(
            opened.vault.document.recoveryRecipients,
            resource.spec.recoveryRecipients,
          ),
        },
      };
    } catch (error) {
      const trouble = reachabilityOf(error, {
        account: resource.spec.storageAccount.name,
        container: resource.spec.containerName,
      });
      log.warn({ reason: trouble.reason, error }, 'the vault could not be read');
      const vault = environment.openVaults.get(key);
      if (vault !== undefined) environment.openVaults.set({ ...vault, readable: false });
      environment.openVaults.explain(key, trouble.message);
      return {
        opened: undefined,
        changes: undefined,
        input: {
          ...base,
          trouble,
          vault,
          standby: undefined,
          recoveryKey: undefined,
          recipientsDiffer: false,
        },
      };
    }
  }

  async #open(resource: RecoveryVault, log: Logger): Promise<Opened> {
    const { environment, installation } = this.#deps;
    const held = await this.#storesOf(resource);
    return await openVault({ ...environment, installation, log }, resource, {
      stores: held.stores,
      location: held.location,
      before: this.#reusable(keyOf(resource), held.stores),
    });
  }

  #reusable(key: ObjectKey, stores: VaultStores): OpenVault | undefined {
    const before = this.#deps.environment.openVaults.get(key);
    return before?.stores === stores ? before : undefined;
  }

  /** The same stores while spec and Secrets stay the same. */
  async #storesOf(resource: RecoveryVault): Promise<HeldStores> {
    const key = keyOf(resource);
    const connection = await resolveConnection(this.#deps.environment.kube, resource);
    const wanted = fingerprint(connection);
    const held = this.#stores.get(key);
    if (held?.fingerprint === wanted) return held;
    const stores = await this.#deps.makeStores(connection);
    const made = { stores, fingerprint: wanted, location: locationOf(connection) };
    this.#stores.set(key, made);
    await held?.stores.close();
    return made;
  }

  async #serve(resource: RecoveryVault, vault: OpenVault): Promise<void> {
    if (!isControlled(vault)) return;
    const { environment } = this.#deps;
    for (const { name, refusal } of await serveAppliers(environment, resource, vault))
      environment.events.record(resource, {
        type: refusal === undefined ? 'Normal' : 'Warning',
        reason: refusal === undefined ? Reason.CertificateIssued : Reason.EnrolmentRefused,
        message:
          refusal === undefined
            ? `Applier ${name} enrolled; machines' data keys are sealed to it.`
            : `Applier ${name} was refused: ${refusal.message}`,
      });
    await vault.observation.removeOldEnrolments(() => assertInControl(vault));
  }

  /** Events, and the keys of other kinds that what was read concerns. */
  async #tell(resource: RecoveryVault, seen: Seen): Promise<void> {
    const { environment } = this.#deps;
    const key = keyOf(resource);
    const { opened, changes } = seen;
    if (opened?.created)
      environment.events.record(resource, {
        type: 'Normal',
        reason: Reason.VaultCreated,
        message: `Vault ${opened.vault.document.vaultId} was created.`,
      });
    if (opened?.tookControl)
      environment.events.record(resource, {
        type: 'Normal',
        reason: Reason.ControlTaken,
        message: `This installation took control of vault ${opened.vault.document.vaultId}.`,
      });
    const reachableBefore = conditionOf(resource, ConditionType.Reachable)?.status;
    if (seen.input.trouble !== undefined && reachableBefore === 'True')
      environment.events.record(resource, { type: 'Warning', ...seen.input.trouble });
    this.#enqueueConcerned(key, changes, controlChanged(resource, seen.input));
  }

  #enqueueConcerned(
    key: ObjectKey,
    changes: ObservedChanges | undefined,
    controlChanged: boolean,
  ): void {
    const { environment } = this.#deps;
    const { caches, openVaults } = environment;
    const all = controlChanged || changes === undefined || changes.registrations;
    for (const server of caches.processServers.list())
      if (
        vaultKeyOf(server) === key &&
        (all || concerns(server.metadata.name, server.spec, changes))
      )
        environment.enqueue('processServers', keyOf(server));
    for (const machine of caches.machines.list()) {
      const machineId = machine.status?.machineId;
      if (vaultKeyOf(machine) !== key) continue;
      if (all || (machineId !== undefined && changes.machines.has(machineId)))
        environment.enqueue('machines', keyOf(machine));
    }
    const vault = openVaults.get(key);
    if (controlChanged && vault !== undefined)
      for (const failover of caches.failovers.list())
        environment.enqueue('failovers', keyOf(failover));
  }

  #users(key: ObjectKey): { machines: number; processServers: number } {
    const { caches } = this.#deps.environment;
    return {
      machines: caches.machines.list().filter((machine) => vaultKeyOf(machine) === key).length,
      processServers: caches.processServers.list().filter((one) => vaultKeyOf(one) === key).length,
    };
  }

  #inUse(key: ObjectKey): Objection | undefined {
    const { machines, processServers } = this.#users(key);
    return machines + processServers === 0
      ? undefined
      : {
          reason: Reason.InUse,
          message: `${machines} ProtectedVMs and ${processServers} ProcessServers name this vault. Delete them first, or set the annotation farshore.dev/force-delete.`,
        };
  }

  /** Whether it is gone now. The storage is never touched. */
  async #letGo(resource: RecoveryVault): Promise<boolean> {
    const { environment } = this.#deps;
    const objection = this.#inUse(keyOf(resource));
    if (!mayGo(environment, resource, { title: 'The vault', objection })) return false;
    await release(environment, type, resource);
    return true;
  }

  async #close(key: ObjectKey): Promise<ReconcileResult> {
    this.#deps.environment.openVaults.remove(key);
    const held = this.#stores.get(key);
    this.#stores.delete(key);
    await held?.stores.close();
    return {};
  }
}

interface Seen {
  opened: Opened | undefined;
  changes: ObservedChanges | undefined;
  input: VaultStatusInput;
}

function toStatus(input: VaultStatusInput) {
  const { status, conditions } = showVault(input);
  return { ...status, conditions };
}

function concerns(
  name: string,
  spec: { mode: string; replicas: number },
  changes: ObservedChanges,
): boolean {
  if (changes.enrolments) return true;
  if (spec.mode === 'External') return changes.processServers.has(name);
  return Array.from({ length: spec.replicas }, (_, ordinal) => `${name}-${ordinal}`).some(
    (replica) => changes.processServers.has(replica),
  );
}

function controlChanged(resource: RecoveryVault, input: VaultStatusInput): boolean {
  const before = conditionOf(resource, ConditionType.InControl)?.status === 'True';
  const now = input.vault?.control.state === 'InControl' && input.trouble === undefined;
  const readableBefore = conditionOf(resource, ConditionType.Reachable)?.status === 'True';
  return before !== now || readableBefore !== (input.trouble === undefined);
}

function sameSet(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((one) => right.includes(one));
}
