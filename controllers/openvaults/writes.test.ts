/** Every write to a vault: refused once another installation is in control, and sealed to nobody whom no controller vouches for. */
import { createHash } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import type { ProtectedVM, RecoveryVault, ReplicationPolicy } from '../../crds/index.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryCompute } from '../../test/fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { protectedVM, recoveryVault, replicationPolicy } from '../../test/operator/manifests.ts';
import { Catalog } from '../../vault/catalog.ts';
import { VaultControl } from '../../vault/control.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { controllerDocumentSchema } from '../../vault/documents/controller.ts';
import { enrolmentRequestSchema } from '../../vault/documents/enrolment.ts';
import { registrationSchema } from '../../vault/documents/registration.ts';
import { type BoxKey, encodePublicKey, generateBoxKey } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { NameClaims } from '../../vault/names.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { signRegistration } from '../../vault/registrations.ts';
import { generateSigningKey, signText } from '../../vault/signing.ts';
import { createVault, openAuthority } from '../../vault/vault.ts';
import { ensureCatalog, recipientsOf } from '../protectedvm/catalogEntry.ts';
import { answer, refused, register, registrationOf } from './enrolment.ts';
import { VaultObservation } from './observation.ts';
import { assertInControl, type ControlledVault, claimName, releaseName } from './openVaults.ts';
import { PointsReader } from './points.ts';

const id = 'ab'.repeat(32);
const machineId = 'cd'.repeat(16);
const web = { kind: 'machine' as const, name: 'web', namespace: 'default', uid: 'uid-1' };
let clock: ManualClock;
let random: SeededRandom;
let objects: MemoryObjectStore;
let vault: ControlledVault;

beforeEach(async () => {
  clock = new ManualClock();
  random = new SeededRandom(5);
  objects = new MemoryObjectStore({ clock });
  vault = await controlledVault();
});

describe('an installation that lost control without knowing it', () => {
  test.each<[string, () => Promise<unknown>]>([
    ['claims no name', () => claimName(vault, { ...web, name: 'db', machineId })],
    ['moves no name to itself', () => claimName(vault, { ...web, uid: 'uid-2', machineId })],
    ['gives no name back', () => releaseName(vault, web)],
    ['answers no enrolment', () => answer(vault, id, refused('No', 'no'))],
    ['registers nobody', () => register(vault, { ...registration('applier'), token: 't' })],
    ['makes no catalog entry', () => ensureCatalog({ random, now: 0 }, vault, wish())],
    [
      'removes no old enrolment',
      () => vault.observation.removeOldEnrolments(() => assertInControl(vault)),
    ],
  ])('%s', async (_, write) => {
    await claimName(vault, { ...web, machineId });
    vault.claims.clear();
    await oldEnrolment();
    await vault.observation.refresh();
    await loseControl();
    const before = await contents();
    await expect(write()).rejects.toMatchObject({ code: 'NotInControl' });
    expect(await contents()).toEqual(before);
  });
});

describe('whom data keys are sealed to', () => {
  test('one that enrolled with this controller', async () => {
    const box = generateBoxKey(random);
    vault.observation.noteRegistration(
      await register(vault, { ...registration('applier', box), token: 'token' }),
    );
    expect(sealedTo(box)).toBe(true);
  });

  test('nobody who wrote a registration without a controller’s signature, or copied one', async () => {
    const evil = generateBoxKey(random);
    const honest = await register(vault, { ...registration('applier'), token: 'token' });
    const own = generateSigningKey(random);
    const unsigned = { ...registration('applier', evil), tokenSha256: 'e'.repeat(64) };
    for (const forged of [
      { ...honest, encryptionKey: encodePublicKey(evil.publicKey) },
      { ...unsigned, signer: own.publicKey, signature: signText(own, 'anything') },
      signRegistration(unsigned, { key: own, vaultId: vault.document.vaultId }),
      { ...unsigned, signer: vault.installation.signingKey.publicKey, signature: 'AAAA' },
    ]) {
      await objects.put(
        vaultLayout.registration('applier', 'evil'),
        encodeDocument(registrationSchema, forged),
      );
      await vault.observation.refresh();
      expect(vault.observation.registrations()).not.toEqual([]);
      expect(sealedTo(evil)).toBe(false);
    }
  });

  test('a registration that somebody put under the id of a request is replaced by the true one', async () => {
    const evil = generateBoxKey(random);
    const forged = signRegistration(
      { ...registration('processserver', evil), tokenSha256: 'e'.repeat(64) },
      { key: generateSigningKey(random), vaultId: vault.document.vaultId },
    );
    await objects.put(
      vaultLayout.registration('processserver', 'ps'),
      encodeDocument(registrationSchema, forged),
    );
    const box = generateBoxKey(random);
    const made = await register(vault, { ...registration('processserver', box), token: 'token' });
    vault.observation.noteRegistration(made);
    expect(registrationOf(vault, 'processserver', 'ps')?.encryptionKey).toBe(
      encodePublicKey(box.publicKey),
    );
    expect(sealedTo(evil)).toBe(false);
  });
});

function sealedTo(box: BoxKey): boolean {
  return recipientsOf(vault, 'ps').some(
    ({ publicKey }) => Buffer.compare(publicKey, box.publicKey) === 0,
  );
}

function registration(kind: 'applier' | 'processserver', box = generateBoxKey(random)) {
  return {
    kind,
    name: kind === 'applier' ? 'applier' : 'ps',
    encryptionKey: encodePublicKey(box.publicKey),
    enrolment: id,
    registeredAt: 0,
  };
}

function wish() {
  return {
    machineId,
    resource: protectedVM() as ProtectedVM,
    vaultResource: recoveryVault({ recipients: [] }) as RecoveryVault,
    policy: replicationPolicy() as ReplicationPolicy,
    processServer: 'ps',
    reported: [],
  };
}

async function contents(): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const key of objects.keys()) {
    const body = (await objects.get(key))?.body ?? new Uint8Array();
    all.set(key, createHash('sha256').update(body).digest('hex'));
  }
  return all;
}

async function oldEnrolment(): Promise<void> {
  const request = { kind: 'agent' as const, name: 'web', requestedAt: 0, csrPem: '' };
  await objects.put(vaultLayout.enrolment(id), encodeDocument(enrolmentRequestSchema, request));
  const other = 'ef'.repeat(32);
  await objects.put(vaultLayout.enrolment(other), encodeDocument(enrolmentRequestSchema, request));
  await objects.put(vaultLayout.enrolmentAnswer(other), new TextEncoder().encode('{}'));
  await clock.advance(48 * 3_600_000);
}

async function loseControl(): Promise<void> {
  await objects.put(
    vaultLayout.controller,
    encodeDocument(controllerDocumentSchema, {
      controllerEpoch: 2,
      installationId: 'b'.repeat(32),
      holder: 'another cluster',
      since: 0,
    }),
  );
}

async function controlledVault(): Promise<ControlledVault> {
  const installation = {
    id: 'a'.repeat(32),
    signingKey: generateSigningKey(random),
    holder: 'this cluster',
  };
  const deps = { store: objects, clock, random };
  const boxKey = generateBoxKey(random);
  const { vault: made } = await createVault(deps, {
    installationId: installation.id,
    vaultKey: boxKey,
    controllerKey: installation.signingKey,
    recoveryRecipients: [generateRecoveryKey(random).publicString],
  });
  const vaultControl = new VaultControl(deps, {
    installationId: installation.id,
    holder: installation.holder,
  });
  const control = await vaultControl.takeFirst();
  if (control.state !== 'InControl') throw new Error('not in control');
  const pages = new MemoryPageBlobStore({ clock });
  const compute = new MemoryCompute({ pages });
  return {
    key: 'default/vault',
    installation,
    stores: {
      objects,
      pages,
      compute,
      images: compute,
      ensureContainer: async () => {},
      close: async () => {},
    },
    location: { container: 'vault', prefix: '' },
    document: made.document,
    control,
    boxKey,
    authority: await openAuthority(deps, { vault: made.document, key: boxKey }),
    vaultControl,
    catalog: new Catalog(deps),
    names: new NameClaims(deps),
    observation: new VaultObservation({ objects, clock, log: silentLogger }),
    points: new PointsReader({ objects }),
    claims: new Map(),
    readable: true,
  };
}
