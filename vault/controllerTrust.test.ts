import { describe, expect } from 'vitest';
import { test } from '../test/fixtures/vaultFounder.ts';
import { endorseController, endorseRecipients, trustedControllers } from './controllerTrust.ts';
import type { VaultDocument } from './documents/vault.ts';
import { setRecoveryRecipients } from './recipients.ts';
import { generateRecoveryKey } from './recoveryKey.ts';
import { generateSigningKey, type SigningKey } from './signing.ts';
import {
  addControllerKey,
  isEndorsedController,
  requireEndorsedRecipients,
  requireVault,
} from './vault.ts';

describe('controllers that count', () => {
  test('a successor endorsed by the controller before it, and its successor, count', async ({
    founder,
  }) => {
    const { controllerKey, deps, installationId, random } = founder;
    const vault = await founder.make();
    const [second, third] = [generateSigningKey(random), generateSigningKey(random)];
    await addControllerKey(deps, {
      installationId,
      publicKey: second.publicKey,
      endorser: controllerKey,
    });
    const last = await addControllerKey(deps, {
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

  test('a recovery key endorses the controller of a new cluster', async ({ founder }) => {
    const { controllerKey, deps, installationId, random, recovery } = founder;
    await founder.make();
    const next = generateSigningKey(random);
    const { document } = await addControllerKey(deps, {
      installationId,
      publicKey: next.publicKey,
      endorser: recovery.signing,
    });
    expect(trustedControllers({ vault: document, pinned: controllerKey.publicKey })).toContain(
      next.publicKey,
    );
  });

  test('adding a key again adds nothing', async ({ founder }) => {
    const { controllerKey, deps, installationId, random } = founder;
    await founder.make();
    const next = generateSigningKey(random);
    const add = () =>
      addControllerKey(deps, {
        installationId,
        publicKey: next.publicKey,
        endorser: controllerKey,
      });
    const first = await add();
    expect(await add()).toEqual(first);
  });

  test('a key that nobody who counts endorsed is not added', async ({ founder }) => {
    const { deps, installationId, random, store } = founder;
    await founder.make();
    const stranger = generateSigningKey(random);
    await expect(
      addControllerKey(deps, {
        installationId,
        publicKey: stranger.publicKey,
        endorser: stranger,
      }),
    ).rejects.toMatchObject({ code: 'ControllerNotEndorsed' });
    expect((await requireVault(store)).document.controllerKeys).toHaveLength(1);
  });

  test('who can write vault.json, and has no key that counts, gains nothing', async ({
    founder,
  }) => {
    const { controllerKey, installationId, random } = founder;
    const vault = await founder.make();
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

describe('recovery recipients that somebody without a controller’s key wrote', () => {
  test('are found out: nothing may be sealed to them', async ({ founder }) => {
    const { random } = founder;
    const vault = await founder.make();
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

  test('are those of the newest list after a controller changed them', async ({ founder }) => {
    const { controllerKey, deps, random, vaultKey } = founder;
    await founder.make();
    const other = generateRecoveryKey(random).publicString;
    const changed = await setRecoveryRecipients(deps, {
      vaultKey,
      controllerKey,
      recoveryRecipients: [other],
    });
    expect(() => requireEndorsedRecipients(changed.document)).not.toThrow();
  });
});
