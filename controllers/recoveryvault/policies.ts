/** Decisions about a vault: what its state means, who is in control, whether this installation may take over. */

import { Reason } from '../../crds/index.ts';
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { ControllerDocument } from '../../vault/documents/controller.ts';
import type { VaultDocument } from '../../vault/documents/vault.ts';
import { fromCode, type Objection } from '../decisions.ts';

// ---------------------------------------------------------------------------------------------------------------- reaching it

/** What an error while opening or reading the vault means for the condition Reachable. */
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
        message: `The ${where} does not exist: ${errorMessage(error)} Create it, or correct spec.containerName: it is made only for a vault that is new.`,
      };
    case 'VaultFormatTooNew':
      return { reason: Reason.FormatTooNew, message: errorMessage(error) };
    case 'VaultMissing':
    case 'VaultDamaged':
    case 'VaultDocumentInvalid':
    case 'AuthorityInvalid':
    case 'SealedKeyInvalid':
    case 'RecipientsNotEndorsed':
      return { reason: Reason.VaultDamaged, message: errorMessage(error) };
    case 'SealedForOthers':
    case 'ControllerNotEndorsed':
      return { reason: Reason.KeyRefused, message: errorMessage(error) };
    default:
      return { reason: fromCode(errorCode(error)), message: errorMessage(error) };
  }
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
  /** Its signing key is endorsed in the vault, or it holds a recovery key to endorse it with. */
  endorsable: boolean;
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
  if (!input.opensSecrets || !input.endorsable)
    return {
      action: 'StandBy',
      reason: Reason.KeyMissing,
      message: `Taking over from ${holder} needs a recovery private key (the vault's own key is enough only where this installation's signing key is endorsed already): name its Secret in spec.vaultKeySecretRef.`,
    };
  return { action: 'TakeOver', fromEpoch: controller.controllerEpoch };
}
