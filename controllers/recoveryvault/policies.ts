/** Decisions about a vault: what its state means, who is in control, whether this installation may take over. */

import { Reason } from '../../crds/index.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import {
  type ControllerDocument,
  FORMAT_VERSION,
  type RecoveryCheck,
  type VaultDocument,
} from '../../vault/documents.ts';
import { fromCode, type Objection } from '../decisions.ts';

// ---------------------------------------------------------------------------------------------------------------- reaching it

/** What an error from the store means for the condition Reachable; `undefined` when it is none of the store's. */
export function reachabilityOf(
  error: unknown,
  vault: { account: string; container: string },
): Objection {
  const where = `storage account ${vault.account}, container ${vault.container}`;
  switch (errorCode(error)) {
    case 'VaultUnreachable':
      return {
        reason: Reason.VaultUnreachable,
        message: `The ${where} does not answer: ${errorMessage(error)} Replication goes on into the process servers' caches. Look at network, proxy and firewall.`,
      };
    case 'StoreThrottled':
      return {
        reason: Reason.Retrying,
        message: `The ${where} asks to slow down: ${errorMessage(error)}`,
      };
    case 'VaultRefusedKey':
      return {
        reason: Reason.CredentialsRefused,
        message: `The ${where} refuses the credentials: ${errorMessage(error)} Correct the Secret that spec.credentials names.`,
      };
    case 'VaultContainerMissing':
      return {
        reason: Reason.ContainerMissing,
        message: `The ${where} does not exist: ${errorMessage(error)} Create the container; Farshore never does.`,
      };
    default:
      return { reason: fromCode(errorCode(error)), message: errorMessage(error) };
  }
}

/** vault.json before its schema is applied: a newer format may have any other shape. */
export function formatVersionOf(body: Uint8Array): number | undefined {
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(body));
    if (typeof json !== 'object' || json === null || !('formatVersion' in json)) return undefined;
    return typeof json.formatVersion === 'number' ? json.formatVersion : undefined;
  } catch {
    return undefined;
  }
}

export function formatTooNew(version: number | undefined): Objection | undefined {
  return version !== undefined && version > FORMAT_VERSION
    ? {
        reason: Reason.FormatTooNew,
        message: `The vault has format ${version}; this version of Farshore reads up to ${FORMAT_VERSION}. Upgrade the operator; nothing in the vault was touched.`,
      }
    : undefined;
}

// -------------------------------------------------------------------------------------------------------------------- control

export type ControlDecision =
  /** Nobody ever was in control, and this installation made the vault. */
  | { action: 'Claim' }
  | { action: 'TakeOver'; fromEpoch: number }
  | { action: 'Keep' }
  | { action: 'StandBy'; reason: string; message: string };

export interface ControlInput {
  installationId: string;
  document: VaultDocument;
  controller: ControllerDocument | undefined;
  takeControlFromEpoch: number | undefined;
  /** This installation holds a private key that opens the vault's secrets. */
  opensSecrets: boolean;
}

/**
 * Control changes hands only when the spec names the very epoch that is in force, so that a manifest applied again, or restored
 * from a backup, takes nothing.
 */
export function decideControl(input: ControlInput): ControlDecision {
  const { controller, installationId } = input;
  if (controller === undefined)
    return input.document.controllerKeys[0]?.installationId === installationId
      ? { action: 'Claim' }
      : {
          action: 'StandBy',
          reason: Reason.HeldByOther,
          message: 'The vault was made by another installation that has not taken control yet.',
        };
  if (controller.installationId === installationId) return { action: 'Keep' };
  const holder = `${controller.holder} (installation ${controller.installationId}), epoch ${controller.controllerEpoch}`;
  if (input.takeControlFromEpoch !== controller.controllerEpoch)
    return {
      action: 'StandBy',
      reason: Reason.HeldByOther,
      message: `The vault is controlled by ${holder}. This cluster only reads it. To take over, set spec.takeControlFromEpoch to ${controller.controllerEpoch}.`,
    };
  if (!input.opensSecrets)
    return {
      action: 'StandBy',
      reason: Reason.KeyMissing,
      message: `Taking over from ${holder} needs a key that opens the vault: name a Secret with the vault's or a recovery private key in spec.vaultKeySecretRef.`,
    };
  return { action: 'TakeOver', fromEpoch: controller.controllerEpoch };
}

// --------------------------------------------------------------------------------------------------------------- recovery key

/** `answerHolds`: the answer hashes to the challenge, and its recipient is one of the vault's. */
export function decideRecoveryCheck(input: {
  check: RecoveryCheck | undefined;
  answerHolds: boolean;
}): { status: 'True' | 'False'; reason: string; message: string } {
  if (input.check === undefined)
    return {
      status: 'False',
      reason: Reason.RecoveryKeyNotProven,
      message:
        'No recovery key was ever tried on this vault. Run "farshore recover --check" with it, where it is kept.',
    };
  if (!input.answerHolds)
    return {
      status: 'False',
      reason: Reason.RecoveryKeyNotProven,
      message:
        'control/recovery-check.json does not answer this vault’s challenge. Run "farshore recover --check" again.',
    };
  return {
    status: 'True',
    reason: Reason.RecoveryKeyProven,
    message: `Recovery key ${input.check.recipient} opened this vault on ${new Date(input.check.checkedAt).toISOString().slice(0, 10)}.`,
  };
}
