/** Whether a Failover may begin, decided from what was gathered. Pure. */
import { type Failover, Reason } from '../../crds/index.ts';
import type { Condition } from '../../platform/kubernetes.ts';
import { nextOf, releases } from '../../recovery/itinerary.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import {
  type Check,
  firstObjection,
  type Objection,
  standbyObjection,
  type VaultFacts,
  vaultObjection,
} from '../decisions.ts';
import type { PointsSummary } from '../openvaults/points.ts';

export interface FailoverInput {
  name: string;
  namespace: string;
  spec: Failover['spec'];
  machine: { exists: boolean; accepted: boolean; message: string | undefined };
  vault: VaultFacts;
  vaultRef: string;
  /** What the ledger holds under this name. */
  ledger: FailoverDocument | undefined;
  catalog: CatalogDocument | undefined;
  /** The failover that has this machine in the vault's catalog, or is about to; undefined once it came to its end. */
  otherActive: string | undefined;
  agentConnected: boolean;
  points: PointsSummary | undefined;
  /** A recovery point of spec.recoveryPoint.name exists. */
  namedPointExists: boolean;
  /** A barrier is in the vault, whether or not it is a point yet. */
  hasBarrier: boolean;
}

/** Whether the name can be this Failover's; asked before the ledger is adopted. */
export const nameChecks: readonly Check<FailoverInput>[] = [
  ({ machine, spec, namespace, ledger }) =>
    machine.exists || ledger !== undefined
      ? undefined
      : {
          reason: Reason.MachineNotFound,
          message: `ProtectedVM ${spec.machineRef.name} does not exist in namespace ${namespace}.`,
        },
  vaultObjection,
  // Another type is another wish: an Unplanned failover must never take a test's outcome for its own.
  ({ ledger, name, namespace, spec }) =>
    ledger === undefined ||
    (ledger.namespace === namespace &&
      ledger.request.machineName === spec.machineRef.name &&
      ledger.request.type === spec.type)
      ? undefined
      : {
          reason: Reason.NameTaken,
          message: `Failover name ${name} is taken in this vault by ${ledger.namespace}/${ledger.name}, a ${ledger.request.type} failover of machine ${ledger.request.machineName} (installation ${ledger.installationId}, ${new Date(ledger.acceptedAt).toISOString()}). Use another name.`,
        },
];

/** Whether a Failover that is new may begin. */
export const beginChecks: readonly Check<FailoverInput>[] = [
  ({ vault, vaultRef }) => standbyObjection(vault, vaultRef),
  ({ machine, spec }) =>
    machine.accepted
      ? undefined
      : {
          reason: Reason.DependencyNotReady,
          message: `ProtectedVM ${spec.machineRef.name} is not accepted: ${machine.message ?? 'it has not been looked at yet.'}`,
        },
  ({ catalog, spec }) =>
    catalog !== undefined
      ? undefined
      : {
          reason: Reason.DependencyNotReady,
          message: `ProtectedVM ${spec.machineRef.name} has no entry in the vault yet.`,
        },
  ({ otherActive, name, spec }) => {
    const holder = otherActive;
    return holder === undefined || holder === name
      ? undefined
      : {
          reason: Reason.MachineBusy,
          message: `Machine ${spec.machineRef.name} is in failover ${holder}. Finish that one (commit it, or clean a test up), then create a new Failover: this one will not begin.`,
        };
  },
  ({ catalog, spec }) =>
    catalog?.activeSide === 'Azure'
      ? {
          reason: Reason.ActiveInAzure,
          message: `Machine ${spec.machineRef.name} runs in Azure already.`,
        }
      : undefined,
  pointObjection,
  ({ spec, agentConnected }) =>
    spec.type === 'Planned' && !agentConnected
      ? {
          reason: Reason.AgentDisconnected,
          message: `A Planned failover needs the machine's agent for a last barrier, and it is not connected. If the site is lost, create an Unplanned Failover.`,
        }
      : undefined,
];

/** Why it can't begin; undefined when it may, or has. `before`: what its Accepted condition says. */
export function objectionTo(
  input: FailoverInput,
  before: Pick<Condition, 'status' | 'reason' | 'message'> | undefined,
): Objection | undefined {
  const unnamed = firstObjection(nameChecks, input);
  if (unnamed !== undefined || input.ledger !== undefined) return unnamed;
  // Once refused for good it stays refused: nobody waits for it any more.
  if (before?.status === 'False' && isFinal(before)) return before;
  return firstObjection(beginChecks, input);
}

/** Reasons for which a Failover never begins: waiting would let it happen hours later, when nobody expects it any more. */
const FINAL: ReadonlySet<string> = new Set([
  Reason.MachineBusy,
  Reason.ActiveInAzure,
  Reason.PointNotFound,
  Reason.NoPoint,
  Reason.AgentDisconnected,
]);

export function isFinal(objection: Pick<Objection, 'reason'>): boolean {
  return FINAL.has(objection.reason);
}

function pointObjection(input: FailoverInput): Objection | undefined {
  const { spec, points } = input;
  const { recoveryPoint, machineRef } = spec;
  const count = points?.count ?? 0;
  const create = 'Create a new Failover.';
  switch (recoveryPoint.type) {
    case 'Name':
      return input.namedPointExists
        ? undefined
        : {
            reason: Reason.PointNotFound,
            message: `Machine ${machineRef.name} has no recovery point ${recoveryPoint.name}; status.recoveryPoints of the ProtectedVM lists them. ${create}`,
          };
    case 'Time': {
      const oldest = points?.oldest;
      return oldest !== undefined && oldest.timeMs <= Date.parse(recoveryPoint.time ?? '')
        ? undefined
        : {
            reason: Reason.NoPoint,
            message: `Machine ${machineRef.name} has no recovery point at or before ${recoveryPoint.time}${oldest === undefined ? '' : `; the oldest is of ${new Date(oldest.timeMs).toISOString()}`}. ${create}`,
          };
    }
    case 'LatestProcessed':
      return count > 0 ? undefined : noPoint(machineRef.name, create);
    case 'Latest':
      // A Planned failover makes its own last barrier.
      return count > 0 || input.hasBarrier ? undefined : noPoint(machineRef.name, create);
  }
}

function noPoint(machine: string, create: string): Objection {
  return {
    reason: Reason.NoPoint,
    message: `Machine ${machine} has no recovery point yet: its initial replication is not complete. ${create}`,
  };
}

/** A desired state that fits the failover and is not in the ledger yet. */
export function decideDesire(
  spec: Pick<Failover['spec'], 'desiredState'>,
  ledger: FailoverDocument,
  options: { deleted: boolean },
): 'Committed' | 'CleanedUp' | undefined {
  const isTest = ledger.request.type === 'Test';
  const wanted = options.deleted && isTest ? 'CleanedUp' : spec.desiredState;
  if (wanted === undefined || ledger.desired !== undefined) return undefined;
  const fits = wanted === 'CleanedUp' ? isTest : !isTest;
  return fits ? wanted : undefined;
}

/** Why a Failover that was deleted stays for now. */
export function deletionObjection(
  ledger: FailoverDocument | undefined,
  inControl: boolean,
): Objection | undefined {
  if (ledger === undefined) return undefined;
  const { name, outcome, request } = ledger;
  if (request.type === 'Test') {
    if (releases(ledger)) return undefined;
    return {
      reason: Reason.Deleting,
      message: inControl
        ? `What test failover ${name} made in Azure is being removed.`
        : `What test failover ${name} made in Azure can't be removed from here: this installation does not control the vault. Delete it where control is, or set the annotation farshore.dev/force-delete.`,
    };
  }
  // Half-way through, a machine must not be left to nobody.
  return outcome === 'Running' && inControl
    ? {
        reason: Reason.DeletionBlocked,
        message: `Failover ${name} is under way and ends first; what it made stays. Set the annotation farshore.dev/force-delete to leave it where it is.`,
      }
    : undefined;
}

/** Nothing to do until somebody wants something: the ledger's own rule. */
export function isAtRest(ledger: FailoverDocument): boolean {
  return nextOf(ledger).kind === 'rest';
}
