import { describe, expect } from 'vitest';
import { test } from '../test/fixtures/vaultFounder.ts';
import { setRecoveryRecipients } from './recipients.ts';
import { answerRecoveryChallenge, verifyRecoveryCheck } from './recoveryCheck.ts';
import { generateRecoveryKey } from './recoveryKey.ts';
import { createVault } from './vault.ts';

describe('the recovery check', () => {
  test('an answer of a recovery key verifies, until the recipients change', async ({ founder }) => {
    const { clock, controllerKey, deps, random, recovery, vaultKey } = founder;
    const vault = await founder.make();
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
    const { document } = await setRecoveryRecipients(deps, {
      vaultKey,
      controllerKey,
      recoveryRecipients: [recovery.publicString, generateRecoveryKey(random).publicString],
    });
    expect(verifyRecoveryCheck(document, check)).toMatchObject({
      verified: false,
      reason: 'ChallengeChanged',
    });
  });

  test('a key that is no recipient is told which ones are', async ({ founder }) => {
    const { clock, random, recovery } = founder;
    const vault = await founder.make();
    expect(() =>
      answerRecoveryChallenge({ vault, key: generateRecoveryKey(random), clock }),
    ).toThrow(
      expect.objectContaining({
        code: 'RecoveryKeyUnknown',
        message: expect.stringContaining(recovery.box.id),
      }),
    );
  });

  test('a known answer under another time, recipient or signature proves nothing', async ({
    founder,
  }) => {
    const { clock, deps, random, recovery, options } = founder;
    const other = generateRecoveryKey(random);
    const { vault } = await createVault(deps, {
      ...options,
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
