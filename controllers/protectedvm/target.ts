/** What a machine becomes in Azure: ProtectedVM and RecoveryVault taken together. Pure. */
import type { ProtectedVM, RecoveryVault } from '../../crds/index.ts';
import type { FailoverTarget } from '../../vault/documents/failover.ts';

/** `Test` puts every interface into the vault's test network and lets Azure choose addresses. */
export function resolveTarget(
  machine: Pick<ProtectedVM, 'spec'>,
  vault: Pick<RecoveryVault, 'spec'>,
  kind: 'Production' | 'Test',
): FailoverTarget {
  const { target } = machine.spec;
  const { spec } = vault;
  const nics = target.nics.length === 0 ? [{}] : target.nics;
  return {
    name: target.name,
    resourceGroup: target.resourceGroup ?? spec.resourceGroup,
    location: spec.location,
    size: target.size,
    osType: 'Linux',
    generation: target.generation,
    diskType: target.diskType,
    ...(target.zone === undefined ? {} : { zone: target.zone }),
    nics: nics.map((nic) => (kind === 'Test' ? testNic(vault) : productionNic(nic, vault))),
    tags: target.tags ?? {},
    storageAccountId: spec.storageAccount.resourceId,
  };
}

type Nic = FailoverTarget['nics'][number];

function testNic({ spec }: Pick<RecoveryVault, 'spec'>): Nic {
  const { test } = spec.networks;
  return {
    resourceGroup: test.resourceGroup ?? spec.resourceGroup,
    network: test.network,
    subnet: test.subnet,
  };
}

function productionNic(
  nic: ProtectedVM['spec']['target']['nics'][number],
  { spec }: Pick<RecoveryVault, 'spec'>,
): Nic {
  const { production } = spec.networks;
  // A network of its own is looked for in the vault's resource group, not in that of the vault's network.
  const group =
    nic.network === undefined
      ? (production.resourceGroup ?? spec.resourceGroup)
      : spec.resourceGroup;
  return {
    resourceGroup: nic.resourceGroup ?? group,
    network: nic.network ?? production.network,
    subnet: nic.subnet ?? production.subnet,
    ...(nic.ip === undefined ? {} : { privateIp: nic.ip }),
  };
}
