import { describe, expect, test } from 'vitest';
import type { OpenVault } from '../openvaults/openVaults.ts';
import { showVault, type VaultStatusInput } from './status.ts';

const vault = {
  document: {
    vaultId: 'v',
    formatVersion: 1,
    controllerKeys: [{ publicKey: 'theirs', installationId: 'b' }],
  },
  installation: { id: 'a', holder: 'us', signingKey: { publicKey: 'ours' } },
  control: { state: 'InControl', controllerEpoch: 4 },
} as unknown as OpenVault;
const open: VaultStatusInput = {
  trouble: undefined,
  vault,
  standby: undefined,
  recoveryKey: { verified: true, recipient: 'r', checkedAt: 0 },
  recipientsDiffer: false,
  deletion: undefined,
  machines: 2,
};

function conditions(change: Partial<VaultStatusInput>): Record<string, string> {
  return Object.fromEntries(
    showVault({ ...open, ...change }).conditions.map((one) => [
      one.type,
      `${one.status}/${one.reason}`,
    ]),
  );
}

describe('a vault', () => {
  test.each<[object, Partial<VaultStatusInput>]>([
    [
      { Ready: 'True/Succeeded', Reachable: 'True/VaultReachable', InControl: 'True/HoldsControl' },
      {},
    ],
    // Works without a proven recovery key, and says that it is not proven.
    [
      { Ready: 'True/Succeeded', RecoveryKeyVerified: 'False/RecoveryKeyNotProven' },
      { recoveryKey: { verified: false, reason: 'NeverChecked', message: 'm' } },
    ],
    [
      {
        Ready: 'False/VaultUnreachable',
        Stalled: 'False/Retrying',
        RecoveryKeyVerified: 'Unknown/Pending',
      },
      { trouble: { reason: 'VaultUnreachable', message: 'm' }, recoveryKey: undefined },
    ],
    [
      { Ready: 'False/FormatTooNew', Stalled: 'True/FormatTooNew' },
      { trouble: { reason: 'FormatTooNew', message: 'm' } },
    ],
    [
      { Ready: 'False/HeldByOther', InControl: 'False/HeldByOther' },
      { standby: { reason: 'HeldByOther', message: 'm' } },
    ],
    [{ Ready: 'False/RecipientsDiffer' }, { recipientsDiffer: true }],
    [
      { Ready: 'False/InUse', Reconciling: 'True/Deleting' },
      { deletion: { reason: 'InUse', message: 'm' } },
    ],
    [{ Reachable: 'Unknown/Pending', InControl: 'Unknown/Pending' }, { vault: undefined }],
  ])('%o', (expected, change) => {
    expect(conditions(change)).toMatchObject(expected);
  });

  test('shows who controls it, whoever that is', () => {
    expect(showVault(open).status).toMatchObject({
      controllerEpoch: 4,
      controllerHolder: 'us',
      controllerPublicKey: 'ours',
    });
    const controller = { controllerEpoch: 5, installationId: 'b', holder: 'them', since: 0 };
    const standby = { ...vault, control: { state: 'Standby' as const, controller } };
    expect(showVault({ ...open, vault: standby }).status).toMatchObject({
      controllerEpoch: 5,
      controllerHolder: 'them',
      controllerPublicKey: 'theirs',
    });
  });
});
