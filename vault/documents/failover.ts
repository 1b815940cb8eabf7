/** control/failovers/<name>.json: an entry of the ledger (vault/ledger.ts), and all that it says of what to build and what was done. */
import { z } from 'zod';
import { hex, lsnText, machineIdSchema, objectName, timeMs } from './fields.ts';

/** What to build in Azure: resolved from ProtectedVM and RecoveryVault when the failover is accepted, never re-read after. */
export const targetSchema = z.object({
  name: z.string().min(1).max(64),
  resourceGroup: z.string().min(1),
  location: z.string().min(1),
  size: z.string().min(1),
  osType: z.enum(['Linux', 'Windows']),
  generation: z.enum(['V1', 'V2']),
  diskType: z.enum([
    'Standard_LRS',
    'StandardSSD_LRS',
    'Premium_LRS',
    'StandardSSD_ZRS',
    'Premium_ZRS',
  ]),
  zone: z.string().optional(),
  nics: z
    .array(
      z.object({
        resourceGroup: z.string(),
        network: z.string(),
        subnet: z.string(),
        privateIp: z.string().optional(),
      }),
    )
    .min(1)
    .max(8),
  tags: z.record(z.string(), z.string()),
  /** ARM id of the account that holds the vault; Azure imports managed disks out of it. */
  storageAccountId: z.string(),
});
export type FailoverTarget = z.infer<typeof targetSchema>;

export const failoverRequestSchema = z.object({
  type: z.enum(['Test', 'Planned', 'Unplanned']),
  machineId: machineIdSchema,
  machineName: objectName,
  recoveryPoint: z.discriminatedUnion('type', [
    z.object({ type: z.literal('Latest') }),
    z.object({ type: z.literal('LatestProcessed') }),
    z.object({ type: z.literal('Time'), timeMs }),
    z.object({ type: z.literal('Name'), name: z.string() }),
  ]),
  /** Planned: power the source off while it is frozen; else it stays frozen. */
  powerOffSource: z.boolean(),
  verify: z.enum(['Full', 'None']),
  healthCheck: z
    .object({
      serialContains: z.string().min(1).max(1024),
      timeoutSeconds: z.number().int().positive(),
    })
    .optional(),
  target: targetSchema,
});
export type FailoverRequest = z.infer<typeof failoverRequestSchema>;

export const stepNames = [
  'Validate',
  'FinalSync',
  'SealJournal',
  'ApplyJournal',
  'ChoosePoint',
  'CopyDisks',
  'ImportDisks',
  'VerifyDisks',
  'RemoveCopies',
  'CreateNics',
  'CreateVm',
  'HealthCheck',
  'Commit',
  'RemoveVm',
  'RemoveNics',
  'RemoveDisks',
] as const;

export type StepName = (typeof stepNames)[number];

export const stepSchema = z.object({
  name: z.enum(stepNames),
  state: z.enum(['Running', 'Done', 'Failed']),
  startedAt: timeMs,
  finishedAt: timeMs.optional(),
  /** How often the step was begun: more than once after an error or a dead operator. */
  attempts: z.number().int().positive(),
  /** What it did, or what stands in its way and what to do. */
  message: z.string().optional(),
  /** Code of the error that it is being retried for, or failed with. */
  code: z.string().optional(),
  progress: z
    .object({
      bytesDone: z.number().int().nonnegative(),
      bytesTotal: z.number().int().nonnegative(),
      bytesPerSecond: z.number().nonnegative(),
    })
    .optional(),
});
export type FailoverStep = z.infer<typeof stepSchema>;

export const failoverDiskSchema = z.object({
  index: z.number().int(),
  name: z.string(),
  root: hex(32),
  replica: z.object({ key: z.string(), snapshot: z.string() }),
  copyKey: z.string(),
  managedDisk: z.object({ name: z.string(), id: z.string().optional() }),
  rootMatches: z.boolean().optional(),
});
export type FailoverDisk = z.infer<typeof failoverDiskSchema>;

export const failoverDocumentSchema = z.object({
  name: objectName,
  /** Random; every resource in Azure carries it as the tag `farshore-failover`. Nothing without it is ever deleted. */
  failoverId: hex(16),
  namespace: objectName,
  /** uid of the Failover resource that was accepted first. */
  uid: z.string(),
  installationId: hex(16),
  /** Random, of the run that wrote last: two that write the very same bytes must not both take them for their own. */
  writer: hex(8).optional(),
  request: failoverRequestSchema,
  acceptedAt: timeMs,
  desired: z.enum(['Committed', 'CleanedUp']).optional(),
  outcome: z.enum(['Running', 'FailedOver', 'Committed', 'CleanedUp', 'Failed']),
  /** In the order in which they were begun. */
  steps: z.array(stepSchema),
  /** Why it failed, and what was undone. */
  failure: z.object({ step: z.enum(stepNames), code: z.string(), message: z.string() }).optional(),
  finalBarrier: z.object({ lsn: lsnText, poweredOff: z.boolean() }).optional(),
  seal: z
    .object({
      sequence: z.number().int().nonnegative(),
      writerEpoch: z.number().int().positive(),
      lastLsn: lsnText,
    })
    .optional(),
  point: z.object({ lsn: lsnText, timeMs, consistency: z.enum(['Crash', 'App']) }).optional(),
  disks: z.array(failoverDiskSchema).optional(),
  nics: z.array(z.object({ name: z.string(), id: z.string().optional() })).optional(),
  vm: z.object({ name: z.string(), id: z.string().optional() }).optional(),
  health: z.object({ passedAt: timeMs.optional(), evidence: z.string().max(1024) }).optional(),
  /** Seconds between the recovery point and the acceptance: what was lost. */
  rpoSeconds: z.number().optional(),
  /** Seconds between the acceptance and the passed health check (or the running machine when none was asked for). */
  rtoSeconds: z.number().optional(),
});
export type FailoverDocument = z.infer<typeof failoverDocumentSchema>;
