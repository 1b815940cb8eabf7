/** Gathers what a process server's replicas must do: machines, their catalog entries, their policies. */
import type { ProcessServer, ProtectedVM, ReplicationPolicy } from '../../crds/index.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import { isTimeZone } from '../../vault/documents/weeklyWindow.ts';
import { durationSeconds, type Environment, isDeleted, namespaceOf } from '../environment.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import type { MachineIntent, MachinePolicy } from './assignments.ts';
import { machinesOf } from './machines.ts';

export interface Duties {
  /** Of each replica. */
  machines: Map<string, MachineIntent[]>;
  /** `namespace/name` of machines that name this process server and of which too little is known, or that run in Azure: what a list says of them stays. */
  keep: Set<string>;
  /** Where agents reach the owner of a machine: machineId → replica. */
  owners: Map<string, string>;
}

/** All machines that name the process server and are not being deleted. Pure but for reading caches. */
export function gatherDuties(
  environment: Pick<Environment, 'caches'>,
  vault: OpenVault,
  options: { server: ProcessServer; replicas: ReadonlySet<string> },
): Duties {
  const { server, replicas } = options;
  const { caches } = environment;
  const namespace = namespaceOf(server);
  const duties: Duties = { machines: new Map(), keep: new Set(), owners: new Map() };
  for (const machine of machinesOf(environment, server)) {
    const machineId = machine.status?.machineId;
    if (isDeleted(machine)) continue;
    const catalog = machineId === undefined ? undefined : vault.observation.catalog(machineId);
    const policy = caches.policies.get(`${namespace}/${machine.spec.policyRef.name}`);
    const replica = catalog?.processServer;
    if (catalog !== undefined && replica !== undefined && replicas.has(replica))
      duties.owners.set(catalog.machineId, replica);
    // A failover that took the disks raised the epoch to seal the journal with: no process server may ever be given that one.
    const inAzure = catalog?.activeSide === 'Azure';
    if (catalog === undefined || policy === undefined || replica === undefined || inAzure)
      duties.keep.add(`${namespace}/${machine.metadata.name}`);
    else if (replicas.has(replica)) {
      const intents = duties.machines.get(replica) ?? [];
      const { damaged: repair } = vault.observation.applied(catalog.machineId) ?? {};
      intents.push(
        intentOf({ machine, catalog: asAsked(environment, machine, catalog), policy, repair }),
      );
      duties.machines.set(replica, intents);
    }
  }
  return duties;
}

/** Phases in which a Failover asks for nothing any more. */
const ENDED: ReadonlySet<string> = new Set(['Rejected', 'Failed', 'Committed', 'CleanedUp']);

/**
 * The catalog asks for a final sync, which freezes a machine and turns it off; everybody with the vault's credential can write that.
 * It counts only while a Planned Failover in this cluster asks for the same.
 */
function asAsked(
  { caches }: Pick<Environment, 'caches'>,
  machine: ProtectedVM,
  catalog: CatalogDocument,
): CatalogDocument {
  const { finalSync, ...rest } = catalog;
  if (finalSync === undefined) return catalog;
  const failover = caches.failovers.get(`${namespaceOf(machine)}/${finalSync.failover}`);
  const spec = ENDED.has(failover?.status?.phase ?? '') ? undefined : failover?.spec;
  if (spec?.type !== 'Planned' || spec.machineRef.name !== machine.metadata.name) return rest;
  const powerOff = finalSync.powerOff && (spec.powerOffSource ?? true);
  return { ...rest, finalSync: { failover: finalSync.failover, powerOff } };
}

function intentOf(input: {
  machine: ProtectedVM;
  catalog: MachineIntent['catalog'];
  policy: ReplicationPolicy;
  repair: MachineIntent['repair'] | undefined;
}): MachineIntent {
  const { machine, catalog, policy, repair } = input;
  const { paused, resyncRequest } = machine.spec;
  const { resyncWindow, ...always } = policyOf(policy);
  const waits = resyncWindow !== undefined && !mayResyncNow(machine);
  return {
    catalog,
    paused,
    policy: waits ? { ...always, resyncWindow } : always,
    ...(repair === undefined ? {} : { repair }),
    ...(resyncRequest === undefined ? {} : { resyncToken: resyncRequest.token }),
  };
}

/** A resync of this machine does not wait for the policy's window while it is there, whatever its value. */
const RESYNC_NOW_ANNOTATION = 'farshore.dev/resync-now';

export function mayResyncNow({ metadata }: ProtectedVM): boolean {
  return metadata.annotations?.[RESYNC_NOW_ANNOTATION] !== undefined;
}

export function policyOf(policy: ReplicationPolicy): MachinePolicy {
  const { crashConsistentInterval, appConsistentInterval, hooks, resyncWindow } = policy.spec;
  return {
    crashConsistentSeconds: durationSeconds(crashConsistentInterval),
    appConsistentSeconds:
      appConsistentInterval === undefined ? 0 : durationSeconds(appConsistentInterval),
    ...(hooks === undefined
      ? {}
      : { hooks: { directory: hooks.directory, timeoutSeconds: durationSeconds(hooks.timeout) } }),
    // Nobody could tell when one in an unknown time zone opens: the policy says that it is not followed.
    ...(resyncWindow === undefined || !isTimeZone(resyncWindow.timeZone) ? {} : { resyncWindow }),
  };
}
