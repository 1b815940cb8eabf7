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
