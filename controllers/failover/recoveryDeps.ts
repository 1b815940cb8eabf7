import type { Logger } from '../../platform/ports.ts';
import type { RecoveryDeps } from '../../recovery/context.ts';
import { openDataKey } from '../../vault/keys.ts';
import type { Environment } from '../environment.ts';
import { assertInControl, type ControlledVault } from '../openvaults/openVaults.ts';
import type { ObjectKey } from '../runtime/objectKey.ts';

/** What recovery/ needs to run a failover from this operator: the vault's stores, its keys, its word on who is in control. */
export function recoveryDeps(
  deps: { environment: Environment; log: Logger; stepPollMs: number },
  vault: ControlledVault,
  vaultKey: ObjectKey,
): RecoveryDeps {
  const { clock, random, openVaults } = deps.environment;
  const { objects, pages, compute, images } = vault.stores;
  return {
    clock,
    random,
    logger: deps.log,
    objects,
    pages,
    compute,
    images,
    pollMs: deps.stepPollMs,
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
