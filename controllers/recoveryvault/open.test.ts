import { expect, test } from 'vitest';
import type { RecoveryVault } from '../../crds/index.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryCompute } from '../../test/fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { create, recoveryVault, secret } from '../../test/operator/manifests.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { controllerDocumentSchema } from '../../vault/documents/controller.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { generateSigningKey } from '../../vault/signing.ts';
import { requireVault } from '../../vault/vault.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import { type OpenDeps, openVault } from './open.ts';

const clock = new ManualClock();
const random = new SeededRandom(9);
const recovery = generateRecoveryKey(random);

test('a takeover that comes too late leaves the vault’s key as it was: whoever is in control can still open it', async () => {
  const objects = new MemoryObjectStore({ clock });
  const first = await openerOf(objects, 'a');
  const vault = recoveryVault({ recipients: [recovery.publicString] });
  await first(vault);
  const before = (await requireVault(objects)).document.vaultKey;

  const second = await openerOf(objects, 'b');
  objects.interleave = async (operation, key) => {
    if (operation !== 'replace' || key !== vaultLayout.controller) return;
    objects.interleave = undefined;
    await objects.put(key, controlledBy('c'));
  };
  const late = await second(takeover(1));
  expect(late.standby?.reason).toBe('HeldByOther');
  expect(late.vault.control).toMatchObject({ state: 'Standby' });
  expect((await requireVault(objects)).document.vaultKey).toEqual(before);
  expect((await first(vault)).vault.authority).toBeDefined();
});

test('a takeover makes the vault’s key its own, also when it died right after it took control', async () => {
  const objects = new MemoryObjectStore({ clock });
  await (await openerOf(objects, 'a'))(recoveryVault({ recipients: [recovery.publicString] }));
  const before = (await requireVault(objects)).document.vaultKey;
  const second = await openerOf(objects, 'b');
  let tookControl = false;
  objects.fault = (operation, key) => {
    if (operation === 'replace' && key === vaultLayout.controller) tookControl = true;
    else if (tookControl) return { when: 'before', error: new Error('died') };
    return undefined;
  };
  await expect(second(takeover(1))).rejects.toThrow('died');
  objects.fault = undefined;
  const opened = await second(takeover(1));
  expect(opened.vault.control).toMatchObject({ state: 'InControl', controllerEpoch: 2 });
  const after = (await requireVault(objects)).document.vaultKey;
  expect(after).not.toEqual(before);
  expect(opened.vault.boxKey?.id).toBe(after.id);
});

test('vault.json whose first controller key was exchanged is not used', async () => {
  const objects = new MemoryObjectStore({ clock });
  const open = await openerOf(objects, 'a');
  const resource = recoveryVault({ recipients: [recovery.publicString] });
  const before = (await open(resource)).vault;
  const { document } = await requireVault(objects);
  const [first] = document.controllerKeys;
  const evil = { ...first, publicKey: generateSigningKey(random).publicKey };
  const forged = { ...document, controllerKeys: [evil, ...document.controllerKeys] };
  await objects.put(vaultLayout.vault, new TextEncoder().encode(JSON.stringify(forged)));
  await expect(open(resource, before)).rejects.toThrow();
});

function takeover(takeControlFromEpoch: number): RecoveryVault {
  return recoveryVault({
    recipients: [recovery.publicString],
    spec: { takeControlFromEpoch, vaultKeySecretRef: { name: 'recovery', key: 'key' } },
  });
}

function controlledBy(letter: string): Uint8Array {
  return encodeDocument(controllerDocumentSchema, {
    controllerEpoch: 2,
    installationId: letter.repeat(32),
    holder: 'another cluster',
    since: 0,
  });
}

async function openerOf(objects: MemoryObjectStore, letter: string) {
  const kube = new FakeKube();
  await create(kube, secret('recovery', { key: recovery.privateString }));
  const deps: OpenDeps = {
    ...{ kube, clock, random, log: silentLogger },
    installation: {
      id: letter.repeat(32),
      signingKey: generateSigningKey(random),
      holder: `cluster ${letter}`,
    },
  };
  const pages = new MemoryPageBlobStore({ clock });
  const compute = new MemoryCompute({ pages });
  const stores = {
    ...{ objects, pages, compute, images: compute },
    ensureContainer: async () => {},
    close: async () => {},
  };
  const location = { container: 'vault', prefix: '' };
  return async (resource: RecoveryVault, before?: OpenVault) =>
    await openVault(deps, resource, { stores, location, before });
}
