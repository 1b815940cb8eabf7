import { beforeEach, describe, expect, test } from 'vitest';
import { StoreError } from '../platform/storeErrors.ts';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../test/fakes/memoryObjectStore.ts';
import { SeededRandom } from '../test/fakes/seededRandom.ts';
import { Catalog } from './catalog.ts';
import { endorseController, endorseRecipients, trustedControllers } from './controllerTrust.ts';
import type { CatalogDocument, VaultDocument } from './documents.ts';
import { type BoxKey, createDataKey, generateBoxKey, openDataKey } from './keys.ts';
import { replaceVaultKey, sealCatalog, setRecoveryRecipients } from './recipients.ts';
import { answerRecoveryChallenge, verifyRecoveryCheck } from './recoveryCheck.ts';
import { generateRecoveryKey, type RecoveryKey } from './recoveryKey.ts';
import { generateSigningKey, type SigningKey } from './signing.ts';
import {
  addControllerKey,
  createVault,
  isEndorsedController,
  openAuthority,
  readVault,
  requireEndorsedRecipients,
  requireVault,
  vaultRecipients,
} from './vault.ts';

const installationId = 'a1'.repeat(16);
const clock = new ManualClock();
const random = new SeededRandom(11);
let store: MemoryObjectStore;
let vaultKey: BoxKey;
let controllerKey: SigningKey;
let recovery: RecoveryKey;

beforeEach(() => {
  store = new MemoryObjectStore({ clock });
  vaultKey = generateBoxKey(random);
  controllerKey = generateSigningKey(random);
  recovery = generateRecoveryKey(random);
});

const deps = () => ({ store, clock, random });
const options = () => ({
  installationId,
  vaultKey,
  controllerKey,
  recoveryRecipients: [recovery.publicString],
});

async function newVault(): Promise<VaultDocument> {
  return (await createVault(deps(), options())).vault.document;
}

describe('making a vault', () => {
  test('everything in it opens with the vault key and with the recovery key', async () => {
    const { created, vault } = await createVault(deps(), options());
    expect(created).toBe(true);
    expect((await readVault(store))?.document).toEqual(vault.document);
    for (const key of [vaultKey, recovery.box])
      await expect(openAuthority(deps(), { vault: vault.document, key })).resolves.toBeDefined();
    await expect(
      openAuthority(deps(), { vault: vault.document, key: generateBoxKey(random) }),
    ).rejects.toMatchObject({ code: 'SealedForOthers' });
  });

  test('of two that make it at once, both end with the same vault', async () => {
    const both = await Promise.all([
      createVault(deps(), options()),
      createVault(deps(), { ...options(), installationId: 'b2'.repeat(16) }),
    ]);
    expect(both.map((one) => one.created).sort()).toEqual([false, true]);
    expect(both[0].vault.document.vaultId).toBe(both[1].vault.document.vaultId);
  });

  test('a lost answer is found again', async () => {
    store.fault = (operation) =>
      operation === 'putIfAbsent'
        ? { when: 'after', error: new StoreError('VaultUnreachable', 'planned') }
        : undefined;
    await expect(newVault()).rejects.toMatchObject({ code: 'VaultUnreachable' });
    store.fault = undefined;
    const again = await createVault(deps(), options());
    expect(again.created).toBe(false);
    expect(again.vault.document.controllerKeys[0]?.publicKey).toBe(controllerKey.publicKey);
  });

  test('a recipient with a typo makes no vault', async () => {
    const typo = recovery.publicString.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'));
    await expect(
      createVault(deps(), { ...options(), recoveryRecipients: [typo] }),
    ).rejects.toMatchObject({ code: 'KeyStringInvalid' });
    expect(store.keys()).toEqual([]);
  });
});

describe('reading a vault', () => {
  test('a missing one is undefined, or an error to those who need it', async () => {
    expect(await readVault(store)).toBeUndefined();
    await expect(requireVault(store)).rejects.toMatchObject({ code: 'VaultMissing' });
  });

  test('a newer format is told with both versions, whatever else it holds', async () => {
    await store.put('vault.json', new TextEncoder().encode('{"formatVersion":7,"new":{}}'));
    await expect(readVault(store)).rejects.toMatchObject({
      code: 'VaultFormatTooNew',
      formatVersion: 7,
      message: expect.stringMatching(/version 7.*up to 1/),
    });
  });

  test('hostile bytes are refused by name', async () => {
    const vault = await newVault();
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

describe('controllers that count', () => {
  test('a successor endorsed by the controller before it, and its successor, count', async () => {
    const vault = await newVault();
    const [second, third] = [generateSigningKey(random), generateSigningKey(random)];
    await addControllerKey(deps(), {
      installationId,
      publicKey: second.publicKey,
      endorser: controllerKey,
    });
    const last = await addControllerKey(deps(), {
      installationId,
      publicKey: third.publicKey,
      endorser: second,
    });
    const trusted = trustedControllers({ vault: last.document, pinned: controllerKey.publicKey });
    expect(trusted).toEqual(new Set([controllerKey, second, third].map((key) => key.publicKey)));
    // Pinned later, what came before the pin does not count.
    expect(trustedControllers({ vault: last.document, pinned: second.publicKey })).toEqual(
      new Set([second.publicKey, third.publicKey]),
    );
    expect(isEndorsedController(vault, second.publicKey)).toBe(false);
  });

  test('a recovery key endorses the controller of a new cluster', async () => {
    await newVault();
    const next = generateSigningKey(random);
    const { document } = await addControllerKey(deps(), {
      installationId,
      publicKey: next.publicKey,
      endorser: recovery.signing,
    });
    expect(trustedControllers({ vault: document, pinned: controllerKey.publicKey })).toContain(
      next.publicKey,
    );
  });

  test('adding a key again adds nothing', async () => {
    await newVault();
    const next = generateSigningKey(random);
    const add = () =>
      addControllerKey(deps(), {
        installationId,
        publicKey: next.publicKey,
        endorser: controllerKey,
      });
    const first = await add();
    expect(await add()).toEqual(first);
  });

  test('a key that nobody who counts endorsed is not added', async () => {
    await newVault();
    const stranger = generateSigningKey(random);
    await expect(
      addControllerKey(deps(), {
        installationId,
        publicKey: stranger.publicKey,
        endorser: stranger,
      }),
    ).rejects.toMatchObject({ code: 'ControllerNotEndorsed' });
    expect((await requireVault(store)).document.controllerKeys).toHaveLength(1);
  });

  test('who can write vault.json, and has no key that counts, gains nothing', async () => {
    const vault = await newVault();
    const { vaultId } = vault;
    const [evil, chained] = [generateSigningKey(random), generateSigningKey(random)];
    const evilRecovery = generateRecoveryKey(random);
    const forged = (publicKey: string, endorser: SigningKey, forVault = vaultId) => ({
      publicKey,
      installationId,
      ...endorseController({ endorser, vaultId: forVault, publicKey }),
    });
    const attempts: VaultDocument[] = [
      // no endorsement at all, or itself, or each other
      {
        ...vault,
        controllerKeys: [...vault.controllerKeys, { publicKey: evil.publicKey, installationId }],
      },
      { ...vault, controllerKeys: [...vault.controllerKeys, forged(evil.publicKey, evil)] },
      {
        ...vault,
        controllerKeys: [forged(evil.publicKey, chained), forged(chained.publicKey, evil)],
      },
      // the true controller's name under another's signature
      {
        ...vault,
        controllerKeys: [
          ...vault.controllerKeys,
          { ...forged(evil.publicKey, evil), endorsedBy: controllerKey.publicKey },
        ],
      },
      // a true endorsement of another vault
      {
        ...vault,
        controllerKeys: [
          ...vault.controllerKeys,
          forged(evil.publicKey, controllerKey, '00'.repeat(16)),
        ],
      },
      // a recovery recipient slipped in, on an unsigned list and on one it signed itself
      {
        ...vault,
        recoveryRecipients: [evilRecovery.publicString],
        controllerKeys: [...vault.controllerKeys, forged(evil.publicKey, evilRecovery.signing)],
      },
      {
        ...vault,
        recipientLists: [
          ...vault.recipientLists,
          endorseRecipients({
            endorser: evilRecovery.signing,
            vaultId,
            recipients: [evilRecovery.publicString],
          }),
        ],
        controllerKeys: [...vault.controllerKeys, forged(evil.publicKey, evilRecovery.signing)],
      },
    ];
    for (const attempt of attempts)
      expect(trustedControllers({ vault: attempt, pinned: controllerKey.publicKey })).toEqual(
        new Set([controllerKey.publicKey]),
      );
  });
});

describe('other recipients', () => {
  const machineId = 'c3'.repeat(16);

  async function withMachine(vault: VaultDocument): Promise<Uint8Array> {
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

  const sealedNow = async () =>
    (await new Catalog({ store }).read(machineId))?.document.dataKey ?? [];

  test('a new recovery recipient opens what was there before; one that was taken off does not', async () => {
    const vault = await newVault();
    const dataKey = await withMachine(vault);
    const next = generateRecoveryKey(random);
    const changed = await setRecoveryRecipients(deps(), {
      vaultKey,
      controllerKey,
      recoveryRecipients: [next.publicString],
    });
    const { vaultId } = vault;
    expect(openDataKey({ sealed: await sealedNow(), key: next.box, vaultId, machineId })).toEqual(
      dataKey,
    );
    expect(openDataKey({ sealed: await sealedNow(), key: vaultKey, vaultId, machineId })).toEqual(
      dataKey,
    );
    const sealed = await sealedNow();
    expect(() => openDataKey({ sealed, key: recovery.box, vaultId, machineId })).toThrow(
      /sealed for/,
    );
    await openAuthority(deps(), { vault: changed.document, key: next.box });
    // The new recovery key endorses, by the list that the controller signed.
    const taker = generateSigningKey(random);
    const { document } = await addControllerKey(deps(), {
      installationId,
      publicKey: taker.publicKey,
      endorser: next.signing,
    });
    expect(trustedControllers({ vault: document, pinned: controllerKey.publicKey })).toContain(
      taker.publicKey,
    );
  });

  test('the same list again changes nothing', async () => {
    await newVault();
    const before = await requireVault(store);
    expect(
      await setRecoveryRecipients(deps(), {
        vaultKey,
        controllerKey,
        recoveryRecipients: [recovery.publicString],
      }),
    ).toEqual(before);
  });

  test('a new cluster makes its own vault key with the recovery key, also when it is stopped in between', async () => {
    const vault = await newVault();
    const dataKey = await withMachine(vault);
    const newVaultKey = generateBoxKey(random);
    const replace = () => replaceVaultKey(deps(), { opener: recovery.box, newVaultKey });
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
    const sealed = await sealedNow();
    expect(openDataKey({ sealed, key: newVaultKey, vaultId: vault.vaultId, machineId })).toEqual(
      dataKey,
    );
    expect(() =>
      openDataKey({ sealed, key: vaultKey, vaultId: vault.vaultId, machineId }),
    ).toThrow();
    await openAuthority(deps(), { vault: document, key: newVaultKey });
  });

  test('boxes of process servers stay when the rest is sealed anew', async () => {
    const vault = await newVault();
    await withMachine(vault);
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
    await sealCatalog(deps(), {
      vault: { ...vault, recoveryRecipients: [generateRecoveryKey(random).publicString] },
      key: vaultKey,
    });
    expect((await sealedNow()).map((box) => box.kind)).toEqual([
      'vault',
      'processserver',
      'recovery',
    ]);
  });
});

describe('the recovery check', () => {
  test('an answer of a recovery key verifies, until the recipients change', async () => {
    const vault = await newVault();
    expect(verifyRecoveryCheck(vault, undefined)).toMatchObject({
      verified: false,
      reason: 'NeverChecked',
    });
    const check = answerRecoveryChallenge({ vault, key: recovery, clock });
    expect(verifyRecoveryCheck(vault, check)).toEqual({
      verified: true,
      recipient: recovery.box.id,
      checkedAt: clock.now(),
    });
    const { document } = await setRecoveryRecipients(deps(), {
      vaultKey,
      controllerKey,
      recoveryRecipients: [recovery.publicString, generateRecoveryKey(random).publicString],
    });
    expect(verifyRecoveryCheck(document, check)).toMatchObject({
      verified: false,
      reason: 'ChallengeChanged',
    });
  });

  test('a key that is no recipient is told which ones are', async () => {
    const vault = await newVault();
    expect(() =>
      answerRecoveryChallenge({ vault, key: generateRecoveryKey(random), clock }),
    ).toThrow(
      expect.objectContaining({
        code: 'RecoveryKeyUnknown',
        message: expect.stringContaining(recovery.box.id),
      }),
    );
  });

  test('a known answer under another time, recipient or signature proves nothing', async () => {
    const other = generateRecoveryKey(random);
    const { vault } = await createVault(deps(), {
      ...options(),
      recoveryRecipients: [recovery.publicString, other.publicString],
    });
    const check = answerRecoveryChallenge({ vault: vault.document, key: recovery, clock });
    const forgeries = [
      { ...check, checkedAt: check.checkedAt + 1 },
      { ...check, recipient: other.box.id },
      { ...check, signature: '' },
      { ...check, recipient: '00'.repeat(16) },
    ];
    for (const forged of forgeries)
      expect(verifyRecoveryCheck(vault.document, forged)).toMatchObject({
        verified: false,
        reason: 'AnswerInvalid',
      });
  });
});

describe('a new vault key', () => {
  test('is not held up by one machine whose entry is damaged', async () => {
    const vault = await newVault();
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
    await replaceVaultKey(deps(), { opener: recovery.box, newVaultKey });
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

describe('recovery recipients that somebody without a controller’s key wrote', () => {
  test('are found out: nothing may be sealed to them', async () => {
    const vault = await newVault();
    expect(() => requireEndorsedRecipients(vault)).not.toThrow();
    const evil = generateRecoveryKey(random).publicString;
    const recoveryRecipients = [...vault.recoveryRecipients, evil];
    const { vaultId } = vault;
    const ownList = endorseRecipients({
      endorser: generateSigningKey(random),
      vaultId,
      recipients: recoveryRecipients,
    });
    for (const forged of [
      { ...vault, recoveryRecipients },
      { ...vault, recoveryRecipients, recipientLists: [...vault.recipientLists, ownList] },
      {
        ...vault,
        recoveryRecipients,
        recipientLists: vault.recipientLists.map((list) => ({
          ...list,
          recipients: recoveryRecipients,
        })),
      },
    ])
      expect(() => requireEndorsedRecipients(forged)).toThrow(
        expect.objectContaining({ code: 'RecipientsNotEndorsed' }),
      );
  });

  test('are those of the newest list after a controller changed them', async () => {
    await newVault();
    const other = generateRecoveryKey(random).publicString;
    const changed = await setRecoveryRecipients(deps(), {
      vaultKey,
      controllerKey,
      recoveryRecipients: [other],
    });
    expect(() => requireEndorsedRecipients(changed.document)).not.toThrow();
  });
});
