/**
 * How decisions are written down: chains of checks, the first that objects gives reason and message of a condition.
 *
 * Messages hold nothing that changes by itself (ages, percentages): those are fields of the status, so that a condition changes only
 * when something happened.
 */
import { Reason } from '../crds/index.ts';
import type { Condition } from '../platform/kubernetes.ts';
import type { NameClaim } from '../vault/documents/nameClaim.ts';

export interface Objection {
  /** One of crds/conditions.ts, or the stable code of an error. */
  reason: string;
  message: string;
}

export type Check<Input> = (input: Input) => Objection | undefined;

export function firstObjection<Input>(
  checks: readonly Check<Input>[],
  input: Input,
): Objection | undefined {
  for (const check of checks) {
    const objection = check(input);
    if (objection !== undefined) return objection;
  }
  return undefined;
}

/** A condition as it is decided; the status writer adds times and generation. */
export type Decided = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>;

export function holds(type: string, reason: string, message: string): Decided {
  return { type, status: 'True', reason, message };
}

export function fails(type: string, objection: Objection): Decided {
  return { type, status: 'False', reason: objection.reason, message: objection.message };
}

export function unknown(type: string, objection: Objection): Decided {
  return { type, status: 'Unknown', reason: objection.reason, message: objection.message };
}

/** Error codes are CamelCase already; one that is not would make the API server refuse the whole status. */
export function fromCode(code: string): string {
  return /^[A-Za-z][A-Za-z0-9]{0,127}$/.test(code) ? code : Reason.UnexpectedError;
}

// -------------------------------------------------------------------------------------------------- what every kind asks of its vault

export type VaultFacts =
  | { state: 'Missing' }
  | { state: 'NotAllowed' }
  /** Not opened (yet): its own conditions say why. */
  | { state: 'NotOpen'; message: string }
  | { state: 'Standby'; holder: string }
  | { state: 'InControl' };

/** Whether the vault that a resource names is there and may be used from its namespace; says nothing of who controls it. */
export function vaultObjection(input: {
  vault: VaultFacts;
  vaultRef: string;
  namespace: string;
}): Objection | undefined {
  const { vault, vaultRef, namespace } = input;
  switch (vault.state) {
    case 'Missing':
      return {
        reason: Reason.VaultNotFound,
        message: `RecoveryVault ${vaultRef} does not exist. Create it, or correct spec.vaultRef.`,
      };
    case 'NotAllowed':
      return {
        reason: Reason.VaultNotAllowed,
        message: `RecoveryVault ${vaultRef} does not allow namespace ${namespace}. Add it to the vault's spec.allowedNamespaces.`,
      };
    case 'NotOpen':
      return {
        reason: Reason.VaultNotReady,
        message: `RecoveryVault ${vaultRef} can't be used yet: ${vault.message}`,
      };
    default:
      return undefined;
  }
}

export function standbyObjection(vault: VaultFacts, vaultRef: string): Objection | undefined {
  return vault.state === 'Standby'
    ? {
        reason: Reason.NotInControl,
        message: `RecoveryVault ${vaultRef} is controlled by ${vault.holder}; this cluster only reads it. Set takeControlFromEpoch on the vault to take over.`,
      }
    : undefined;
}

const CLAIMED: Record<NameClaim['kind'], string> = {
  machine: 'Machine',
  processserver: 'Process server',
  failover: 'Failover',
};

/**
 * Says who holds the name, so that nobody has to search three clusters for it. `standby`: this installation does not control the
 * vault, and may well mean the same machine.
 */
export function nameTaken(claim: NameClaim, options: { standby: boolean }): Objection {
  const whatToDo = options.standby
    ? 'If it is the same one, take control of the vault with takeControlFromEpoch; else use another name.'
    : 'Use another name.';
  return {
    reason: Reason.NameTaken,
    message: `${CLAIMED[claim.kind]} name ${claim.name} is taken in this vault by ${claim.namespace}/${claim.name} of installation ${claim.installationId}, since ${new Date(claim.claimedAt).toISOString()}. ${whatToDo}`,
  };
}
