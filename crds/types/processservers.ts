/** Generated from crds/processservers.yaml by hack/generate-crd-types.ts; do not edit. */
import type { Condition, ObjectMeta } from '../object.ts';

/**
 * Where the process server runs, how agents reach it, and which vault it serves.
 */
export interface ProcessServerSpec {
  /**
   * StatefulSet runs it in this cluster. External means a host outside, which starts from the bootstrap file in the Secret that status.bootstrapSecretName names. Can't change.
   */
  mode: 'StatefulSet' | 'External';
  /**
   * How many replicas of the StatefulSet. Machines are shared out among them, and those of one that falls silent go to another. With 1, which is what mode External has, they wait until it is back: their changes stay in the agents' bitmaps, and the RPO grows.
   */
  replicas: number;
  /**
   * Port on which it listens for agents.
   */
  port: number;
  cache?: ProcessServerSpecCache;
  exposure?: ProcessServerSpecExposure;
  passphraseSecretRef: ProcessServerSpecPassphraseSecretRef;
  vaultRef: ProcessServerSpecVaultRef;
  /**
   * Container image of the replicas. Mode StatefulSet alone.
   */
  image?: string;
  resources?: ProcessServerSpecResources;
  bandwidth?: ProcessServerSpecBandwidth;
  /**
   * Confirms that many machines are to be taken from this process server at once: the token of status.pendingRemoval. Any other value does nothing.
   */
  confirmRemoval?: string;
}
/**
 * The volume on which each replica keeps what is not uploaded yet. Mode StatefulSet alone.
 */
export interface ProcessServerSpecCache {
  /**
   * Size of each volume, such as 200Gi. May grow, never shrink.
   */
  size: string;
  /**
   * Storage class of the volumes; the cluster's default when absent. Can't change.
   */
  storageClassName?: string;
}
/**
 * How agents reach it.
 */
export interface ProcessServerSpecExposure {
  /**
   * Type of the Service made for each replica; ClusterIP when absent. Mode StatefulSet alone.
   */
  serviceType?: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  /**
   * host:port as agents are to use them, in the certificates too. In mode StatefulSet one for each replica, in order; when absent, the Services' own addresses.
   *
   * Items: host:port; IPv6 addresses in brackets.
   */
  endpoints?: string[];
}
/**
 * The Secret with the passphrase that agents enrol with.
 */
export interface ProcessServerSpecPassphraseSecretRef {
  /**
   * Name of a Secret in the same namespace.
   */
  name: string;
  /**
   * Which entry of the Secret.
   */
  key: string;
}
/**
 * The vault that it uploads into. Can't change.
 */
export interface ProcessServerSpecVaultRef {
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
 * Resources of each replica's container. Mode StatefulSet alone.
 */
export interface ProcessServerSpecResources {
  /**
   * What a replica is sure to get, by resource name.
   */
  requests?: {
    /**
     * A quantity, such as 500m or 1Gi.
     */
    [k: string]: string;
  };
  /**
   * What a replica may use at most, by resource name.
   */
  limits?: {
    /**
     * A quantity, such as "2" or 1Gi.
     */
    [k: string]: string;
  };
}
/**
 * How much it may upload into the vault, all replicas together: each gets an equal part. Without it, or where it says nothing, as much as the link takes. While the limit is in force, machines whose recovery points are furthest behind come first.
 */
export interface ProcessServerSpecBandwidth {
  /**
   * Bits per second outside of all windows, as lines are sold: a number and k (1,000), M or G, such as 50M; at least 512k. No limit when absent.
   */
  limit?: string;
  /**
   * Times of the week with a limit of their own. Of those that hold at a moment, the first counts.
   */
  windows?: ProcessServerSpecBandwidthWindowsItem[];
}
/**
 * From one time of day to another on some days of the week, by the clocks of a time zone, through changes to summer time and back.
 */
export interface ProcessServerSpecBandwidthWindowsItem {
  /**
   * Bits per second while the window holds, written as bandwidth.limit is. No limit when absent.
   */
  limit?: string;
  /**
   * The days on which the window begins; every day when absent.
   *
   * Items: A day of the week.
   */
  days?: ('Mon' | 'Tue' | 'Wed' | 'Thu' | 'Fri' | 'Sat' | 'Sun')[];
  /**
   * The first minute, HH:MM.
   */
  from: string;
  /**
   * The first minute after it, HH:MM. Not later than `from`: on the day after the one on which the window began; the same as `from` makes a whole day.
   */
  to: string;
  /**
   * IANA time zone by whose clocks days and times are meant, such as Europe/Zurich.
   */
  timeZone: string;
}

/**
 * What Farshore found. Written by the operator alone.
 */
export interface ProcessServerStatus {
  /**
   * The generation of the spec that this status was computed from.
   */
  observedGeneration?: number;
  /**
   * Accepted, Ready, Reconciling, Stalled, Enrolled (each replica has its certificate), HeartbeatCurrent (each replica has written its status of late), CacheHasRoom, AssignmentsCurrent (the list of machines in the vault is the one that the cluster asks for, and every replica takes it).
   */
  conditions?: Condition[];
  /**
   * How many replicas there are.
   */
  replicas?: number;
  /**
   * Label selector of the replicas' pods. Empty in mode External.
   */
  selector?: string;
  /**
   * How many machines are assigned to it.
   */
  machines?: number;
  /**
   * When the replica that has been silent longest last wrote its status.
   */
  heartbeatTime?: string;
  /**
   * The Secret whose bootstrap file an External process server starts from.
   */
  bootstrapSecretName?: string;
  assignments?: ProcessServerStatusAssignments;
  pendingRemoval?: ProcessServerStatusPendingRemoval;
  /**
   * Each replica, as it last reported.
   */
  replicaStatuses?: ProcessServerStatusReplicaStatusesItem[];
}
/**
 * The signed list of machines in the vault.
 */
export interface ProcessServerStatusAssignments {
  /**
   * The controller epoch in which it was written.
   */
  controllerEpoch?: number;
  /**
   * Its generation within that epoch.
   */
  generation?: number;
}
/**
 * A list of machines that is held back because it drops many at once. Absent when there is none.
 */
export interface ProcessServerStatusPendingRemoval {
  /**
   * Put this into spec.confirmRemoval to let it happen.
   */
  token: string;
  /**
   * The machines that would be dropped (the first 100).
   *
   * Items: namespace/name of a ProtectedVM.
   */
  machines: string[];
}
/**
 * One replica.
 */
export interface ProcessServerStatusReplicaStatusesItem {
  /**
   * Its name in the vault.
   */
  name: string;
  /**
   * When it last wrote its status.
   */
  heartbeatTime?: string;
  /**
   * Its version.
   */
  version?: string;
  /**
   * How many machines it serves.
   */
  machines?: number;
  /**
   * Where agents reach it.
   *
   * Items: host:port.
   */
  endpoints?: string[];
  /**
   * Its clock minus the vault's, in milliseconds.
   */
  clockOffsetMs?: number;
  cache?: ProcessServerStatusReplicaStatusesItemCache;
  /**
   * The limit of its uploads that is in force, its own part of spec.bandwidth. Absent while there is none.
   */
  uploadLimitBitsPerSecond?: number;
  throughput?: ProcessServerStatusReplicaStatusesItemThroughput;
}
/**
 * The volume on which it keeps what is not uploaded yet.
 */
export interface ProcessServerStatusReplicaStatusesItemCache {
  /**
   * Size of the volume.
   */
  totalBytes?: number;
  /**
   * What is free of it.
   */
  freeBytes?: number;
  /**
   * Since when the oldest of what is not uploaded has been waiting.
   */
  oldestNotUploadedTime?: string;
}
/**
 * What passes through it, of late.
 */
export interface ProcessServerStatusReplicaStatusesItemThroughput {
  /**
   * From agents.
   */
  inBytesPerSecond?: number;
  /**
   * Into the vault.
   */
  outBytesPerSecond?: number;
}

/** Takes what agents send, keeps it safe on its cache and uploads it into the vault. Runs as a StatefulSet of this cluster, or on a host outside it. */
export interface ProcessServer {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  spec: ProcessServerSpec;
  status?: ProcessServerStatus;
}
