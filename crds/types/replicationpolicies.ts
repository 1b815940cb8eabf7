/** Generated from crds/replicationpolicies.yaml by hack/generate-crd-types.ts; do not edit. */
import type { Condition, ObjectMeta } from '../object.ts';

/**
 * How often recovery points are made, and how long they are kept. All have defaults.
 */
export interface ReplicationPolicySpec {
  /**
   * A machine whose newest durable barrier is older than this is reported (condition RecoveryPointCurrent, metric farshore_rpo_threshold_seconds). It changes nothing about how data is copied. One number and a unit: s, m or h.
   */
  rpoThreshold: string;
  /**
   * How often all disks of a machine are brought to one moment, as if the power had failed then. Each such barrier becomes a recovery point. One number and a unit: s, m or h.
   */
  crashConsistentInterval: string;
  /**
   * How often the hooks run and a barrier is made between them, so that applications find their data as after a clean stop. Off when absent. One number and a unit: s, m or h.
   */
  appConsistentInterval?: string;
  /**
   * Recovery points older than this are removed, but never the newest one, the newest app-consistent one, nor one that is in use. So are the journal's segments, but for those from the newest recovery point on; without an applier all are kept. Ages count from the newest recovery point: while nothing arrives, nothing goes. One number and a unit: s, m or h; at most 360h (15 days).
   */
  retention: string;
  hooks?: ReplicationPolicySpecHooks;
  resyncWindow?: ReplicationPolicySpecResyncWindow;
  sampledVerification: ReplicationPolicySpecSampledVerification;
}
/**
 * Programs in the machine that quiesce applications around an app-consistent barrier.
 */
export interface ReplicationPolicySpecHooks {
  /**
   * Directory in the machine whose executables are run in name order, with the argument `pre` before the barrier and `post` after it. One that fails before the barrier means that no app-consistent point is made.
   */
  directory: string;
  /**
   * How long all executables together may take on either side of the barrier; after it, each gets 5 s at least. One number and a unit: s or m.
   */
  timeout: string;
}
/**
 * When resyncs that can wait may begin: outside office hours. One that is asked for (spec.resyncRequest of the machine), the first copy of a machine, and those for a reason in `urgent` begin at once, and so does every one of a machine that has the annotation farshore.dev/resync-now. One that has begun goes on to its end. Absent, none waits.
 */
export interface ReplicationPolicySpecResyncWindow {
  /**
   * The days on which the window begins; every day when absent.
   *
   * Items: A day of the week.
   */
  days?: ('Mon' | 'Tue' | 'Wed' | 'Thu' | 'Fri' | 'Sat' | 'Sun')[];
  /**
   * When it begins, as 20:00.
   */
  from: string;
  /**
   * When it ends, as 06:00; on the next day when that is not later than `from`.
   */
  to: string;
  /**
   * The time zone whose clocks count, summer time included, by its IANA name, such as Europe/Zurich. With one that the operator does not know the policy is not Ready, and no resync waits.
   */
  timeZone: string;
  /**
   * Reasons for which a resync does not wait. While it waits, no recovery point is made. By default everything but a disk that was grown, which somebody does on purpose.
   *
   * Items: A reason, as the condition ResyncRequired has it.
   */
  urgent: ('TrackingLost' | 'AfterReboot' | 'SourceReverted' | 'DiskResized' | 'VaultGap')[];
}
/**
 * The applier reads a part of each replica again every day, and compares it with the hashes that the source gave. What does not fit is sent again (condition ResyncRequired, reason ChecksumMismatch), and recovery points that share it are marked.
 */
export interface ReplicationPolicySpecSampledVerification {
  /**
   * Percent of a replica that is read each day; 0 for none. With 1, everything is read once in 100 days.
   */
  sharePerDay: number;
}

/**
 * What Farshore found. Written by the operator alone.
 */
export interface ReplicationPolicyStatus {
  /**
   * The generation of the spec that this status was computed from.
   */
  observedGeneration?: number;
  /**
   * Ready, Reconciling, Stalled.
   */
  conditions?: Condition[];
  /**
   * How many ProtectedVMs name this policy.
   */
  machines?: number;
  /**
   * The largest RPO over those machines, when it was last measured. Absent while none has a barrier in the vault.
   */
  worstRpoSeconds?: number;
}

/** How often recovery points of machines are made and how long they are kept. Machines go on under the policy they last saw when it is deleted. */
export interface ReplicationPolicy {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec: ReplicationPolicySpec;
  status?: ReplicationPolicyStatus;
}
