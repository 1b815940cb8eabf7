import type { Failover, ProtectedVM, RecoveryVault } from '../../crds/index.ts';
import { type Environment, namespaceOf, vaultKeyOf } from '../environment.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';

/** A Failover's machine and that machine's vault, as far as they are there. */
export interface Scope {
  machine: ProtectedVM | undefined;
  vaultKey: ObjectKey | undefined;
  vaultResource: RecoveryVault | undefined;
  vault: OpenVault | undefined;
}

export function scopeOf(
  { caches, openVaults }: Pick<Environment, 'caches' | 'openVaults'>,
  resource: Failover,
): Scope {
  const machine = caches.machines.get(`${namespaceOf(resource)}/${resource.spec.machineRef.name}`);
  const vaultKey = machine === undefined ? undefined : vaultKeyOf(machine);
  return {
    machine,
    vaultKey,
    vaultResource: vaultKey === undefined ? undefined : caches.vaults.get(vaultKey),
    vault: vaultKey === undefined ? undefined : openVaults.get(vaultKey),
  };
}
