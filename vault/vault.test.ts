import { describe, expect } from 'vitest';
import { StoreError } from '../platform/storeErrors.ts';
import { test } from '../test/fixtures/vaultFounder.ts';
import { generateBoxKey } from './keys.ts';
import { createVault, openAuthority, readVault, requireVault } from './vault.ts';

describe('making a vault', () => {
  test('everything in it opens with the vault key and with the recovery key', async ({
    founder,
  }) => {
    const { deps, options, random, recovery, store, vaultKey } = founder;
    const { created, vault } = await createVault(deps, options);
    expect(created).toBe(true);
    expect((await readVault(store))?.document).toEqual(vault.document);
    for (const key of [vaultKey, recovery.box])
      await expect(openAuthority(deps, { vault: vault.document, key })).resolves.toBeDefined();
    await expect(
      openAuthority(deps, { vault: vault.document, key: generateBoxKey(random) }),
    ).rejects.toMatchObject({ code: 'SealedForOthers' });
  });

  test('of two that make it at once, both end with the same vault', async ({ founder }) => {
    const { deps, options } = founder;
    const both = await Promise.all([
      createVault(deps, options),
      createVault(deps, { ...options, installationId: 'b2'.repeat(16) }),
    ]);
    expect(both.map((one) => one.created).sort()).toEqual([false, true]);
    expect(both[0].vault.document.vaultId).toBe(both[1].vault.document.vaultId);
  });

  test('a lost answer is found again', async ({ founder }) => {
    const { controllerKey, deps, options, store } = founder;
    store.fault = (operation) =>
      operation === 'putIfAbsent'
        ? { when: 'after', error: new StoreError('VaultUnreachable', 'planned') }
        : undefined;
    await expect(founder.make()).rejects.toMatchObject({ code: 'VaultUnreachable' });
    store.fault = undefined;
    const again = await createVault(deps, options);
    expect(again.created).toBe(false);
    expect(again.vault.document.controllerKeys[0]?.publicKey).toBe(controllerKey.publicKey);
  });

  test('a recipient with a typo makes no vault', async ({ founder }) => {
    const { deps, options, recovery, store } = founder;
    const typo = recovery.publicString.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'));
    await expect(
      createVault(deps, { ...options, recoveryRecipients: [typo] }),
    ).rejects.toMatchObject({ code: 'KeyStringInvalid' });
    expect(store.keys()).toEqual([]);
  });
});

describe('reading a vault', () => {
  test('a missing one is undefined, or an error to those who need it', async ({ founder }) => {
    const { store } = founder;
    expect(await readVault(store)).toBeUndefined();
    await expect(requireVault(store)).rejects.toMatchObject({ code: 'VaultMissing' });
  });

  test('a newer format is told with both versions, whatever else it holds', async ({ founder }) => {
    const { store } = founder;
    await store.put('vault.json', new TextEncoder().encode('{"formatVersion":7,"new":{}}'));
    await expect(readVault(store)).rejects.toMatchObject({
      code: 'VaultFormatTooNew',
      formatVersion: 7,
      message: expect.stringMatching(/version 7.*up to 1/),
    });
  });

  test('hostile bytes are refused by name', async ({ founder }) => {
    const { store } = founder;
    const vault = await founder.make();
    const hostile = [
      '',
      'null',
      '{"formatVersion":0}',
      '{"formatVersion":"1"}',
      '{"formatVersion":1}',
      JSON.stringify({ ...vault, recoveryRecipients: [] }),
      JSON.stringify({
        ...vault,
        controllerKeys: Array.from({ length: 300 }, () => vault.controllerKeys[0]),
      }),
      JSON.stringify({ ...vault, padding: 'x'.repeat(5 << 20) }),
    ];
    for (const text of hostile) {
      await store.put('vault.json', new TextEncoder().encode(text));
      await expect(readVault(store)).rejects.toMatchObject({ code: 'VaultDocumentInvalid' });
    }
  });
});
