/** What policies.ts decides from: read from caches, from the vault's observation, and from the vault itself where seconds count. */
import type { Failover } from '../../crds/index.ts';
import { holderOf } from '../../recovery/steps/catalog.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { VaultFacts } from '../decisions.ts';
import { type Environment, namespaceOf } from '../environment.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import { conditionOf } from '../runtime/conditions.ts';
import type { FailoverInput } from './policies.ts';
import type { Scope } from './scope.ts';

/** Rejects with a StoreError, a VaultDocumentError. */
export async function gatherInput(
  environment: Pick<Environment, 'caches' | 'openVaults'>,
  resource: Failover,
  seen: { scope: Scope; ledger: FailoverDocument | undefined },
): Promise<FailoverInput> {
  const { scope, ledger } = seen;
  const { machine, vault, vaultKey } = scope;
  const accepted = machine === undefined ? undefined : conditionOf(machine, 'Accepted');
  // What began is not asked again whether it may.
  const catalog =
    ledger === undefined ? await readCatalog(vault, machine?.status?.machineId) : undefined;
  const holder =
    catalog === undefined || vault === undefined
      ? undefined
      : await holderOf(vault.stores, catalog);
  const reported =
    catalog?.processServer === undefined
      ? undefined
      : vault?.observation.machine(catalog.processServer, catalog.machineId);
  const inVault = catalog !== undefined && vault !== undefined;
  return {
    name: resource.metadata.name,
    namespace: namespaceOf(resource),
    spec: resource.spec,
    machine: {
      exists: machine !== undefined,
      accepted: accepted?.status === 'True',
      message: accepted?.message,
    },
    vault: vaultFacts(environment, resource, { scope, noMachine: 'its machine does not exist.' }),
    vaultRef: vaultKey ?? '',
    ledger,
    catalog,
    otherActive: holder ?? otherActive(environment, resource),
    agentConnected: reported?.agent.connected ?? false,
    points: inVault
      ? await vault.points.summary(catalog.machineId, { appConsistent: false })
      : undefined,
    namedPointExists: inVault && (await hasPoint(vault, catalog.machineId, resource)),
    hasBarrier: reported?.uploadedBarrier !== undefined,
  };
}

/** `noMachine`: what is said of the vault when nothing tells which it is. */
export function vaultFacts(
  { openVaults }: Pick<Environment, 'openVaults'>,
  resource: Failover,
  options: { scope: Scope; noMachine: string },
): VaultFacts {
  const { vaultKey, vaultResource } = options.scope;
  return vaultKey === undefined
    ? { state: 'NotOpen', message: options.noMachine }
    : openVaults.facts(vaultResource, vaultKey, namespaceOf(resource));
}

/** As the vault holds it now: what was observed seconds ago may lack another failover's claim. */
async function readCatalog(
  vault: OpenVault | undefined,
  machineId: string | undefined,
): Promise<CatalogDocument | undefined> {
  if (vault === undefined || machineId === undefined) return undefined;
  return (await vault.catalog.read(machineId))?.document;
}

/** Phases in which a failover has its machine. */
const ACTIVE: ReadonlySet<string> = new Set(['Running', 'FailedOver']);

/** Another Failover of the machine that was accepted and has not ended; the catalog learns of it a moment later. */
function otherActive(
  { caches }: Pick<Environment, 'caches'>,
  resource: Failover,
): string | undefined {
  const { name } = resource.metadata;
  return caches.failovers
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

/** The recovery point that the Failover names, when it names one. */
async function hasPoint(vault: OpenVault, machineId: string, resource: Failover): Promise<boolean> {
  const { recoveryPoint } = resource.spec;
  if (recoveryPoint.type !== 'Name' || !/^(0|[1-9][0-9]{0,18})$/.test(recoveryPoint.name ?? ''))
    return false;
  const key = vaultLayout.point(machineId, BigInt(recoveryPoint.name ?? ''));
  return (await vault.stores.objects.head(key)) !== undefined;
}
