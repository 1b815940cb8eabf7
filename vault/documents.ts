/**
 * The documents of a vault, except the journal's binary segments (dataplane/journal). docs/FORMAT.md is their specification.
 *
 * Every document that is read from the vault passes its schema first: bytes from a store are never trusted. Unknown fields are
 * kept out, not refused; a document that needs a reader to understand more raises `formatVersion` in vault.json.
 * 64-bit positions are decimal strings in JSON and `bigint` in memory.
 */
import { z } from 'zod';
import { FarshoreError } from '../platform/errors.ts';

/** The highest format that this build reads and writes. */
export const FORMAT_VERSION = 1;

/** An LSN: how many records a machine's journal holds up to and with this one. 0 is "nothing yet". */
export type Lsn = bigint;

/** An LSN in JSON: a decimal string; `bigint` in memory. */
export const lsnText = z.codec(
  z.string().regex(/^(0|[1-9][0-9]{0,18})$/),
  z.bigint().nonnegative(),
  {
    decode: (text) => BigInt(text),
    encode: (value) => value.toString(),
  },
);
const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`));
const base64 = z.base64url();
/** Kubernetes object names, and names of disks. */
export const dnsLabel = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
export const objectName = z.string().regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/);
/** What a Date can hold: anything else would throw where it is shown. */
const timeMs = z.number().int().nonnegative().max(8_640_000_000_000_000);

/** 16 random bytes, made at enrolment; never derived from hardware. */
export const machineIdSchema = hex(16);

// -------------------------------------------------------------------------------------------------------------------- keys

/** A secret, sealed to one X25519 public key (vault/keys.ts). */
export const sealedKeySchema = z.object({
  /** SHA-256 of the recipient's public key, first 16 bytes, hex. */
  recipient: hex(16),
  kind: z.enum(['vault', 'recovery', 'processserver', 'applier']),
  /** ephemeral public key (32) | ciphertext | GCM tag (16), base64url. */
  box: base64,
});
export type SealedKey = z.infer<typeof sealedKeySchema>;

/** An Ed25519 signature over the exact `payload` string. Documents that command others travel in this. */
export const signedSchema = z.object({
  payload: z.string().max(64 << 20),
  /** The signer's Ed25519 public key, base64url. */
  signer: base64,
  signature: base64,
});
export type Signed = z.infer<typeof signedSchema>;

// -------------------------------------------------------------------------------------------------------------- vault.json

export const vaultDocumentSchema = z.object({
  formatVersion: z.number().int().positive(),
  vaultId: hex(16),
  createdAt: timeMs,
  /** X25519 public key of the vault key; its private half is in a Secret of the controlling cluster. */
  vaultKey: z.object({ id: hex(16), publicKey: base64 }),
  /** `farshore keygen` public strings; each opens everything. */
  recoveryRecipients: z.array(z.string()).min(1).max(16),
  /** Controllers' Ed25519 keys, oldest first; each later one is endorsed by an earlier one or by a recovery key. */
  controllerKeys: z
    .array(
      z.object({
        publicKey: base64,
        installationId: hex(16),
        endorsedBy: base64.optional(),
        /** Over "farshore-controller-v1|vaultId|publicKey". Absent for the first key alone. */
        endorsement: base64.optional(),
      }),
    )
    .min(1)
    .max(256),
  /** Every list of recovery recipients so far, newest last (= recoveryRecipients), each signed by the controller that set it. */
  recipientLists: z
    .array(
      z.object({
        recipients: z.array(z.string()).min(1).max(16),
        endorsedBy: base64,
        /** Over "farshore-recipients-v1|vaultId|recipients joined by |". */
        endorsement: base64,
      }),
    )
    .min(1)
    .max(1024),
  /** The CA that signs agents' and process servers' certificates, its key sealed for the vault key and the recovery recipients. */
  ca: z.object({ certificatePem: z.string(), key: z.array(sealedKeySchema) }),
  /** A random challenge sealed for each recovery recipient; `recover --check` answers it (control/recovery-check.json). */
  recoveryChallenge: z.object({ sha256: hex(32), sealed: z.array(sealedKeySchema) }),
});
export type VaultDocument = z.infer<typeof vaultDocumentSchema>;

/** control/recovery-check.json: proof that a recovery key opened the vault. `answer` hashes to the challenge's sha256. */
export const recoveryCheckSchema = z.object({
  recipient: hex(16),
  answer: base64,
  checkedAt: timeMs,
  /** By the recovery key's signing half, over "farshore-recovery-check-v1|vaultId|recipient|answer|checkedAt". */
  signature: base64,
});
export type RecoveryCheck = z.infer<typeof recoveryCheckSchema>;

// ------------------------------------------------------------------------------------------------------------- control/

/** control/controller.json: which installation is in control. Every mutation of Azure first re-reads it. */
export const controllerDocumentSchema = z.object({
  controllerEpoch: z.number().int().positive(),
  installationId: hex(16),
  holder: z.string(),
  since: timeMs,
});
export type ControllerDocument = z.infer<typeof controllerDocumentSchema>;

/** control/names/<kind>/<name>.json, put if absent: who holds a name. */
export const nameClaimSchema = z.object({
  kind: z.enum(['machine', 'processserver', 'failover']),
  name: objectName,
  installationId: hex(16),
  namespace: objectName,
  uid: z.string(),
  claimedAt: timeMs,
  /** Of a machine: its id, made with the claim. */
  machineId: machineIdSchema.optional(),
});
export type NameClaim = z.infer<typeof nameClaimSchema>;

export const diskSpecSchema = z.object({
  /** Position in every journal record; never reused. */
  index: z.number().int().min(0).max(63),
  name: dnsLabel,
  device: z.string(),
  /** As the agent reported it; 0 until then. */
  sizeBytes: z.number().int().nonnegative(),
});
export type DiskSpec = z.infer<typeof diskSpecSchema>;

export const hookSpecSchema = z.object({
  directory: z.string(),
  timeoutSeconds: z.number().int().positive(),
});

/** What a process server must do for one machine. */
export const assignmentSchema = z.object({
  machineId: machineIdSchema,
  name: objectName,
  namespace: objectName,
  writerEpoch: z.number().int().positive(),
  disks: z.array(diskSpecSchema).min(1).max(64),
  dataKey: z.array(sealedKeySchema),
  paused: z.boolean(),
  policy: z.object({
    crashConsistentSeconds: z.number().int().positive(),
    /** 0: off. */
    appConsistentSeconds: z.number().int().nonnegative(),
    hooks: hookSpecSchema.optional(),
  }),
  /** A Planned failover asks for the last barrier, after which the machine stays frozen and is powered off. */
  finalSync: z.object({ failover: objectName, powerOff: z.boolean() }).optional(),
  /** Any change of the token asks for a resync. */
  resyncToken: z.string().optional(),
});
export type Assignment = z.infer<typeof assignmentSchema>;

/** control/assignments/<processserver>.json (payload of a Signed). Older (controllerEpoch, generation) are refused. */
export const assignmentsDocumentSchema = z.object({
  vaultId: hex(16),
  processServer: objectName,
  controllerEpoch: z.number().int().positive(),
  generation: z.number().int().positive(),
  caCertificatePem: z.string(),
  machines: z.array(assignmentSchema).max(2000),
  /** Where agents reach the owner of a machine that is not in `machines`: machineId → endpoints. */
  redirects: z.record(machineIdSchema, z.array(z.string())),
});
export type AssignmentsDocument = z.infer<typeof assignmentsDocumentSchema>;

/** control/enrolments/<id>.json: somebody asks for a certificate. `id` is the SHA-256 of the CSR's DER, hex. */
export const enrolmentRequestSchema = z.object({
  kind: z.enum(['agent', 'processserver', 'applier']),
  name: objectName,
  requestedAt: timeMs,
  csrPem: z.string().max(16 << 10),
  /** Agent: HMAC-SHA-256(scrypt(passphrase, nonce), csr DER | name), and the nonce the process server gave. */
  proof: z.object({ nonce: hex(32), mac: hex(32) }).optional(),
  /** Agent: through which process server. */
  via: objectName.optional(),
  /** Process server, applier: HMAC-SHA-256(one-time token, csr DER | encryption key). */
  tokenMac: hex(32).optional(),
  /** Process server, applier: X25519 public key to which data keys are sealed. */
  encryptionKey: base64.optional(),
  /** Agent: the disks that the machine has; offered, never assumed. */
  disks: z
    .array(
      z.object({
        device: z.string(),
        sizeBytes: z.number().int().nonnegative(),
        description: z.string(),
      }),
    )
    .max(256)
    .optional(),
});
export type EnrolmentRequest = z.infer<typeof enrolmentRequestSchema>;

/** control/enrolments/<id>.answer.json */
export const enrolmentAnswerSchema = z.union([
  z.object({
    outcome: z.literal('accepted'),
    certificatePem: z.string(),
    caCertificatePem: z.string(),
    machineId: machineIdSchema.optional(),
    /** Over certificatePem | caCertificatePem with the key of the request's proof or token, so the asker knows whom it trusts. */
    mac: hex(32),
  }),
  z.object({ outcome: z.literal('refused'), code: z.string(), message: z.string() }),
]);
export type EnrolmentAnswer = z.infer<typeof enrolmentAnswerSchema>;

/**
 * control/registrations/<kind>-<name>.json: a process server or applier that enrolled, and the key that data keys are sealed to.
 * Written and signed by the controller before it answers; replaced when the same name enrols again with a new token.
 */
export const registrationSchema = z.object({
  kind: z.enum(['processserver', 'applier']),
  name: objectName,
  encryptionKey: base64,
  /** Id of the enrolment request that made it. */
  enrolment: hex(32),
  /** SHA-256 of the one-time token that it spent. */
  tokenSha256: hex(32),
  registeredAt: timeMs,
  /** By a controller of the vault, over "farshore-registration-v1|vaultId|kind|name|encryptionKey|enrolment|tokenSha256|registeredAt". */
  signer: base64,
  signature: base64,
});
export type Registration = z.infer<typeof registrationSchema>;

export const positionsSchema = z.object({
  capturedLsn: lsnText,
  journaledLsn: lsnText,
  uploadedLsn: lsnText,
});
export type Positions = z.infer<typeof positionsSchema>;

/** A barrier as it is reported; roots are in the journal and the point documents. */
export const barrierSummarySchema = z.object({
  lsn: lsnText,
  timeMs,
  consistency: z.enum(['Crash', 'App']),
});
export type BarrierSummary = z.infer<typeof barrierSummarySchema>;

export const resyncReasonSchema = z.enum([
  'Initial',
  'TrackingLost',
  'AfterReboot',
  'SourceReverted',
  'DiskResized',
  'VaultGap',
  'Manual',
]);
export type ResyncReason = z.infer<typeof resyncReasonSchema>;

/** A resync that came to its end. */
export const endedResyncSchema = z.object({
  reason: resyncReasonSchema,
  bytesTotal: z.number().int().nonnegative(),
  bytesSent: z.number().int().nonnegative(),
  startedMs: timeMs,
  finishedMs: timeMs,
});
export type EndedResync = z.infer<typeof endedResyncSchema>;

/** One machine in a process server's status. */
export const machineStatusSchema = z.object({
  machineId: machineIdSchema,
  writerEpoch: z.number().int().positive(),
  /** Agent connected now; when it was last heard of; what it said of itself. */
  agent: z.object({
    connected: z.boolean(),
    lastSeenMs: timeMs.optional(),
    version: z.string().optional(),
    hostname: z.string().optional(),
    kernel: z.string().optional(),
  }),
  disks: z.array(
    z.object({
      index: z.number().int(),
      sizeBytes: z.number().int(),
      error: z.string().optional(),
    }),
  ),
  positions: positionsSchema,
  /** Newest barrier that is durable in the vault: RPO counts from its time. */
  uploadedBarrier: barrierSummarySchema.optional(),
  uploadedAppBarrier: barrierSummarySchema.optional(),
  barriers: z.object({
    count: z.number().int(),
    voided: z.number().int(),
    lastFreezeMs: z.number(),
    maxFreezeMs: z.number(),
    lastVoid: z.string().optional(),
  }),
  resync: z
    .object({
      reason: resyncReasonSchema,
      bytesTotal: z.number().int(),
      bytesDone: z.number().int(),
      bytesSent: z.number().int(),
      startedMs: timeMs,
      bytesPerSecond: z.number(),
    })
    .optional(),
  /** The newest resync that ended while this agent ran: what initial replication cost. */
  lastResync: endedResyncSchema.optional(),
  /** Bytes of dirt that the agent has not sent, and of journal not uploaded. */
  backlog: z.object({ agentBytes: z.number().int(), cacheBytes: z.number().int() }),
  /** Set once the final barrier of a planned failover is uploaded and the machine is frozen (and off, when asked). */
  finalBarrier: z
    .object({ failover: objectName, lsn: lsnText, poweredOff: z.boolean() })
    .optional(),
  /** The journal was sealed by a failover, or claimed by another writer: this process server stopped writing it. */
  fenced: z
    .object({ by: z.enum(['Seal', 'HigherEpoch']), failover: objectName.optional() })
    .optional(),
  resyncToken: z.string().optional(),
  errors: z.array(z.object({ code: z.string(), message: z.string(), sinceMs: timeMs })).max(16),
});
export type MachineStatus = z.infer<typeof machineStatusSchema>;

/** control/status/<processserver>.json: one writer, replaced every few seconds. */
export const processServerStatusSchema = z.object({
  name: objectName,
  version: z.string(),
  formatVersion: z.number().int(),
  heartbeatMs: timeMs,
  /** Process server's clock minus the vault's Date. */
  clockOffsetMs: z.number(),
  assignments: z
    .object({ controllerEpoch: z.number().int(), generation: z.number().int() })
    .optional(),
  cache: z.object({
    totalBytes: z.number().int(),
    freeBytes: z.number().int(),
    oldestNotUploadedMs: timeMs.optional(),
  }),
  throughput: z.object({ inBytesPerSecond: z.number(), outBytesPerSecond: z.number() }),
  endpoints: z.array(z.string()),
  machines: z.array(machineStatusSchema).max(2000),
  /** What is wrong with the process server itself: assignments that it refuses, a vault that does not answer. */
  errors: z
    .array(z.object({ code: z.string(), message: z.string(), sinceMs: timeMs }))
    .max(16)
    .optional(),
});
export type ProcessServerStatus = z.infer<typeof processServerStatusSchema>;

/** control/status/applier-<name>.json */
export const applierStatusSchema = z.object({
  name: z.string(),
  version: z.string(),
  formatVersion: z.number().int(),
  heartbeatMs: timeMs,
  machines: z.array(
    z.object({
      machineId: machineIdSchema,
      appliedLsn: lsnText,
      recoveryPointLsn: lsnText,
      /** Journal bytes not applied yet and the rate of late: what Latest would wait for. */
      behindBytes: z.number().int(),
      bytesPerSecond: z.number(),
      error: z.object({ code: z.string(), message: z.string() }).optional(),
    }),
  ),
});
export type ApplierStatus = z.infer<typeof applierStatusSchema>;

// ------------------------------------------------------------------------------------------------------------- catalog/

/** catalog/<machineId>.json: what a recovery without any cluster must know. Written by the controller, by compare-and-set. */
export const catalogDocumentSchema = z.object({
  machineId: machineIdSchema,
  name: objectName,
  namespace: objectName,
  createdAt: timeMs,
  writerEpoch: z.number().int().positive(),
  processServer: objectName.optional(),
  disks: z.array(diskSpecSchema).max(64),
  dataKey: z.array(sealedKeySchema),
  activeSide: z.enum(['Source', 'Azure']),
  /** The applier may trim and thin by this even when no cluster is left. */
  policy: z.object({ name: objectName, retentionSeconds: z.number().int().positive() }),
  /** `{ production, test }`, each a FailoverTarget (vault/ledger.ts): so that a recovery without a cluster knows what to build. */
  target: z.unknown(),
  /** The lowest disk index that was never given out: an index of a disk that was taken off the list is not used again. */
  nextDiskIndex: z.number().int().min(0).max(64).optional(),
  /** The one failover that may act on this machine; set by compare-and-set before it does anything. */
  activeFailover: objectName.optional(),
  /** A Planned failover asks for the last barrier; copied into the assignment, so that an operator's restart thaws nothing. */
  finalSync: z.object({ failover: objectName, powerOff: z.boolean() }).optional(),
});
export type CatalogDocument = z.infer<typeof catalogDocumentSchema>;

// ------------------------------------------------------------------------------------------------------------- journal/

/**
 * journal/<machineId>/trim.json: where the journal begins; compare-and-set, and it only rises. It rises before the first segment below
 * it is removed, and whatever lies below it counts for nothing, also what a writer that slept for long puts there later.
 */
export const trimMarkSchema = z.object({
  machineId: machineIdSchema,
  /** The lowest segment that is kept. */
  firstSeq: z.number().int().positive(),
});
export type TrimMark = z.infer<typeof trimMarkSchema>;

// -------------------------------------------------------------------------------------------------------------- points/

/** points/<machineId>/<lsn, 20 digits>.json, put if absent: a recovery point that may be offered. */
export const pointDocumentSchema = z.object({
  machineId: machineIdSchema,
  lsn: lsnText,
  timeMs,
  consistency: z.enum(['Crash', 'App']),
  segment: z.object({
    seq: z.number().int().nonnegative(),
    digest: hex(32),
    writerEpoch: z.number().int().positive(),
  }),
  disks: z
    .array(
      z.object({
        index: z.number().int().min(0).max(63),
        name: dnsLabel,
        /** The source disk's size; the VHD's body is this rounded up to whole MiB, zero-padded. */
        sizeBytes: z.number().int().positive(),
        /** Merkle root over the padded body (dataplane/journal/merkle.ts). */
        root: hex(32),
        /** Page blob and snapshot that hold the disk (fixed VHD) and its leaf hashes. */
        replica: z.object({ key: z.string(), snapshot: z.string() }),
        leaves: z.object({ key: z.string(), snapshot: z.string() }),
      }),
    )
    .min(1),
  createdAt: timeMs,
});
export type PointDocument = z.infer<typeof pointDocumentSchema>;

/**
 * replicas/<machineId>/state.json: how far the replicas of a machine are applied; compare-and-set by whoever holds the fence.
 *
 * `holder` is `applier:<name>:<instance>` or `recovery:<failover>`, and empty once released. `applied.seq` is the segment that holds
 * `applied.lsn`, which may lie in its middle; −1 before the first. A disk's sizeBytes is 0 until a barrier or the catalog told it.
 */
export const replicaStateSchema = z.object({
  machineId: machineIdSchema,
  /** Sequence number of every page blob of the machine; raised by each new holder. */
  fence: z.number().int().nonnegative(),
  holder: z.string(),
  applied: z.object({ lsn: lsnText, seq: z.number().int().min(-1), digest: hex(32) }),
  disks: z.array(
    z.object({ index: z.number().int(), name: dnsLabel, sizeBytes: z.number().int() }),
  ),
  /** Between ResyncBegin and ResyncEnd no barrier becomes a point. */
  resyncing: z.boolean(),
  /**
   * Set while a point is being made at `applied.lsn`: nothing past that LSN has been written, so whoever takes over completes
   * the set of snapshots. Cleared before the first write after it.
   */
  makingPoint: z
    .object({
      timeMs,
      consistency: z.enum(['Crash', 'App']),
      writerEpoch: z.number().int().positive(),
      disks: z.array(
        z.object({
          index: z.number().int().min(0).max(63),
          sizeBytes: z.number().int().positive(),
          root: hex(32),
        }),
      ),
    })
    .optional(),
});
export type ReplicaState = z.infer<typeof replicaStateSchema>;

// ------------------------------------------------------------------------------------------------------------- encoding

/** Parses JSON bytes from the vault. Throws VaultDocumentError (`VaultDocumentInvalid`) naming the key and the first problem. */
export function decodeDocument<S extends z.ZodType>(
  schema: S,
  key: string,
  bytes: Uint8Array,
): z.output<S> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new VaultDocumentError(key, 'it is not JSON', { cause });
  }
  const result = schema.safeParse(json);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new VaultDocumentError(key, `${issue?.path.join('.') || 'document'}: ${issue?.message}`);
  }
  return result.data;
}

/** JSON bytes of a document; the schema must accept the value (a breach is a bug of ours and throws). */
export function encodeDocument<S extends z.ZodType>(schema: S, value: z.output<S>): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(z.encode(schema, value), undefined, 1)}\n`);
}

/** A document in the vault that can't be what it claims to be. */
export class VaultDocumentError extends FarshoreError {
  readonly key: string;

  constructor(key: string, problem: string, options?: ErrorOptions) {
    super(
      'VaultDocumentInvalid',
      `Vault document ${key} can't be read: ${problem}. Restore it from the storage account's soft-deleted versions, or report it.`,
      options,
    );
    this.key = key;
  }
}
