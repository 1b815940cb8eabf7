/** Generated from crds/protectedvms.yaml by hack/generate-crd-types.ts; do not edit. */
import type { Condition, ObjectMeta } from '../object.ts';

/**
 * Which machine is protected, by whom and how often, and what it becomes in Azure.
 */
export interface ProtectedVMSpec {
  source: ProtectedVMSpecSource;
  policyRef: ProtectedVMSpecPolicyRef;
  vaultRef: ProtectedVMSpecVaultRef;
  processServerRef: ProtectedVMSpecProcessServerRef;
  /**
   * The whole disks to protect; the first is the one that the machine boots from. The agent lists what the machine has in status.offeredDisks. Disks can't be added, removed, renamed or put in another order; a device's path may change.
   */
  disks: ProtectedVMSpecDisksItem[];
  target: ProtectedVMSpecTarget;
  /**
   * Stops making recovery points. The agent goes on tracking writes, so that nothing has to be copied anew.
   */
  paused: boolean;
  resyncRequest?: ProtectedVMSpecResyncRequest;
}
/**
 * How the machine's changes are found and read.
 */
export interface ProtectedVMSpecSource {
  /**
   * By the agent in the machine, enrolled under this object's name with the process server's passphrase.
   */
  agent: {};
}
/**
 * The policy by which recovery points are made and kept.
 */
export interface ProtectedVMSpecPolicyRef {
  /**
   * Name of a ReplicationPolicy in the same namespace.
   */
  name: string;
}
/**
 * The vault that holds the copy. Can't change.
 */
export interface ProtectedVMSpecVaultRef {
  /**
   * Name of a RecoveryVault.
   */
  name: string;
  /**
   * Namespace of the RecoveryVault, when it is another one; that vault must list this one's in allowedNamespaces.
   */
  namespace?: string;
}
/**
 * The process server that takes the machine's changes. Another one takes over where this one left off.
 */
export interface ProtectedVMSpecProcessServerRef {
  /**
   * Name of a ProcessServer in the same namespace.
   */
  name: string;
}
/**
 * One disk.
 */
export interface ProtectedVMSpecDisksItem {
  /**
   * Name of the disk in the vault and in Azure.
   */
  name: string;
  /**
   * The block device in the machine, best by a path that survives a reboot, such as /dev/disk/by-id/….
   */
  device: string;
}
/**
 * What the machine becomes in Azure. Copied when a Failover is accepted.
 */
export interface ProtectedVMSpecTarget {
  /**
   * Name of the virtual machine.
   */
  name: string;
  /**
   * Size of the virtual machine, such as Standard_D2s_v5.
   */
  size: string;
  /**
   * Resource group; that of the vault when absent. It must exist.
   */
  resourceGroup?: string;
  /**
   * V1 for a machine that boots by BIOS, V2 for one that boots by UEFI. Azure's firmware knows none of the boot entries that the source's firmware remembers: a V2 machine needs a boot loader at \EFI\BOOT\BOOTX64.EFI.
   */
  generation: 'V1' | 'V2';
  /**
   * Type of the managed disks. Premium types need a size that takes them.
   */
  diskType: 'Standard_LRS' | 'StandardSSD_LRS' | 'Premium_LRS' | 'StandardSSD_ZRS' | 'Premium_ZRS';
  /**
   * Availability zone; none when absent.
   */
  zone?: '1' | '2' | '3';
  /**
   * The network interfaces, the first one primary. One on the vault's production network when absent.
   */
  nics: ProtectedVMSpecTargetNicsItem[];
  /**
   * Tags for every Azure resource that a failover makes, besides Farshore's own.
   */
  tags?: {
    /**
     * The tag's value.
     */
    [k: string]: string;
  };
}
/**
 * One network interface.
 */
export interface ProtectedVMSpecTargetNicsItem {
  /**
   * Resource group of the network; that of the vault when absent.
   */
  resourceGroup?: string;
  /**
   * Virtual network; the vault's production network when absent. A Test failover uses the vault's test network always.
   */
  network?: string;
  /**
   * Subnet of that network.
   */
  subnet?: string;
  /**
   * Private IPv4 address; one that Azure chooses when absent, and in a Test failover.
   */
  ip?: string;
}
/**
 * Asks for a comparison of the whole disks with the vault. Done once for each token; status.resyncToken echoes it.
 */
export interface ProtectedVMSpecResyncRequest {
  /**
   * Any text not used before, such as a date.
   */
  token: string;
}

/**
 * What Farshore found. Written by the operator alone.
 */
export interface ProtectedVMStatus {
  /**
   * The generation of the spec that this status was computed from.
   */
  observedGeneration?: number;
  /**
   * Accepted, Ready, Reconciling, Stalled, InitialReplicationComplete, ReplicationHealthy, RecoveryPointCurrent, ResyncRequired, Recoverable, TargetValid, SourceStillRunning.
   */
  conditions?: Condition[];
  /**
   * One word for people, computed from the conditions. Programs read the conditions.
   */
  phase?: string;
  /**
   * The machine's identity in the vault; random, made when the name was claimed.
   */
  machineId?: string;
  /**
   * The disks that the agent found in the machine when it enrolled.
   */
  offeredDisks?: ProtectedVMStatusOfferedDisksItem[];
  /**
   * The protected disks, as the agent and the journal know them.
   */
  disks?: ProtectedVMStatusDisksItem[];
  agent?: ProtectedVMStatusAgent;
  positions?: ProtectedVMStatusPositions;
  bytesBehind?: ProtectedVMStatusBytesBehind;
  initialReplication?: ProtectedVMStatusInitialReplication;
  resync?: ProtectedVMStatusResync;
  /**
   * The moment of the newest barrier that is durable in the vault. The RPO is the time since then.
   */
  lastBarrierTime?: string;
  barriers?: ProtectedVMStatusBarriers;
  recoveryPoints?: ProtectedVMStatusRecoveryPoints;
  /**
   * Where the machine runs, and so which side alone may write its disks.
   */
  activeSide?: 'Source' | 'Azure';
  /**
   * Name of the Failover that has the machine now. Empty or absent when none has.
   */
  activeFailover?: string;
  /**
   * The token of the last resyncRequest that the agent has taken up.
   */
  resyncToken?: string;
}
/**
 * One disk of the machine.
 */
export interface ProtectedVMStatusOfferedDisksItem {
  /**
   * Its block device.
   */
  device: string;
  /**
   * Its size in bytes.
   */
  sizeBytes: number;
  /**
   * What is on it, or why it can't be protected.
   */
  description?: string;
}
/**
 * One protected disk.
 */
export interface ProtectedVMStatusDisksItem {
  /**
   * Its name, from the spec.
   */
  name: string;
  /**
   * Its number in the journal's records.
   */
  index: number;
  /**
   * Its size in bytes; 0 until the agent has reported it.
   */
  sizeBytes?: number;
  /**
   * Why it can't be copied now.
   */
  error?: string;
}
/**
 * The agent in the machine.
 */
export interface ProtectedVMStatusAgent {
  /**
   * Whether it is connected to its process server.
   */
  connected?: boolean;
  /**
   * When the process server last heard of it.
   */
  lastSeen?: string;
  /**
   * Its version.
   */
  version?: string;
  /**
   * What the machine calls itself.
   */
  hostname?: string;
  /**
   * The release of the machine's kernel.
   */
  kernel?: string;
}
/**
 * How far each part has come in the machine's journal, as LSNs (decimal): captured ≥ journaled ≥ uploaded ≥ applied ≥ recoveryPoint.
 */
export interface ProtectedVMStatusPositions {
  /**
   * Sent by the agent.
   */
  captured?: string;
  /**
   * Durable on the process server.
   */
  journaled?: string;
  /**
   * Durable in the vault.
   */
  uploaded?: string;
  /**
   * Applied to the replica.
   */
  applied?: string;
  /**
   * Of the newest recovery point.
   */
  recoveryPoint?: string;
}
/**
 * How many bytes each part has still to deal with.
 */
export interface ProtectedVMStatusBytesBehind {
  /**
   * Changed in the machine and not yet sent.
   */
  agent?: number;
  /**
   * In the process server's cache and not yet in the vault.
   */
  cache?: number;
  /**
   * In the vault and not yet applied to the replica.
   */
  applier?: number;
}
/**
 * The first copy of the machine's disks. Stays after it is done.
 */
export interface ProtectedVMStatusInitialReplication {
  /**
   * Bytes to be looked at.
   */
  bytesTotal?: number;
  /**
   * Bytes looked at.
   */
  bytesDone?: number;
  /**
   * Bytes that differed and were sent.
   */
  bytesSent?: number;
  /**
   * bytesDone of bytesTotal.
   */
  percent?: number;
  /**
   * Bytes looked at in a second, of late.
   */
  bytesPerSecond?: number;
  /**
   * Seconds until it is done at that rate.
   */
  etaSeconds?: number;
  /**
   * When it began.
   */
  startedAt?: string;
  /**
   * When the first barrier after it was durable in the vault.
   */
  finishedAt?: string;
}
/**
 * A comparison of the disks with the vault that runs now, after the initial replication. Absent when none does.
 */
export interface ProtectedVMStatusResync {
  /**
   * Why, such as TrackingLost, AfterReboot, SourceReverted, DiskResized, VaultGap or Manual.
   */
  reason: string;
  /**
   * Bytes to be looked at.
   */
  bytesTotal?: number;
  /**
   * Bytes looked at.
   */
  bytesDone?: number;
  /**
   * Bytes that differed and were sent.
   */
  bytesSent?: number;
  /**
   * bytesDone of bytesTotal.
   */
  percent?: number;
  /**
   * Bytes looked at in a second, of late.
   */
  bytesPerSecond?: number;
  /**
   * Seconds until it is done at that rate.
   */
  etaSeconds?: number;
  /**
   * When it began.
   */
  startedAt?: string;
}
/**
 * The barriers made since the process server started.
 */
export interface ProtectedVMStatusBarriers {
  /**
   * How many were made.
   */
  count?: number;
  /**
   * How many were given up, and tried again.
   */
  voided?: number;
  /**
   * How long the last one held writes, in milliseconds.
   */
  lastFreezeMs?: number;
  /**
   * The longest that any held writes, in milliseconds.
   */
  maxFreezeMs?: number;
  /**
   * Why the last voided one was given up.
   */
  lastVoid?: string;
}
/**
 * The recovery points in the vault.
 */
export interface ProtectedVMStatusRecoveryPoints {
  /**
   * How many there are.
   */
  count?: number;
  /**
   * How many of them are known to hold leaves that are not what they were. The newest others are preferred; one of these is brought up only with verify None. Absent when there is none.
   */
  damaged?: number;
  /**
   * The moment of the oldest.
   */
  oldestTime?: string;
  newestCrash?: ProtectedVMStatusRecoveryPointsNewestCrash;
  newestApp?: ProtectedVMStatusRecoveryPointsNewestApp;
  /**
   * The newest ones, newest first.
   */
  recent?: ProtectedVMStatusRecoveryPointsRecentItem[];
}
/**
 * The newest crash-consistent one.
 */
export interface ProtectedVMStatusRecoveryPointsNewestCrash {
  /**
   * Its name, for spec.recoveryPoint.name of a Failover.
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
}
/**
 * The newest app-consistent one.
 */
export interface ProtectedVMStatusRecoveryPointsNewestApp {
  /**
   * Its name, for spec.recoveryPoint.name of a Failover.
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
}
/**
 * A recovery point.
 */
export interface ProtectedVMStatusRecoveryPointsRecentItem {
  /**
   * Its name, for spec.recoveryPoint.name of a Failover.
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
  consistency: 'Crash' | 'App';
  /**
   * Whether it is known to hold leaves that are not what they were. Absent when not.
   */
  damaged?: boolean;
}

/** A machine whose disks are kept copied into a vault. Its name is the machine's name in the vault, which nobody else may hold. Deleting it stops protecting the machine; what the vault holds stays. */
export interface ProtectedVM {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec: ProtectedVMSpec;
  status?: ProtectedVMStatus;
}
