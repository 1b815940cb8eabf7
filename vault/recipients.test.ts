import { describe, expect } from 'vitest';
import { test, type VaultFounder } from '../test/fixtures/vaultFounder.ts';
import { Catalog } from './catalog.ts';
import { trustedControllers } from './controllerTrust.ts';
import type { CatalogDocument } from './documents/catalog.ts';
import type { VaultDocument } from './documents/vault.ts';
import { createDataKey, generateBoxKey, openDataKey } from './keys.ts';
import { replaceVaultKey, sealCatalog, setRecoveryRecipients } from './recipients.ts';
import { generateRecoveryKey } from './recoveryKey.ts';
import { generateSigningKey } from './signing.ts';
import { addControllerKey, openAuthority, requireVault, vaultRecipients } from './vault.ts';

const machineId = 'c3'.repeat(16);

/** Machine db-1, whose data key is sealed for the vault's recipients. Returns the key. */
async function withMachine(
  { random, store }: VaultFounder,
  vault: VaultDocument,
): Promise<Uint8Array> {
  const { dataKey, sealed } = createDataKey({
    random,
    vaultId: vault.vaultId,
    machineId,
    recipients: vaultRecipients(vault),
  });
  const document: CatalogDocument = {
    machineId,
    name: 'db-1',
    namespace: 'default',
    createdAt: 1,
    writerEpoch: 1,
    disks: [],
    dataKey: sealed,
    activeSide: 'Source',
    policy: { name: 'gold', retentionSeconds: 86400 },
    target: {},
  };
  await new Catalog({ store }).create(document);
  return dataKey;
}

async function sealedNow({ store }: VaultFounder): Promise<CatalogDocument['dataKey']> {
  return (await new Catalog({ store }).read(machineId))?.document.dataKey ?? [];
}

describe('other recipients', () => {
  test('a new recovery recipient opens what was there before; one that was taken off does not', async ({
    founder,
  }) => {
    const { controllerKey, deps, installationId, random, recovery, vaultKey } = founder;
    const vault = await founder.make();
    const dataKey = await withMachine(founder, vault);
    const next = generateRecoveryKey(random);
    const changed = await setRecoveryRecipients(deps, {
      vaultKey,
      controllerKey,
      recoveryRecipients: [next.publicString],
    });
    const { vaultId } = vault;
    expect(
      openDataKey({ sealed: await sealedNow(founder), key: next.box, vaultId, machineId }),
    ).toEqual(dataKey);
    expect(
      openDataKey({ sealed: await sealedNow(founder), key: vaultKey, vaultId, machineId }),
    ).toEqual(dataKey);
    const sealed = await sealedNow(founder);
    expect(() => openDataKey({ sealed, key: recovery.box, vaultId, machineId })).toThrow(
      /sealed for/,
    );
    await openAuthority(deps, { vault: changed.document, key: next.box });
    // The new recovery key endorses, by the list that the controller signed.
    const taker = generateSigningKey(random);
    const { document } = await addControllerKey(deps, {
      installationId,
      publicKey: taker.publicKey,
      endorser: next.signing,
    });
    expect(trustedControllers({ vault: document, pinned: controllerKey.publicKey })).toContain(
      taker.publicKey,
    );
  });

  test('the same list again changes nothing', async ({ founder }) => {
    const { controllerKey, deps, recovery, store, vaultKey } = founder;
    await founder.make();
    const before = await requireVault(store);
    expect(
      await setRecoveryRecipients(deps, {
        vaultKey,
        controllerKey,
        recoveryRecipients: [recovery.publicString],
      }),
    ).toEqual(before);
  });

  test('a new cluster makes its own vault key with the recovery key, also when it is stopped in between', async ({
    founder,
  }) => {
    const { deps, random, recovery, store, vaultKey } = founder;
    const vault = await founder.make();
    const dataKey = await withMachine(founder, vault);
    const newVaultKey = generateBoxKey(random);
    const replace = () => replaceVaultKey(deps, { opener: recovery.box, newVaultKey });
    for (const killedAt of ['catalog/', 'vault.json']) {
      store.fault = (operation, key) =>
        operation === 'replace' && key.startsWith(killedAt)
          ? { when: 'before', error: new Error('killed') }
          : undefined;
      await expect(replace()).rejects.toThrow('killed');
      // As long as anything is missing, vault.json says that there is something to do.
      expect((await requireVault(store)).document.vaultKey.id).toBe(vaultKey.id);
    }
    store.fault = undefined;
    const { document } = await replace();
    expect(document.vaultKey.id).toBe(newVaultKey.id);
    const sealed = await sealedNow(founder);
    expect(openDataKey({ sealed, key: newVaultKey, vaultId: vault.vaultId, machineId })).toEqual(
      dataKey,
    );
    expect(() =>
      openDataKey({ sealed, key: vaultKey, vaultId: vault.vaultId, machineId }),
    ).toThrow();
    await openAuthority(deps, { vault: document, key: newVaultKey });
  });

  test('boxes of process servers stay when the rest is sealed anew', async ({ founder }) => {
    const { deps, random, store, vaultKey } = founder;
    const vault = await founder.make();
    await withMachine(founder, vault);
    const server = generateBoxKey(random);
    const catalog = new Catalog({ store });
    const { sealed } = createDataKey({
      random,
      vaultId: vault.vaultId,
      machineId,
      recipients: [
        ...vaultRecipients(vault),
        { kind: 'processserver', publicKey: server.publicKey },
      ],
    });
    await catalog.update(machineId, (machine) => ({ ...machine, dataKey: sealed }));
    await sealCatalog(deps, {
      vault: { ...vault, recoveryRecipients: [generateRecoveryKey(random).publicString] },
      key: vaultKey,
    });
    expect((await sealedNow(founder)).map((box) => box.kind)).toEqual([
      'vault',
      'processserver',
      'recovery',
    ]);
  });
});

describe('a new vault key', () => {
  test('is not held up by one machine whose entry is damaged', async ({ founder }) => {
    const { deps, random, recovery, store } = founder;
    const vault = await founder.make();
    const catalog = new Catalog({ store });
    const [damaged, foreign, whole] = ['0a', '0b', '0c'].map((id) => id.repeat(16)) as [
      string,
      string,
      string,
    ];
    await store.put(`catalog/${damaged}.json`, new TextEncoder().encode('garbage'));
    const entryOf = (machineId: string, recipients: ReturnType<typeof vaultRecipients>) => ({
      machineId,
      ...{ name: 'web', namespace: 'default', createdAt: 0, writerEpoch: 1, disks: [] },
      dataKey: createDataKey({ random, vaultId: vault.vaultId, machineId, recipients }).sealed,
      ...{ activeSide: 'Source' as const, target: {} },
      policy: { name: 'policy', retentionSeconds: 1 },
    });
    const stranger = { kind: 'vault' as const, publicKey: generateBoxKey(random).publicKey };
    await catalog.create(entryOf(foreign, [stranger]));
    await catalog.create(entryOf(whole, vaultRecipients(vault)));
    const newVaultKey = generateBoxKey(random);
    await replaceVaultKey(deps, { opener: recovery.box, newVaultKey });
    const sealed = (await catalog.read(whole))?.document.dataKey ?? [];
    const opened = openDataKey({
      sealed,
      key: newVaultKey,
      vaultId: vault.vaultId,
      machineId: whole,
    });
    expect(opened).toHaveLength(32);
  });
});
