import { describe, expect, test } from 'vitest';
import { Reason } from '../../crds/index.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import { firstObjection } from '../decisions.ts';
import { rpoSeconds } from '../vaultTime.ts';
import {
  type AcceptanceInput,
  acceptanceChecks,
  assignDisks,
  deletionChecks,
  newestDurableMs,
  progressOf,
  type ReplicationInput,
  replicationChecks,
} from './policies.ts';

const fine: AcceptanceInput = {
  namespace: 'default',
  vaultRef: 'default/vault',
  policyRef: 'policy',
  processServerRef: 'ps',
  vault: { state: 'InControl' },
  policyExists: true,
  processServer: { exists: true, vaultRef: 'default/vault' },
  nameHeldBy: undefined,
};
const claim = {
  kind: 'machine' as const,
  name: 'web',
  installationId: 'a'.repeat(32),
  namespace: 'other',
  uid: 'u',
  claimedAt: 0,
};

describe('acceptance', () => {
  test.each<[string | undefined, Partial<AcceptanceInput>]>([
    [undefined, {}],
    [Reason.VaultNotFound, { vault: { state: 'Missing' }, policyExists: false }],
    [Reason.VaultNotAllowed, { vault: { state: 'NotAllowed' } }],
    [Reason.VaultNotReady, { vault: { state: 'NotOpen', message: 'no answer.' } }],
    // What a person can correct comes before what has to be waited for.
    [Reason.PolicyNotFound, { vault: { state: 'NotOpen', message: '' }, policyExists: false }],
    [Reason.ProcessServerNotFound, { processServer: { exists: false, vaultRef: undefined } }],
    [Reason.ProcessServerOfOtherVault, { processServer: { exists: true, vaultRef: 'x/y' } }],
    [Reason.NameTaken, { nameHeldBy: claim }],
    [Reason.NameTaken, { nameHeldBy: claim, vault: { state: 'Standby', holder: 'them' } }],
    [Reason.NotInControl, { vault: { state: 'Standby', holder: 'them' } }],
  ])('%s', (reason, change) => {
    expect(firstObjection(acceptanceChecks, { ...fine, ...change })?.reason).toBe(reason);
  });

  test('a taken name says who holds it', () => {
    const objection = firstObjection(acceptanceChecks, { ...fine, nameHeldBy: claim });
    expect(objection?.message).toContain('other/web');
    expect(objection?.message).toContain(claim.installationId);
  });
});

const now = 1_000_000;
const machine: MachineStatus = {
  machineId: 'b'.repeat(32),
  writerEpoch: 1,
  agent: { connected: true, lastSeenMs: now },
  disks: [{ index: 0, sizeBytes: 100 }],
  positions: { capturedLsn: 3n, journaledLsn: 2n, uploadedLsn: 1n },
  barriers: { count: 0, voided: 0, lastFreezeMs: 0, maxFreezeMs: 0 },
  backlog: { agentBytes: 0, cacheBytes: 0 },
  errors: [],
};
const replicating: ReplicationInput = {
  now,
  accepted: true,
  paused: false,
  enrolled: true,
  processServer: { name: 'ps', heartbeatMs: now - 5_000 },
  machine,
};

describe('replication', () => {
  test.each<[string | undefined, Partial<ReplicationInput>]>([
    [undefined, {}],
    [Reason.DependencyNotReady, { accepted: false }],
    [Reason.ProcessServerSilent, { processServer: { name: 'ps', heartbeatMs: undefined } }],
    [Reason.ProcessServerSilent, { processServer: { name: 'ps', heartbeatMs: now - 60_001 } }],
    [undefined, { processServer: { name: 'ps', heartbeatMs: now - 60_000 } }],
    [Reason.AgentNotEnrolled, { enrolled: false, machine: undefined }],
    [undefined, { enrolled: false }],
    [Reason.Pending, { machine: undefined }],
    [Reason.FailoverActive, { machine: { ...machine, fenced: { by: 'Seal', failover: 'f' } } }],
    [Reason.Fenced, { machine: { ...machine, fenced: { by: 'HigherEpoch' } } }],
    [Reason.Paused, { paused: true }],
    [Reason.AgentDisconnected, { machine: { ...machine, agent: { connected: false } } }],
    [
      Reason.DiskMissing,
      { machine: { ...machine, disks: [{ index: 0, sizeBytes: 0, error: 'it vanished' }] } },
    ],
    [
      'HookFailed',
      { machine: { ...machine, errors: [{ code: 'HookFailed', message: 'm', sinceMs: 0 }] } },
    ],
    // A code that the API server would refuse as a reason must not cost the whole status.
    [
      Reason.UnexpectedError,
      { machine: { ...machine, errors: [{ code: 'not a reason!', message: 'm', sinceMs: 0 }] } },
    ],
  ])('%s', (reason, change) => {
    expect(firstObjection(replicationChecks, { ...replicating, ...change })?.reason).toBe(reason);
  });
});

describe('the RPO', () => {
  const barrier = { lsn: 1n, timeMs: 500_000, consistency: 'Crash' as const };
  const with_ = { ...machine, uploadedBarrier: barrier };

  test('counts from the newest of barrier and point', () => {
    const offset = { processServerOffsetMs: 0 };
    expect(newestDurableMs({ ...offset, machine: undefined, newestPointMs: undefined })).toBe(
      undefined,
    );
    expect(newestDurableMs({ ...offset, machine: with_, newestPointMs: 400_000 })).toBe(500_000);
    expect(newestDurableMs({ ...offset, machine: undefined, newestPointMs: 400_000 })).toBe(
      400_000,
    );
  });

  test('takes a process server’s wrong clock out, and leaves rounding alone', () => {
    const at = (processServerOffsetMs: number) =>
      newestDurableMs({ machine: with_, newestPointMs: undefined, processServerOffsetMs });
    expect(at(90_000)).toBe(410_000);
    expect(at(1_500)).toBe(500_000);
  });

  test('is never negative', () => {
    expect(rpoSeconds({ vaultNowMs: 10_000, durableMs: 12_000 })).toBe(0);
    expect(rpoSeconds({ vaultNowMs: 12_999, durableMs: 10_000 })).toBe(2);
  });
});

describe('progress', () => {
  const resync = {
    reason: 'Initial' as const,
    bytesTotal: 1000,
    bytesDone: 999,
    bytesSent: 10,
    startedMs: 0,
    bytesPerSecond: 0.5,
  };

  test('shows 100 % only when it is done, and no time left while nothing moves', () => {
    expect(progressOf({ ...machine, resync })).toMatchObject({ percent: 99, etaSeconds: 2 });
    const still = { ...resync, bytesPerSecond: 0 };
    expect(progressOf({ ...machine, resync: still })?.etaSeconds).toBeUndefined();
    expect(progressOf({ ...machine, resync: { ...resync, bytesDone: 1000 } })?.percent).toBe(100);
    expect(progressOf({ ...machine, resync: { ...resync, bytesTotal: 0 } })?.percent).toBe(0);
    expect(progressOf(machine)).toBeUndefined();
  });
});

describe('disks', () => {
  const known = [
    { index: 0, name: 'system', device: '/dev/sda', sizeBytes: 10 },
    { index: 1, name: 'data', device: '/dev/sdb', sizeBytes: 20 },
  ];

  test('keep their index, whatever the order and the device', () => {
    const { disks } = assignDisks({
      wanted: [
        { name: 'data', device: '/dev/sdx' },
        { name: 'system', device: '/dev/sda' },
      ],
      known,
      nextIndex: 2,
      reported: [{ index: 1, sizeBytes: 30 }],
    });
    expect(disks).toEqual([
      known[0],
      { index: 1, name: 'data', device: '/dev/sdx', sizeBytes: 30 },
    ]);
  });

  test('never get an index that another one had', () => {
    const { disks, nextIndex } = assignDisks({
      wanted: [
        { name: 'system', device: '/dev/sda' },
        { name: 'logs', device: '/dev/sdc' },
      ],
      known: known.slice(0, 1),
      nextIndex: 2,
      reported: [],
    });
    expect(disks.map((disk) => disk.index)).toEqual([0, 2]);
    expect(nextIndex).toBe(3);
  });
});

describe('deletion', () => {
  test.each([
    [undefined, {}],
    [Reason.ActiveInAzure, { activeSide: 'Azure' as const, activeFailover: 'f' }],
    [Reason.FailoverActive, { activeFailover: 'f', assignedTo: 'ps' }],
    [Reason.Draining, { assignedTo: 'ps' }],
  ])('%s', (reason, change) => {
    const input = {
      activeSide: 'Source' as const,
      activeFailover: undefined,
      assignedTo: undefined,
      ...change,
    };
    expect(firstObjection(deletionChecks, input)?.reason).toBe(reason);
  });
});
