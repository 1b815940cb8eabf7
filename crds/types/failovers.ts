/** Generated from crds/failovers.yaml by hack/generate-crd-types.ts; do not edit. */
import type { Condition, ObjectMeta } from '../object.ts';

/**
 * What is to happen. Can't change once created, but for desiredState.
 */
export interface FailoverSpec {
  /**
   * Test brings a copy up in the test network and disturbs nothing. Planned freezes the source at a last barrier and loses nothing. Unplanned takes what the vault holds and needs nothing from the source.
   */
  type: 'Test' | 'Planned' | 'Unplanned';
  machineRef: FailoverSpecMachineRef;
  recoveryPoint: FailoverSpecRecoveryPoint;
  /**
   * Whether a Planned failover powers the source off after its last barrier. True when absent; otherwise the source is left frozen.
   */
  powerOffSource?: boolean;
  /**
   * Full reads the recovered disks back and compares them with what was computed from the source's reads, before the machine starts. None starts it unread.
   */
  verify: 'Full' | 'None';
  healthCheck?: FailoverSpecHealthCheck;
  /**
   * What is to become of a failover that has happened. Committed keeps the machine in Azure for good; CleanedUp removes all that a Test made. Nothing happens while it is absent. It only goes forward.
   */
  desiredState?: 'Committed' | 'CleanedUp';
}
/**
 * The machine.
 */
export interface FailoverSpecMachineRef {
  /**
   * Name of a ProtectedVM in the same namespace.
   */
  name: string;
}
/**
 * Which moment to go back to.
 */
export interface FailoverSpecRecoveryPoint {
  /**
   * Latest applies all that the vault holds first, and loses least. LatestProcessed takes the newest point that is ready, and is quickest. Time takes the newest point at or before a time. Name takes that very point.
   */
  type: 'Latest' | 'LatestProcessed' | 'Time' | 'Name';
  /**
   * For type Time.
   */
  time?: string;
  /**
   * For type Name, from status.recoveryPoints of the ProtectedVM.
   */
  name?: string;
}
/**
 * When the machine counts as up. Without it, when Azure says that it runs.
 */
export interface FailoverSpecHealthCheck {
  serialConsole: FailoverSpecHealthCheckSerialConsole;
}
/**
 * The machine says something on its serial console.
 */
export interface FailoverSpecHealthCheckSerialConsole {
  /**
   * Text that one of its lines must contain, as it stands, such as `login:`.
   */
  contains: string;
  /**
   * How long to wait for it. One number and a unit: s, m or h.
   */
  timeout: string;
}

/**
 * What happened, a copy of what the vault's ledger says. Written by the operator alone.
 */
export interface FailoverStatus {
  /**
   * The generation of the spec that this status was computed from.
   */
  observedGeneration?: number;
  /**
   * Accepted, Ready, Reconciling, Stalled; FailedOver (the machine is up in Azure), Verified (its disks are what the recovery point promised), Committed, CleanedUp.
   */
  conditions?: Condition[];
  /**
   * One word for people, computed from the conditions. Programs read the conditions.
   */
  phase?: string;
  /**
   * The machine's identity in the vault.
   */
  machineId?: string;
  /**
   * When it was accepted. The RTO counts from here.
   */
  acceptedAt?: string;
  /**
   * When the machine was up (its health check had passed), or the failover had failed for good.
   */
  finishedAt?: string;
  /**
   * The step that runs, or at which it stopped. Absent when all are done.
   */
  currentStep?: string;
  /**
   * The steps, in order.
   */
  steps?: FailoverStatusStepsItem[];
  recoveryPoint?: FailoverStatusRecoveryPoint;
  /**
   * From the recovery point's moment to acceptance. 0 for a Planned failover.
   */
  rpoSeconds?: number;
  /**
   * From acceptance to the health check's success.
   */
  rtoSeconds?: number;
  /**
   * Whether the disks read back have the roots that were computed from the source's reads. Absent when not read.
   */
  rootsMatch?: boolean;
  /**
   * Azure resource id of the virtual machine.
   */
  vmId?: string;
  /**
   * Azure resource ids of what was made and is still there.
   *
   * Items: One Azure resource id.
   */
  resources?: string[];
  evidence?: FailoverStatusEvidence;
}
/**
 * One step.
 */
export interface FailoverStatusStepsItem {
  /**
   * Its name.
   */
  name: string;
  /**
   * How far it has come.
   */
  state: 'Pending' | 'Running' | 'Done' | 'Skipped' | 'Failed';
  /**
   * When it began.
   */
  startedAt?: string;
  /**
   * When it ended.
   */
  finishedAt?: string;
  /**
   * What it found, or what went wrong, what was undone and what to do.
   */
  message?: string;
  progress?: FailoverStatusStepsItemProgress;
}
/**
 * How far a step that moves bytes has come.
 */
export interface FailoverStatusStepsItemProgress {
  /**
   * Bytes to be moved or read.
   */
  bytesTotal?: number;
  /**
   * Bytes moved or read.
   */
  bytesDone?: number;
  /**
   * bytesDone of bytesTotal.
   */
  percent?: number;
  /**
   * Bytes in a second, of late.
   */
  bytesPerSecond?: number;
  /**
   * Seconds until it is done at that rate.
   */
  etaSeconds?: number;
}
/**
 * The recovery point that was chosen.
 */
export interface FailoverStatusRecoveryPoint {
  /**
   * Its name.
   */
  name: string;
  /**
   * Its position in the journal.
   */
  lsn: string;
  /**
   * The moment at which the disks were as it holds them.
   */
  time: string;
  /**
   * Crash, or App when hooks had quiesced the applications.
   */
  consistency?: 'Crash' | 'App';
}
/**
 * What showed that the machine is up.
 */
export interface FailoverStatusEvidence {
  /**
   * The line of its serial console that the health check found (the first 1024 characters).
   */
  serialConsole?: string;
}

/** Brings a machine up in Azure, once. Its name is claimed in the vault: deleted and applied again, or applied to another cluster, it shows what happened and does nothing. Deleting a Test failover cleans it up; deleting another leaves everything as it is. */
export interface Failover {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec: FailoverSpec;
  status?: FailoverStatus;
}
