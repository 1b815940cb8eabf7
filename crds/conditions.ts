/**
 * Every condition type and every reason that Farshore's resources show. The strings are part of the API: people's alerts and
 * GitOps health checks match on them, so they are added to and never renamed. Events use the same reasons.
 *
 * Types are positive ("it holds is good") unless their comment says otherwise.
 */

export const ConditionType = {
  /** kstatus: the resource does what its spec asks. */
  Ready: 'Ready',
  /** kstatus, bad when True for long: work is under way towards the spec. */
  Reconciling: 'Reconciling',
  /** kstatus, bad when True: no progress without somebody's help. */
  Stalled: 'Stalled',
  /** The spec can be acted on: what it names exists, and its own name is free in the vault. */
  Accepted: 'Accepted',

  /** RecoveryVault: the storage account answers, and accepts the credentials and the keys. */
  Reachable: 'Reachable',
  /** RecoveryVault: a recovery key has been shown to open the vault. */
  RecoveryKeyVerified: 'RecoveryKeyVerified',
  /** RecoveryVault: this installation controls the vault; otherwise it watches. */
  InControl: 'InControl',

  /** ProtectedVM: the first copy of all disks is in the vault. */
  InitialReplicationComplete: 'InitialReplicationComplete',
  /** ProtectedVM: agent, process server and vault pass changes on, and barriers succeed. */
  ReplicationHealthy: 'ReplicationHealthy',
  /** ProtectedVM: the newest durable barrier is younger than the policy's rpoThreshold. Unknown before the first. */
  RecoveryPointCurrent: 'RecoveryPointCurrent',
  /** ProtectedVM, bad when True: what changed is not known, so the disks have to be compared with the vault. */
  ResyncRequired: 'ResyncRequired',
  /** ProtectedVM: there is a recovery point from which the machine can be brought up. */
  Recoverable: 'Recoverable',
  /** ProtectedVM: resource group, network, size and disk limits in Azure fit the machine. */
  TargetValid: 'TargetValid',
  /** ProtectedVM, bad when True: the machine runs in Azure and its source has been seen writing. */
  SourceStillRunning: 'SourceStillRunning',

  /** ProcessServer: every replica has its certificate. */
  Enrolled: 'Enrolled',
  /** ProcessServer: every replica has written its status of late. */
  HeartbeatCurrent: 'HeartbeatCurrent',
  /** ProcessServer: no replica's cache is nearly full. */
  CacheHasRoom: 'CacheHasRoom',
  /** ProcessServer: the signed list of machines in the vault is the one that the cluster asks for, and the replicas take it. */
  AssignmentsCurrent: 'AssignmentsCurrent',

  /** Failover: the machine is up in Azure, and its health check has passed. */
  FailedOver: 'FailedOver',
  /** Failover: the recovered disks were read back and are what the recovery point promised. */
  Verified: 'Verified',
  /** Failover: the machine stays in Azure for good. */
  Committed: 'Committed',
  /** Failover: everything that a Test made has been removed. */
  CleanedUp: 'CleanedUp',
} as const;
export type ConditionType = (typeof ConditionType)[keyof typeof ConditionType];

export const Reason = {
  // ------------------------------------------------------------------------------------------------------ of any resource
  /** All is as the spec asks. */
  Succeeded: 'Succeeded',
  /** Work is under way. */
  Progressing: 'Progressing',
  /** What the spec names exists and fits. */
  Accepted: 'Accepted',
  /** It is not known yet; the first look is still to come. */
  Pending: 'Pending',
  /** Something else must be right first; the message says what. */
  DependencyNotReady: 'DependencyNotReady',
  /** It was deleted, and is being let go. */
  Deleting: 'Deleting',
  /** It was deleted, and can't be let go yet; the message says what holds it. */
  DeletionBlocked: 'DeletionBlocked',
  /** A finalizer was released by farshore.dev/force-delete; the message lists what is left behind. */
  ForceDeleted: 'ForceDeleted',
  /** The name is held by another resource in the vault; the message says whose. */
  NameTaken: 'NameTaken',
  VaultNotFound: 'VaultNotFound',
  /** The vault is in another namespace, and does not list this one in allowedNamespaces. */
  VaultNotAllowed: 'VaultNotAllowed',
  VaultNotReady: 'VaultNotReady',
  PolicyNotFound: 'PolicyNotFound',
  ProcessServerNotFound: 'ProcessServerNotFound',
  /** The process server and the machine name different vaults. */
  ProcessServerOfOtherVault: 'ProcessServerOfOtherVault',
  MachineNotFound: 'MachineNotFound',
  SecretNotFound: 'SecretNotFound',
  /** The Secret is there but lacks the key, or its content is not what it should be. */
  SecretInvalid: 'SecretInvalid',
  /** Another installation controls the vault: nothing is changed from here. */
  NotInControl: 'NotInControl',
  /** A call to Azure, the vault or Kubernetes failed in a way that trying again may help; the message says which. */
  Retrying: 'Retrying',
  /** A bug or an unforeseen answer; the message has the error. */
  UnexpectedError: 'UnexpectedError',

  // --------------------------------------------------------------------------------------------------------- RecoveryVault
  VaultReachable: 'VaultReachable',
  /** The storage account does not answer. */
  VaultUnreachable: 'VaultUnreachable',
  /** Azure or the storage account refuses the credentials. */
  CredentialsRefused: 'CredentialsRefused',
  /** The storage account answers, but has no container of that name. */
  ContainerMissing: 'ContainerMissing',
  /** The key that this cluster has does not open the vault. */
  KeyRefused: 'KeyRefused',
  /** No key that opens this existing vault: set vaultKeySecretRef. */
  KeyMissing: 'KeyMissing',
  /** The vault was written by a newer Farshore than this one. */
  FormatTooNew: 'FormatTooNew',
  /** A document in the vault can't be what it claims to be. */
  VaultDamaged: 'VaultDamaged',
  /** The vault is sealed for other recipients than the spec names. */
  RecipientsDiffer: 'RecipientsDiffer',
  /** The vault is new, and was made here. */
  VaultCreated: 'VaultCreated',
  /** A recovery key answered the vault's challenge. */
  RecoveryKeyProven: 'RecoveryKeyProven',
  /** Nobody has yet run `farshore recover --check`. */
  RecoveryKeyNotProven: 'RecoveryKeyNotProven',
  /** This installation holds the controller epoch. */
  HoldsControl: 'HoldsControl',
  /** This installation took control with takeControlFromEpoch. */
  ControlTaken: 'ControlTaken',
  /** Another installation holds it. */
  HeldByOther: 'HeldByOther',
  /** ProtectedVMs or ProcessServers still name the vault. */
  InUse: 'InUse',

  // ----------------------------------------------------------------------------------------------------------- ProtectedVM
  /** No agent has enrolled under this name yet. */
  AgentNotEnrolled: 'AgentNotEnrolled',
  AgentDisconnected: 'AgentDisconnected',
  /** The process server that has the machine has not written its status of late. */
  ProcessServerSilent: 'ProcessServerSilent',
  /** Another process server took the machine over, because the one before fell silent or is gone. */
  ProcessServerReplaced: 'ProcessServerReplaced',
  Replicating: 'Replicating',
  /** spec.paused. */
  Paused: 'Paused',
  InitialReplicationRunning: 'InitialReplicationRunning',
  InitialReplicationDone: 'InitialReplicationDone',
  WithinThreshold: 'WithinThreshold',
  ThresholdExceeded: 'ThresholdExceeded',
  /** There is no barrier in the vault yet. */
  NoBarrierYet: 'NoBarrierYet',
  /** The tracer lost sight of writes. */
  TrackingLost: 'TrackingLost',
  /** The machine was started anew, so writes before tracking began are unknown. */
  AfterReboot: 'AfterReboot',
  /** The machine went back to an older state (a snapshot was restored). */
  SourceReverted: 'SourceReverted',
  DiskResized: 'DiskResized',
  DiskMissing: 'DiskMissing',
  /** The journal in the vault lacks something that the source no longer remembers. */
  VaultGap: 'VaultGap',
  /** resyncRequest. */
  Manual: 'Manual',
  /** Leaves of the replica are not what the source sent: sampled verification found it. */
  ChecksumMismatch: 'ChecksumMismatch',
  /** Tracking accounts for every write. */
  TrackingComplete: 'TrackingComplete',
  PointAvailable: 'PointAvailable',
  NoPointYet: 'NoPointYet',
  TargetFits: 'TargetFits',
  ResourceGroupNotFound: 'ResourceGroupNotFound',
  SubnetNotFound: 'SubnetNotFound',
  /** The network is in another region than the machine. */
  SubnetElsewhere: 'SubnetElsewhere',
  /** The region does not offer the size. */
  SizeNotAvailable: 'SizeNotAvailable',
  /** The region offers the size, but not in that zone. */
  ZoneNotAvailable: 'ZoneNotAvailable',
  /** The size runs no machines of that generation. */
  GenerationNotSupported: 'GenerationNotSupported',
  /** The size holds fewer data disks. */
  TooManyDisks: 'TooManyDisks',
  /** The size holds fewer network interfaces. */
  TooManyNics: 'TooManyNics',
  /** The size takes no premium disks. */
  PremiumNotSupported: 'PremiumNotSupported',
  /** A machine of that generation boots from no disk so large. */
  OsDiskTooLarge: 'OsDiskTooLarge',
  /** A disk is larger than Azure allows. */
  DiskTooLarge: 'DiskTooLarge',
  /** A failover has the machine. */
  FailoverActive: 'FailoverActive',
  ActiveInAzure: 'ActiveInAzure',
  /** The source writes although its journal is sealed. */
  SourceWrites: 'SourceWrites',
  /** The source has not been seen since its journal was sealed. */
  SourceSilent: 'SourceSilent',
  /** The journal was claimed by a writer with a higher epoch. */
  Fenced: 'Fenced',

  // ----------------------------------------------------------------------------------------------------- ReplicationPolicy
  /** A time zone that the operator does not know. */
  TimeZoneUnknown: 'TimeZoneUnknown',

  // --------------------------------------------------------------------------------------------------------- ProcessServer
  /** It has never written its status. */
  NeverSeen: 'NeverSeen',
  HeartbeatSeen: 'HeartbeatSeen',
  HeartbeatMissing: 'HeartbeatMissing',
  CacheFree: 'CacheFree',
  CacheNearlyFull: 'CacheNearlyFull',
  CertificateIssued: 'CertificateIssued',
  /** An enrolment was refused; the message says whose and why. */
  EnrolmentRefused: 'EnrolmentRefused',
  AssignmentsWritten: 'AssignmentsWritten',
  /** The new list drops many machines: set confirmRemoval. */
  RemovalNotConfirmed: 'RemovalNotConfirmed',
  /** Machines are still assigned to it. */
  Draining: 'Draining',

  // -------------------------------------------------------------------------------------------------------------- Failover
  /** Its steps run. */
  Running: 'Running',
  /** A step failed for good; the message says what was undone and what to do. */
  StepFailed: 'StepFailed',
  /** The machine is up; a decision (desiredState) is awaited. */
  AwaitingDecision: 'AwaitingDecision',
  /** The machine is in another failover. */
  MachineBusy: 'MachineBusy',
  /** The recovery point that was asked for does not exist. */
  PointNotFound: 'PointNotFound',
  /** The machine has no recovery point at all, or none before the time that was asked for. */
  NoPoint: 'NoPoint',
  RootsMatch: 'RootsMatch',
  /** The recovered disks are not what the recovery point promised. */
  RootsDiffer: 'RootsDiffer',
  /** verify: None. */
  NotVerified: 'NotVerified',
  HealthCheckFailed: 'HealthCheckFailed',
  /** Azure refused for lack of quota. */
  QuotaExceeded: 'QuotaExceeded',
  Committed: 'Committed',
  CleanedUp: 'CleanedUp',
  /** The vault's ledger already holds this Failover's outcome, which is shown here; nothing was done. */
  AdoptedFromLedger: 'AdoptedFromLedger',
} as const;
export type Reason = (typeof Reason)[keyof typeof Reason];
