/** Everything that a RecoveryVault shows. Pure. */
import { ConditionType, Reason, type RecoveryVaultStatus } from '../../crds/index.ts';
import type { RecoveryVerdict } from '../../vault/recoveryCheck.ts';
import { type Decided, fails, holds, type Objection, unknown } from '../decisions.ts';
import type { OpenVault } from '../openvaults/openVaults.ts';
import { atRest, beingDeleted } from '../summary.ts';

export interface VaultStatusInput {
  /** Why the vault can't be reached or opened; undefined when it was, just now. */
  trouble: Objection | undefined;
  /** As it was last open. */
  vault: OpenVault | undefined;
  standby: Objection | undefined;
  recoveryKey: RecoveryVerdict | undefined;
  /** The vault is sealed for these; the spec must name the same. */
  recipientsDiffer: boolean;
  deletion: Objection | undefined;
  machines: number;
}

export interface VaultShown {
  status: Omit<RecoveryVaultStatus, 'conditions' | 'observedGeneration'>;
  conditions: Decided[];
}

export function showVault(input: VaultStatusInput): VaultShown {
  const { vault } = input;
  const parts = [reachable(input), inControl(input), recoveryKeyVerified(input)];
  const controller = vault?.control.state === 'Standby' ? vault.control.controller : undefined;
  const own = vault?.control.state === 'InControl' ? vault.control : undefined;
  const controllerEpoch = own?.controllerEpoch ?? controller?.controllerEpoch;
  const controllerHolder = own === undefined ? controller?.holder : vault?.installation.holder;
  const controllerKey = controllerKeyOf(vault);
  return {
    conditions: [...parts, ...summary(input, parts)],
    status: {
      machines: input.machines,
      ...(vault === undefined
        ? {}
        : { vaultId: vault.document.vaultId, formatVersion: vault.document.formatVersion }),
      ...(controllerEpoch === undefined ? {} : { controllerEpoch }),
      ...(controllerHolder === undefined ? {} : { controllerHolder }),
      ...(controllerKey === undefined ? {} : { controllerPublicKey: controllerKey }),
      ...(input.recoveryKey?.verified
        ? { recoveryKeyVerifiedAt: new Date(input.recoveryKey.checkedAt).toISOString() }
        : {}),
    },
  };
}

function controllerKeyOf(vault: OpenVault | undefined): string | undefined {
  if (vault === undefined) return undefined;
  if (vault.control.state === 'InControl') return vault.installation.signingKey.publicKey;
  const id = vault.control.controller?.installationId;
  return vault.document.controllerKeys.findLast((key) => key.installationId === id)?.publicKey;
}

function reachable(input: VaultStatusInput): Decided {
  if (input.trouble !== undefined) return fails(ConditionType.Reachable, input.trouble);
  if (input.vault === undefined)
    return unknown(ConditionType.Reachable, {
      reason: Reason.Pending,
      message: 'The vault has not been looked at yet.',
    });
  return holds(
    ConditionType.Reachable,
    Reason.VaultReachable,
    'The storage account answers and accepts the credentials.',
  );
}

function inControl(input: VaultStatusInput): Decided {
  const type = ConditionType.InControl;
  if (input.standby !== undefined) return fails(type, input.standby);
  if (input.vault?.control.state === 'InControl')
    return holds(
      type,
      Reason.HoldsControl,
      `This installation (${input.vault.installation.id}) controls the vault, epoch ${input.vault.control.controllerEpoch}.`,
    );
  return unknown(type, {
    reason: Reason.Pending,
    message: 'The vault could not be read yet; see Reachable.',
  });
}

function recoveryKeyVerified(input: VaultStatusInput): Decided {
  const type = ConditionType.RecoveryKeyVerified;
  const { recoveryKey } = input;
  if (recoveryKey === undefined)
    return unknown(type, {
      reason: Reason.Pending,
      message: 'The vault could not be read yet; see Reachable.',
    });
  return recoveryKey.verified
    ? holds(
        type,
        Reason.RecoveryKeyProven,
        `Recovery key ${recoveryKey.recipient} opened the vault.`,
      )
    : fails(type, { reason: Reason.RecoveryKeyNotProven, message: recoveryKey.message });
}

/** A recovery key that was never tried does not make the vault unready: it works, and says that it is not proven. */
function summary(input: VaultStatusInput, parts: readonly Decided[]): Decided[] {
  const { Ready, Reconciling, Stalled } = ConditionType;
  if (input.deletion !== undefined) return beingDeleted(input.deletion);
  const broken = parts.slice(0, 2).find((part) => part.status !== 'True');
  if (broken !== undefined)
    return [
      fails(Ready, broken),
      holds(Reconciling, broken.reason, broken.message),
      NEEDS_SOMEBODY.has(broken.reason)
        ? holds(Stalled, broken.reason, broken.message)
        : fails(Stalled, { reason: Reason.Retrying, message: 'It is tried again.' }),
    ];
  const ready = input.recipientsDiffer
    ? fails(Ready, {
        reason: Reason.RecipientsDiffer,
        message:
          'The vault is sealed for other recovery recipients than spec.recoveryRecipients names. It works; the keys that open it are those in vault.json. Correct the spec by creating the RecoveryVault anew.',
      })
    : holds(Ready, Reason.Succeeded, 'The vault is open and this installation controls it.');
  return [ready, ...atRest(Reason.Succeeded)];
}

const NEEDS_SOMEBODY: ReadonlySet<string> = new Set([
  Reason.CredentialsRefused,
  Reason.ContainerMissing,
  Reason.FormatTooNew,
  Reason.VaultDamaged,
  Reason.KeyRefused,
  Reason.KeyMissing,
  Reason.SecretNotFound,
  Reason.SecretInvalid,
]);
