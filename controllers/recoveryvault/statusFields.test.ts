import { expect, test } from 'vitest';
import type { OpenVault } from '../openvaults/openVaults.ts';
import { showVault, type VaultStatusInput } from './status.ts';

const checkedAt = Date.UTC(2026, 0, 1);
const input: VaultStatusInput = {
  trouble: undefined,
  vault: {
    document: { vaultId: 'e'.repeat(32), formatVersion: 3, controllerKeys: [] },
    installation: { id: 'a', holder: 'our cluster', signingKey: { publicKey: 'ours' } },
    control: { state: 'InControl', controllerEpoch: 4 },
  } as unknown as OpenVault,
  standby: undefined,
  recoveryKey: { verified: true, recipient: 'r', checkedAt },
  recipientsDiffer: false,
  deletion: undefined,
  machines: 2,
};

test('everything that is known of an open vault is shown', () => {
  expect(showVault(input).status).toEqual({
    machines: 2,
    vaultId: 'e'.repeat(32),
    formatVersion: 3,
    controllerEpoch: 4,
    controllerHolder: 'our cluster',
    controllerPublicKey: 'ours',
    recoveryKeyVerifiedAt: new Date(checkedAt).toISOString(),
  });
});

test('nothing is shown of a vault that was never open, but who uses it', () => {
  const { status } = showVault({ ...input, vault: undefined, recoveryKey: undefined });
  expect(status).toEqual({ machines: 2 });
});

test('a recovery key that does not open the vault any more has no time', () => {
  const recoveryKey = { verified: false as const, reason: 'NeverChecked' as const, message: 'm' };
  expect(showVault({ ...input, recoveryKey }).status).not.toHaveProperty('recoveryKeyVerifiedAt');
});

const unreachable = {
  trouble: { reason: 'VaultUnreachable', message: 'm' },
  recoveryKey: undefined,
};
const standby = { reason: 'HeldByOther', message: 'm' };
const unproven = { verified: false as const, reason: 'NeverChecked' as const, message: 'm' };

test.each<[string, string, Partial<VaultStatusInput>]>([
  ['Reachable', 'True/VaultReachable', {}],
  ['Reachable', 'False/VaultUnreachable', unreachable],
  ['Reachable', 'Unknown/Pending', { vault: undefined }],
  ['InControl', 'True/HoldsControl', {}],
  ['InControl', 'False/HeldByOther', { standby }],
  ['InControl', 'Unknown/Pending', { vault: undefined }],
  ['RecoveryKeyVerified', 'True/RecoveryKeyProven', {}],
  ['RecoveryKeyVerified', 'False/RecoveryKeyNotProven', { recoveryKey: unproven }],
  ['RecoveryKeyVerified', 'Unknown/Pending', unreachable],
  ['Ready', 'True/Succeeded', {}],
  ['Ready', 'False/VaultUnreachable', unreachable],
  ['Ready', 'False/RecipientsDiffer', { recipientsDiffer: true }],
  ['Reconciling', 'False/Succeeded', {}],
  ['Reconciling', 'True/VaultUnreachable', unreachable],
  ['Stalled', 'False/Succeeded', {}],
  ['Stalled', 'False/Retrying', unreachable],
  [
    'Stalled',
    'True/CredentialsRefused',
    { trouble: { reason: 'CredentialsRefused', message: 'm' } },
  ],
])('%s is %s', (type, expected, change) => {
  const found = showVault({ ...input, ...change }).conditions.find((one) => one.type === type);
  expect(`${found?.status}/${found?.reason}`).toBe(expected);
});
