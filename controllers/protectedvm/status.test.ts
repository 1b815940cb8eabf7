import { describe, expect, test } from 'vitest';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import { show } from './status.ts';
import type { StatusInput } from './statusInput.ts';

const now = Date.UTC(2026, 0, 1);
const machine: MachineStatus = {
  machineId: 'b'.repeat(32),
  writerEpoch: 1,
  agent: { connected: true, lastSeenMs: now },
  disks: [{ index: 0, sizeBytes: 100 }],
  positions: { capturedLsn: 3n, journaledLsn: 2n, uploadedLsn: 1n },
  uploadedBarrier: { lsn: 1n, timeMs: now - 30_000, consistency: 'Crash' },
  barriers: { count: 0, voided: 0, lastFreezeMs: 0, maxFreezeMs: 0 },
  backlog: { agentBytes: 0, cacheBytes: 0 },
  errors: [],
};
const catalog: CatalogDocument = {
  machineId: machine.machineId,
  name: 'web',
  namespace: 'default',
  createdAt: now,
  writerEpoch: 1,
  processServer: 'ps',
  disks: [{ index: 0, name: 'system', device: '/dev/sda', sizeBytes: 100 }],
  dataKey: [],
  activeSide: 'Source',
  policy: { name: 'policy', retentionSeconds: 86_400 },
  target: {},
};
const point = { name: '1', lsn: 1n, timeMs: now - 30_000, consistency: 'Crash' as const };
const healthy: StatusInput = {
  vaultNowMs: now,
  acceptance: undefined,
  deletion: undefined,
  paused: false,
  rpoThresholdSeconds: 900,
  rpoThresholdText: '15m',
  catalog,
  vaultReadable: true,
  enrolled: true,
  offeredDisks: undefined,
  processServer: { name: 'ps', heartbeatMs: now - 1_000, clockOffsetMs: 0 },
  machine,
  applied: undefined,
  points: { count: 1, oldest: point, recent: [point], newestCrash: point, newestApp: undefined },
  target: { objection: undefined },
  before: undefined,
};
const resync = {
  reason: 'TrackingLost' as const,
  bytesTotal: 10,
  bytesDone: 1,
  bytesSent: 1,
  startedMs: now,
  bytesPerSecond: 1,
};

function conditions(input: StatusInput): Record<string, string> {
  return Object.fromEntries(
    show(input).conditions.map(({ type, status, reason }) => [type, `${status}/${reason}`]),
  );
}

describe('conditions', () => {
  test('all are there from the first visit, Unknown where nobody looked', () => {
    const first = conditions({
      ...healthy,
      catalog: undefined,
      vaultReadable: false,
      machine: undefined,
      points: undefined,
      target: undefined,
      enrolled: false,
      processServer: { name: 'ps', heartbeatMs: undefined, clockOffsetMs: 0 },
    });
    expect(Object.keys(first).sort()).toEqual(
      [
        'Accepted',
        'InitialReplicationComplete',
        'ReplicationHealthy',
        'RecoveryPointCurrent',
        'ResyncRequired',
        'Recoverable',
        'TargetValid',
        'SourceStillRunning',
        'Ready',
        'Reconciling',
        'Stalled',
      ].sort(),
    );
    for (const type of ['ReplicationHealthy', 'RecoveryPointCurrent', 'Recoverable', 'TargetValid'])
      expect(first[type]).toMatch(/^Unknown/);
  });

  test('a machine without a fault is Ready', () => {
    expect(conditions(healthy)).toMatchObject({
      Ready: 'True/Succeeded',
      Stalled: 'False/Succeeded',
    });
    expect(show(healthy).status.phase).toBe('Protected');
  });

  test('an RPO over its threshold is told with why the last barrier was void', () => {
    const lastVoid = 'NeverReady: the agent did not get ready within 120 s';
    const late: StatusInput = {
      ...{ ...healthy, vaultNowMs: now + 3_600_000 },
      machine: { ...machine, barriers: { ...machine.barriers, voided: 3, lastVoid } },
    };
    const current = show(late).conditions.find(({ type }) => type === 'RecoveryPointCurrent');
    expect(current).toMatchObject({ status: 'False', message: expect.stringContaining(lastVoid) });
  });

  test('the RPO rises while nobody reports, also after a restart that knows only the status', () => {
    const late = { ...healthy, vaultNowMs: now + 3_600_000 };
    expect(conditions(late).RecoveryPointCurrent).toBe('False/ThresholdExceeded');
    const blind: StatusInput = {
      ...late,
      vaultReadable: false,
      machine: undefined,
      points: undefined,
      catalog: undefined,
      before: { ...show(healthy).status },
    };
    expect(conditions(blind).RecoveryPointCurrent).toBe('False/ThresholdExceeded');
    expect(show(blind).status.machineId).toBe(machine.machineId);
    expect(show(blind).status.recoveryPoints?.count).toBe(1);
  });

  test('messages do not change while nothing happens', () => {
    const message = (vaultNowMs: number) =>
      show({ ...healthy, vaultNowMs }).conditions.map((one) => one.message);
    expect(message(now + 5_000)).toEqual(message(now));
    const overdue = (vaultNowMs: number) =>
      show({
        ...healthy,
        vaultNowMs,
        processServer: { ...healthy.processServer, heartbeatMs: vaultNowMs },
      }).conditions.map((one) => one.message);
    expect(overdue(now + 2_000_000)).toEqual(overdue(now + 3_000_000));
  });

  test('a first copy is no resync; a later one is, with its reason', () => {
    const first: StatusInput = {
      ...healthy,
      points: {
        ...healthy.points,
        count: 0,
        recent: [],
        oldest: undefined,
        newestCrash: undefined,
        newestApp: undefined,
      },
      machine: { ...machine, uploadedBarrier: undefined, resync: { ...resync, reason: 'Initial' } },
    };
    expect(conditions(first)).toMatchObject({
      InitialReplicationComplete: 'False/InitialReplicationRunning',
      ResyncRequired: 'False/TrackingComplete',
    });
    expect(show(first).status).toMatchObject({
      phase: 'InitialReplication',
      initialReplication: { percent: 10 },
    });
    const later = { ...healthy, machine: { ...machine, resync } };
    expect(conditions(later).ResyncRequired).toBe('True/TrackingLost');
    expect(show(later).status).toMatchObject({
      phase: 'Resync',
      resync: { reason: 'TrackingLost' },
    });
  });

  test('a source that runs beside its copy in Azure is told, one that nobody can see is Unknown', () => {
    const sealed: StatusInput = {
      ...healthy,
      catalog: { ...catalog, activeSide: 'Azure' },
      machine: { ...machine, fenced: { by: 'Seal' } },
    };
    expect(conditions(sealed).SourceStillRunning).toBe('True/SourceWrites');
    expect(
      conditions({ ...sealed, machine: { ...machine, agent: { connected: false } } })
        .SourceStillRunning,
    ).toBe('False/SourceSilent');
    expect(
      conditions({
        ...sealed,
        processServer: { ...sealed.processServer, heartbeatMs: now - 100_000 },
      }).SourceStillRunning,
    ).toBe('Unknown/ProcessServerSilent');
    expect(show(sealed).status.phase).toBe('InAzure');
  });

  test('what the applier can not prove counts for nothing: no fresh RPO, not Protected, and it is said why', () => {
    const error = { code: 'BarrierRootMismatch', message: 'the blocks do not give the root.' };
    const applied = {
      ...{ machineId: machine.machineId, appliedLsn: 9n, recoveryPointLsn: 1n },
      ...{ behindBytes: 0, bytesPerSecond: 0, error },
    };
    const old = { ...point, timeMs: now - 3_600_000 };
    const refused: StatusInput = {
      ...healthy,
      applied,
      points: { count: 1, oldest: old, recent: [old], newestCrash: old, newestApp: undefined },
    };
    expect(conditions(refused).RecoveryPointCurrent).toBe('False/BarrierRootMismatch');
    expect(show(refused)).toMatchObject({
      durableMs: old.timeMs,
      status: { phase: 'Degraded' },
    });
    // Two appliers, or a failover at work: the one that waits says nothing of the machine.
    const waits = { ...applied, error: { code: 'ReplicaHeld', message: '' } };
    expect(conditions({ ...healthy, applied: waits }).RecoveryPointCurrent).toMatch(/^True/);
  });

  test('a clock that runs ahead makes nothing look new', () => {
    const ahead: StatusInput = {
      ...healthy,
      processServer: { ...healthy.processServer, reportedMs: now - 3_600_000 },
      machine: {
        ...machine,
        uploadedBarrier: { lsn: 1n, timeMs: now + 10 * 3_600_000, consistency: 'Crash' },
      },
    };
    expect(conditions(ahead).RecoveryPointCurrent).toBe('False/ThresholdExceeded');
    expect(show(ahead).durableMs).toBe(now - 3_600_000);
  });

  test('Recoverable is not said before Azure was asked, nor of a machine that runs there', () => {
    expect(conditions({ ...healthy, target: undefined }).Recoverable).toBe('Unknown/Pending');
    expect(
      conditions({ ...healthy, catalog: { ...catalog, activeSide: 'Azure' } }).Recoverable,
    ).toBe('False/ActiveInAzure');
  });

  test('a target that does not fit makes the machine not recoverable', () => {
    const objection = { reason: 'SizeNotFound', message: 'no such size.' };
    expect(conditions({ ...healthy, target: { objection } })).toMatchObject({
      TargetValid: 'False/SizeNotFound',
      Recoverable: 'False/SizeNotFound',
    });
  });

  test('a finished initial replication stays finished', () => {
    const before = {
      initialReplication: { bytesTotal: 10, percent: 100, finishedAt: '2026-01-01T00:00:00Z' },
    };
    const again: StatusInput = { ...healthy, machine: { ...machine, resync }, before };
    expect(show(again).status.initialReplication).toEqual(before.initialReplication);
  });
});
