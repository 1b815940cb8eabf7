/**
 * What an agent (A) and a process server (P) say to each other. docs/WIRE.md is the specification; frames are in frame.ts.
 *
 * Control messages are JSON and pass their schema on arrival; the four that carry bulk (Data, Ask, Answer, and the acks of
 * positions inside Uploaded) are described where they are encoded. The conversation:
 *
 *   enrolment   A EnrolBegin → P EnrolNonce → A EnrolRequest → P EnrolAnswer           (no client certificate yet)
 *               P EnrolAnswer pending every 5 s until the operator answers; an agent that asks again uses the same CSR
 *   session     A Hello → P Welcome | Redirect | Refused                               (client certificate = one machine)
 *   disks       A AgentStatus right after Welcome, after each Configure and whenever a disk's size or error changes, each time
 *               before the first Data that depends on it: its `disks[].sizeBytes` is what Data and Ask may address.
 *               Data for a disk that was not reported, or past its end, ends the session with Refused DataInvalid.
 *   data        A Data…  (as far as P's Credit allows)          P Uploaded{lsn} when segments are durable in the vault
 *   resync      A Data[ResyncBegin] · (A Ask → P Answer → A Data)… · A Data[ResyncEnd]
 *   scrub       A Ask → P Answer, about leaves that A takes for unchanged
 *   barrier     P BarrierPrepare → A BarrierReady → P BarrierFreeze{timeMs} → A Data… Barrier → P BarrierAcknowledged
 *               (A BarrierVoided instead, at any time after Prepare)
 *   always      A AgentStatus and P Heartbeat every 5 s; silence for 30 s ends the session
 *   end         P Refused at any time (a code of RefusalCode), or either side closes
 *
 * Credit counts the payload bytes of Data frames (12 + records). Welcome grants the first, Credit more as records become durable in
 * the cache; a Data frame that is larger than what is left waits at the agent.
 */
import { z } from 'zod';
import { hookSpecSchema } from '../../vault/documents/assignments.ts';
import { DAMAGED_LEAVES_MAX, damagedLeafSchema } from '../../vault/documents/damagedLeaf.ts';
import { dnsLabel, machineIdSchema } from '../../vault/documents/fields.ts';
import { endedResyncSchema, resyncReasonSchema } from '../../vault/documents/machineStatus.ts';

/** The newest version of this protocol that this build speaks, and the oldest. */
export const PROTOCOL_VERSION = 1;
export const PROTOCOL_VERSION_MIN = 1;

export const FrameType = {
  Hello: 1,
  Welcome: 2,
  Redirect: 3,
  Refused: 4,
  Configure: 5,
  /** u64 firstLsn, u32 recordCount, then records as in dataplane/journal/record.ts. */
  Data: 16,
  Credit: 17,
  Uploaded: 18,
  /** u32 askId, u8 disk, u8[3] 0, u32 firstLeaf, u32 count, then count 32-byte leaf hashes. */
  Ask: 19,
  /** u32 askId, u32 count, then one byte a leaf: AnswerCode. */
  Answer: 20,
  BarrierPrepare: 32,
  BarrierReady: 33,
  BarrierFreeze: 34,
  Barrier: 35,
  BarrierAcknowledged: 36,
  BarrierVoided: 37,
  AgentStatus: 48,
  Heartbeat: 49,
  EnrolBegin: 64,
  EnrolNonce: 65,
  EnrolRequest: 66,
  EnrolAnswer: 67,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export const AnswerCode = { SameUploaded: 0, SamePending: 1, Differs: 2 } as const;

/** Why the process server does not talk (on) with an agent: `Refused.code`. */
export const RefusalCode = {
  /** Hello without a client certificate: enrol first. */
  CertificateRequired: 'CertificateRequired',
  /** The certificate is not from this vault's CA, or has expired: enrol again. */
  CertificateRefused: 'CertificateRefused',
  /** The certificate names another machine than Hello does. */
  CertificateOfAnotherMachine: 'CertificateOfAnotherMachine',
  /** No protocol version that both speak: upgrade the older side. */
  VersionUnsupported: 'VersionUnsupported',
  /** This process server has no assignment for the machine and knows nobody who has. */
  NotAssigned: 'NotAssigned',
  /** It has not read its assignments yet, or is opening the machine's journal: try again. */
  NotReady: 'NotReady',
  /** The journal was sealed by a failover: the machine runs in Azure now, or is about to. */
  Sealed: 'Sealed',
  /** Another process server owns the journal now. */
  NotOwner: 'NotOwner',
  /** The machine connected again: the newer connection counts. */
  Superseded: 'Superseded',
  /** The cache can't be written or the journal does not accept what was sent; the message says what. */
  JournalFailed: 'JournalFailed',
  /** Records that can't be: damaged, out of order, for an unknown disk or past a disk's end. */
  DataInvalid: 'DataInvalid',
  /** The agent broke the protocol; the message names the WireError code. */
  ProtocolBroken: 'ProtocolBroken',
  /** The process server is shutting down: reconnect. */
  ShuttingDown: 'ShuttingDown',
} as const;
export type RefusalCode = (typeof RefusalCode)[keyof typeof RefusalCode];

const lsn = z.codec(z.string().regex(/^(0|[1-9][0-9]{0,18})$/), z.bigint().nonnegative(), {
  decode: (text) => BigInt(text),
  encode: (value) => value.toString(),
});
const bytes = z.number().int().nonnegative();

export const diskReportSchema = z.object({
  index: z.number().int().min(0).max(63),
  device: z.string(),
  sizeBytes: bytes,
  /** Why this disk can't be protected now, with what to do. */
  error: z.object({ code: z.string(), message: z.string() }).optional(),
});

/** What the agent should do, in Welcome and again whenever it changes (Configure). */
export const configurationSchema = z.object({
  disks: z
    .array(
      z.object({
        index: z.number().int().min(0).max(63),
        name: dnsLabel,
        device: z.string(),
        /** As the vault has it: one that is smaller now is refused. Absent: not known. */
        sizeBytes: bytes.optional(),
      }),
    )
    .min(1)
    .max(64),
  paused: z.boolean(),
  hooks: hookSpecSchema.optional(),
  /** A token not seen before asks for a resync (reason Manual). */
  resyncToken: z.string().optional(),
  /** Resyncs for these reasons must not begin now, unless a token asks for one; those that have begun go on. Absent: none. */
  resyncWaits: z.array(resyncReasonSchema).max(16).optional(),
  /** Leaves that the vault holds otherwise than they were sent: taken for dirty as a whole, again from time to time while they are told. */
  repair: z.array(damagedLeafSchema).max(DAMAGED_LEAVES_MAX).optional(),
  /**
   * A planned failover wants the last barrier; BarrierPrepare.final follows. When it is gone from a later Configure, the failover was
   * cancelled: an agent that stayed frozen thaws and goes on.
   */
  final: z.object({ failover: z.string(), powerOff: z.boolean() }).optional(),
});
export type Configuration = z.infer<typeof configurationSchema>;

/** Other process servers, one of which takes the machine over when this one is lost. The agent remembers them. */
const peersSchema = z.array(z.string()).max(32).optional();

export const messageSchemas = {
  [FrameType.Hello]: z.object({
    protocol: z.object({ min: z.number().int(), max: z.number().int() }),
    machineId: machineIdSchema,
    agentVersion: z.string(),
    hostname: z.string(),
    kernel: z.string(),
    /** /proc/sys/kernel/random/boot_id: another one means dirt of before the boot is unknown. */
    bootId: z.string(),
    /**
     * The highest LSN this agent ever gave to a record, stored before the record is sent; 0 when it has no state. With tracking
     * Continued and less than the process server's journaledLsn, the machine went back in time (SourceReverted).
     */
    capturedLsn: lsn,
    /** Newest barrier acknowledged to this agent. Behind the process server's: the machine went back in time (SourceReverted). */
    acknowledgedBarrierLsn: lsn,
    /** The cache (Welcome.cacheId) that acknowledged it. Another than the process server's, which has barriers of its own: reverted too. */
    cacheId: z.string().optional(),
    /** Continued: the bitmaps account for every write since acknowledgedBarrierLsn. Otherwise a resync follows, for this reason. */
    tracking: z.union([
      z.object({ state: z.literal('Continued') }),
      z.object({ state: z.literal('Lost'), reason: resyncReasonSchema, detail: z.string() }),
    ]),
    resyncToken: z.string().optional(),
  }),
  [FrameType.Welcome]: z.object({
    protocol: z.number().int(),
    writerEpoch: z.number().int().positive(),
    /** Random, made when the cache directory was; a new one means that what was journaled but not uploaded is gone. */
    cacheId: z.string(),
    /** The agent gives its next record journaledLsn + 1, and marks dirty again whatever it sent past journaledLsn. */
    journaledLsn: lsn,
    uploadedLsn: lsn,
    /** Newest barrier in the journal; 0 when there is none. */
    lastBarrierLsn: lsn,
    /** The journal is inside a resync (or has never seen one end): a resync must follow whatever the tracking says. */
    resync: z.object({
      required: z.boolean(),
      reason: resyncReasonSchema.optional(),
      /** Of the ResyncBegin that the journal is inside of. An agent that began another must begin anew, from the first leaf. */
      beginLsn: lsn.optional(),
    }),
    /** The first window: no Data frame (payload) may be larger than half of it, or it might wait for ever. At least 160 KiB. */
    creditBytes: bytes,
    peers: peersSchema,
    configuration: configurationSchema,
  }),
  [FrameType.Redirect]: z.object({ endpoints: z.array(z.string()).max(32) }),
  [FrameType.Refused]: z.object({ code: z.string(), message: z.string(), retryAfterMs: bytes }),
  [FrameType.Configure]: configurationSchema.extend({ peers: peersSchema }),
  /** More bytes of Data payload that the agent may send. */
  [FrameType.Credit]: z.object({ bytes }),
  [FrameType.Uploaded]: z.object({
    uploadedLsn: lsn,
    /** Newest barrier at or before uploadedLsn: dirt it carried may be forgotten. */
    barrierLsn: lsn,
  }),
  [FrameType.BarrierPrepare]: z.object({
    id: z.number().int().nonnegative(),
    consistency: z.enum(['Crash', 'App']),
    /** The last barrier of a planned failover: stay frozen once it is uploaded, then power off if asked. */
    final: z.object({ failover: z.string(), powerOff: z.boolean() }).optional(),
  }),
  [FrameType.BarrierReady]: z.object({ id: z.number().int().nonnegative() }),
  [FrameType.BarrierFreeze]: z.object({
    id: z.number().int().nonnegative(),
    timeMs: z.number().int(),
  }),
  /** All data of the barrier went before; `lsn` is the barrier record's own, which the process server writes with the roots. */
  [FrameType.Barrier]: z.object({
    id: z.number().int().nonnegative(),
    lsn,
    disks: z
      .array(z.object({ index: z.number().int().min(0).max(63), sizeBytes: bytes }))
      .min(1)
      .max(64),
    freezeMs: z.number().nonnegative(),
  }),
  [FrameType.BarrierAcknowledged]: z.object({ id: z.number().int().nonnegative(), lsn }),
  [FrameType.BarrierVoided]: z.object({
    id: z.number().int().nonnegative(),
    code: z.string(),
    message: z.string(),
  }),
  [FrameType.AgentStatus]: z.object({
    capturedLsn: lsn,
    disks: z.array(diskReportSchema).max(64),
    dirtyBytes: bytes,
    resync: z
      .object({
        reason: resyncReasonSchema,
        bytesTotal: bytes,
        bytesDone: bytes,
        bytesSent: bytes,
        startedMs: bytes,
        bytesPerSecond: z.number().nonnegative(),
      })
      .optional(),
    /** Why a resync is needed that has not begun. */
    loss: z.object({ reason: resyncReasonSchema, detail: z.string() }).optional(),
    /** The newest resync that ended since the agent started. */
    lastResync: endedResyncSchema.optional(),
    errors: z.array(z.object({ code: z.string(), message: z.string(), sinceMs: bytes })).max(16),
    /** The last resync token that was obeyed (the resync it asked for has begun). */
    resyncToken: z.string().optional(),
    /**
     * The final barrier is durable in the vault (Uploaded.barrierLsn reached it) and the machine is kept frozen (poweredOff false), or
     * goes off right after this message (true; sent and flushed before the power goes).
     */
    final: z.object({ failover: z.string(), poweredOff: z.boolean() }).optional(),
  }),
  [FrameType.Heartbeat]: z.object({ timeMs: z.number().int() }),
  [FrameType.EnrolBegin]: z.object({ name: z.string().max(253) }),
  [FrameType.EnrolNonce]: z.object({ nonce: z.string().regex(/^[0-9a-f]{64}$/) }),
  [FrameType.EnrolRequest]: z.object({
    name: z.string().max(253),
    csrPem: z.string().max(16 << 10),
    mac: z.string().regex(/^[0-9a-f]{64}$/),
    disks: z
      .array(z.object({ device: z.string(), sizeBytes: bytes, description: z.string() }))
      .max(256),
  }),
  [FrameType.EnrolAnswer]: z.union([
    z.object({ outcome: z.literal('pending') }),
    z.object({
      outcome: z.literal('accepted'),
      certificatePem: z.string(),
      caCertificatePem: z.string(),
      machineId: machineIdSchema,
      mac: z.string().regex(/^[0-9a-f]{64}$/),
      /** The nonce whose key `mac` was made with: that of the first request with this CSR, when the agent asked more than once. */
      nonce: z.string().regex(/^[0-9a-f]{64}$/),
    }),
    z.object({ outcome: z.literal('refused'), code: z.string(), message: z.string() }),
  ]),
} as const;

export type ControlType = keyof typeof messageSchemas;
export type Message<T extends ControlType> = z.infer<(typeof messageSchemas)[T]>;
