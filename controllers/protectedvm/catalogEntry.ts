/** A machine's entry in the vault's catalog: made with its data key, then kept as the resource asks. Decided purely, written by CAS. */
import type { ProtectedVM, RecoveryVault, ReplicationPolicy } from '../../crds/index.ts';
import type { Random } from '../../platform/ports.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import type { Registration } from '../../vault/documents/registration.ts';
import {
  boxContext,
  createDataKey,
  decodePublicKey,
  type Recipient,
  sealForMissing,
} from '../../vault/keys.ts';
import { vaultRecipients } from '../../vault/vault.ts';
import { canonical } from '../canonicalJson.ts';
import { durationSeconds, namespaceOf } from '../environment.ts';
import { registrationsOf } from '../openvaults/enrolment.ts';
import { assertInControl, type ControlledVault } from '../openvaults/openVaults.ts';
import { assignDisks } from './policies.ts';
import { resolveTarget } from './target.ts';

export interface CatalogWish {
  machineId: string;
  resource: ProtectedVM;
  vaultResource: RecoveryVault;
  policy: ReplicationPolicy;
  /** Which replica protects it. */
  processServer: string;
  reported: MachineStatus['disks'];
}

/** Makes or updates the entry; returns it as it stands. Throws StoreError, KeyError, VaultDocumentError. */
export async function ensureCatalog(
  deps: { random: Random; now: number },
  vault: ControlledVault,
  wish: CatalogWish,
): Promise<{ document: CatalogDocument; changed: boolean }> {
  const recipients = recipientsOf(vault, wish.processServer);
  const known = vault.observation.catalog(wish.machineId);
  if (
    known !== undefined &&
    nextEntry(deps, vault, { wish, recipients, current: known }) === undefined
  )
    return { document: known, changed: false };
  await assertInControl(vault);
  const updated = await vault.catalog.update(wish.machineId, (current) =>
    nextEntry(deps, vault, { wish, recipients, current }),
  );
  if (updated !== undefined) {
    vault.observation.noteCatalog(updated);
    return updated;
  }
  const created = await vault.catalog.create(firstEntry(deps, vault, { wish, recipients }));
  vault.observation.noteCatalog(created);
  return { document: created.document, changed: true };
}

/** Vault key, recovery recipients, the machine's process server, and every applier. */
export function recipientsOf(vault: ControlledVault, processServer: string): Recipient[] {
  const holds = (one: Registration) =>
    one.kind === 'applier' || (one.kind === 'processserver' && one.name === processServer);
  return [
    ...vaultRecipients(vault.document),
    ...registrationsOf(vault)
      .filter(holds)
      .map((one) => ({ kind: one.kind, publicKey: decodePublicKey(one.encryptionKey) })),
  ];
}

function firstEntry(
  deps: { random: Random; now: number },
  vault: ControlledVault,
  options: { wish: CatalogWish; recipients: Recipient[] },
): CatalogDocument {
  const { wish, recipients } = options;
  const { machineId, resource } = wish;
  const { disks, nextIndex } = assignDisks({
    wanted: resource.spec.disks,
    known: [],
    nextIndex: undefined,
    reported: wish.reported,
  });
  return {
    machineId,
    name: resource.metadata.name,
    namespace: namespaceOf(resource),
    createdAt: deps.now,
    writerEpoch: 1,
    processServer: wish.processServer,
    disks,
    nextDiskIndex: nextIndex,
    dataKey: createDataKey({
      random: deps.random,
      vaultId: vault.document.vaultId,
      machineId,
      recipients,
    }).sealed,
    activeSide: 'Source',
    ...settingsOf(wish),
  };
}

/** Undefined when the entry is as it should be. What a failover set (side, epoch, its own name) is left alone. */
export function nextEntry(
  deps: { random: Random },
  vault: Pick<ControlledVault, 'boxKey' | 'document'>,
  options: { wish: CatalogWish; recipients: readonly Recipient[]; current: CatalogDocument },
): CatalogDocument | undefined {
  const { wish, recipients, current } = options;
  const { disks, nextIndex } = assignDisks({
    wanted: wish.resource.spec.disks,
    known: current.disks,
    nextIndex: current.nextDiskIndex,
    reported: wish.reported,
  });
  const dataKey = sealForMissing({
    random: deps.random,
    sealed: current.dataKey,
    key: vault.boxKey,
    recipients,
    context: boxContext.dataKey(vault.document.vaultId, current.machineId),
  });
  const next: CatalogDocument = {
    ...current,
    disks,
    nextDiskIndex: nextIndex,
    dataKey: [...dataKey],
    ...ownedBy(current, wish.processServer),
    // A failover decided with the target that it copied; a later one may differ.
    ...settingsOf(wish),
  };
  return canonical(next) === canonical(current) ? undefined : next;
}

/** Two process servers may believe they own a machine that moves: the higher epoch says which is right. */
export function ownedBy(
  current: Pick<CatalogDocument, 'processServer' | 'writerEpoch'>,
  processServer: string,
): { processServer: string; writerEpoch: number } {
  const { writerEpoch } = current;
  const moved = current.processServer !== undefined && current.processServer !== processServer;
  return { processServer, writerEpoch: moved ? writerEpoch + 1 : writerEpoch };
}

function settingsOf(wish: CatalogWish): Pick<CatalogDocument, 'policy' | 'target'> {
  const { resource, vaultResource, policy } = wish;
  return {
    policy: {
      name: policy.metadata.name,
      retentionSeconds: durationSeconds(policy.spec.retention),
      verifiedSharePerDay: policy.spec.sampledVerification.sharePerDay,
    },
    target: {
      production: resolveTarget(resource, vaultResource, 'Production'),
      test: resolveTarget(resource, vaultResource, 'Test'),
    },
  };
}
