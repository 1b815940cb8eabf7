import { describe, expect, test } from 'vitest';
import { Reason } from '../../crds/index.ts';
import { FarshoreError } from '../../platform/errors.ts';
import type { VaultDocument } from '../../vault/documents/vault.ts';
import { type ControlInput, decideControl, reachabilityOf } from './policies.ts';

const ours = 'a'.repeat(32);
const theirs = 'b'.repeat(32);
const document = { controllerKeys: [{ publicKey: 'k', installationId: ours }] } as VaultDocument;
const held = { controllerEpoch: 3, installationId: theirs, holder: 'them', since: 0 };
const base: ControlInput = {
  installationId: ours,
  document,
  controller: held,
  takeControlFromEpoch: undefined,
  opensSecrets: true,
  endorsable: true,
};

describe('control', () => {
  test.each<[object, Partial<ControlInput>]>([
    [{ action: 'StandBy', reason: Reason.HeldByOther }, {}],
    [{ action: 'Keep' }, { controller: { ...held, installationId: ours } }],
    [
      { action: 'Keep' },
      { controller: { ...held, installationId: ours }, takeControlFromEpoch: 2 },
    ],
    [{ action: 'Claim' }, { controller: undefined }],
    [
      { action: 'StandBy', reason: Reason.HeldByOther },
      { controller: undefined, installationId: theirs },
    ],
    [{ action: 'TakeOver', fromEpoch: 3 }, { takeControlFromEpoch: 3 }],
    // A manifest applied again, or restored from a backup, takes nothing.
    [{ action: 'StandBy', reason: Reason.HeldByOther }, { takeControlFromEpoch: 2 }],
    [{ action: 'StandBy', reason: Reason.HeldByOther }, { takeControlFromEpoch: 4 }],
    [
      { action: 'StandBy', reason: Reason.KeyMissing },
      { takeControlFromEpoch: 3, opensSecrets: false },
    ],
    [
      { action: 'StandBy', reason: Reason.KeyMissing },
      { takeControlFromEpoch: 3, endorsable: false },
    ],
  ])('%o', (expected, change) => {
    expect(decideControl({ ...base, ...change })).toMatchObject(expected);
  });

  test('who stands by is told who holds it, and how to take over', () => {
    const decision = decideControl(base);
    expect(decision).toMatchObject({ message: expect.stringContaining('them') });
    expect(decision).toMatchObject({
      message: expect.stringContaining('takeControlFromEpoch to 3'),
    });
  });
});

describe('reachability', () => {
  test.each([
    ['VaultUnreachable', Reason.VaultUnreachable],
    ['StoreThrottled', Reason.Retrying],
    ['VaultRefusedKey', Reason.CredentialsRefused],
    ['VaultContainerMissing', Reason.ContainerMissing],
    ['VaultFormatTooNew', Reason.FormatTooNew],
    ['VaultMissing', Reason.VaultDamaged],
    ['VaultDocumentInvalid', Reason.VaultDamaged],
    ['SealedForOthers', Reason.KeyRefused],
    ['SecretNotFound', Reason.SecretNotFound],
    ['no code', Reason.UnexpectedError],
  ])('%s shows as %s', (code, reason) => {
    const shown = reachabilityOf(new FarshoreError(code, 'what happened.'), {
      account: 'account',
      container: 'container',
    });
    expect(shown.reason).toBe(reason);
    expect(shown.message).toContain('what happened.');
  });
});
