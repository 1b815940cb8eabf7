import { expect, test } from 'vitest';
import { catalogEntry, machineStatus, now, replicating } from '../../test/fixtures/statusInput.ts';
import { show } from './status.ts';
import type { StatusInput } from './statusInput.ts';

const machine = { ...machineStatus, disks: [] };
const sound: StatusInput = { ...replicating, machine };
const noPoints = {
  points: { count: 0, oldest: undefined, recent: [], newestCrash: undefined, newestApp: undefined },
};
const resync = {
  reason: 'TrackingLost' as const,
  ...{ bytesTotal: 10, bytesDone: 1, bytesSent: 1, startedMs: now, bytesPerSecond: 1 },
};
const unread = { vaultReadable: false, catalog: undefined, points: undefined, machine: undefined };
const objection = { reason: 'VaultNotFound', message: 'm' };
const inAzure: Partial<StatusInput> = { catalog: { ...catalogEntry, activeSide: 'Azure' } };
const sealed = { ...machine, fenced: { by: 'Seal' as const, failover: 'move' } };
const silent = { processServer: { ...sound.processServer, heartbeatMs: now - 100_000 } };

const damaged: Partial<StatusInput> = {
  applied: { ...appliedOf(replicating), damaged: [{ disk: 1, leaf: 3 }] },
};
const allMarked: Partial<StatusInput> = {
  points: { ...pointsOf(replicating), damaged: { count: 9, newestSound: undefined } },
};

test.each<[string, string, Partial<StatusInput>]>([
  ['Accepted', 'True/Accepted', {}],
  ['Accepted', 'False/VaultNotFound', { acceptance: objection }],

  ['InitialReplicationComplete', 'True/InitialReplicationDone', {}],
  ['InitialReplicationComplete', 'Unknown/VaultNotReady', unread],
  ['InitialReplicationComplete', 'False/DependencyNotReady', { ...unread, acceptance: objection }],
  [
    'InitialReplicationComplete',
    'False/InitialReplicationRunning',
    { ...noPoints, machine: { ...machine, resync: { ...resync, reason: 'Initial' } } },
  ],
  ['InitialReplicationComplete', 'False/Pending', noPoints],
  [
    'InitialReplicationComplete',
    'False/AgentDisconnected',
    { ...noPoints, machine: { ...machine, agent: { connected: false } } },
  ],

  ['ReplicationHealthy', 'True/Replicating', {}],
  ['ReplicationHealthy', 'Unknown/VaultNotReady', unread],
  ['ReplicationHealthy', 'False/ProcessServerSilent', silent],
  ['ReplicationHealthy', 'False/Paused', { paused: true }],
  ['ReplicationHealthy', 'False/DiskMissing', { machine: machineStatus }],

  ['RecoveryPointCurrent', 'True/WithinThreshold', {}],
  ['RecoveryPointCurrent', 'False/ThresholdExceeded', { rpoThresholdSeconds: 29 }],
  ['RecoveryPointCurrent', 'Unknown/NoBarrierYet', noPoints],

  ['ResyncRequired', 'False/TrackingComplete', {}],
  ['ResyncRequired', 'True/TrackingLost', { machine: { ...machine, resync } }],
  ['ResyncRequired', 'Unknown/Pending', { machine: undefined }],
  ...(
    ['TrackingLost', 'AfterReboot', 'SourceReverted', 'DiskResized', 'VaultGap', 'Manual'] as const
  ).map((reason): [string, string, Partial<StatusInput>] => [
    'ResyncRequired',
    `True/${reason}`,
    { machine: { ...machine, resyncRequired: { reason } } },
  ]),
  ['ResyncRequired', 'True/ChecksumMismatch', damaged],
  ['RecoveryPointCurrent', 'False/ChecksumMismatch', damaged],
  ['Recoverable', 'False/ChecksumMismatch', allMarked],

  ['Recoverable', 'True/PointAvailable', {}],
  ['Recoverable', 'False/NoPointYet', noPoints],
  ['Recoverable', 'False/ActiveInAzure', inAzure],
  ['Recoverable', 'Unknown/Pending', { target: undefined }],
  ['Recoverable', 'False/SizeNotAvailable', notFitting('SizeNotAvailable')],
  ['Recoverable', 'Unknown/VaultNotReady', unread],
  // It held points when it could be read: whether it still does nobody knows.
  [
    'Recoverable',
    'Unknown/VaultUnreachable',
    { ...unread, before: { recoveryPoints: { count: 3 } } },
  ],

  ['TargetValid', 'True/TargetFits', {}],
  ['TargetValid', 'Unknown/Pending', { target: undefined }],
  ['TargetValid', 'False/ZoneNotAvailable', notFitting('ZoneNotAvailable')],

  ['SourceStillRunning', 'False/Replicating', {}],
  ['SourceStillRunning', 'True/SourceWrites', inAzure],
  ['SourceStillRunning', 'True/SourceWrites', { machine: sealed }],
  [
    'SourceStillRunning',
    'False/SourceSilent',
    { ...inAzure, machine: { ...machine, agent: { connected: false } } },
  ],
  ['SourceStillRunning', 'Unknown/ProcessServerSilent', { ...inAzure, ...silent }],

  ['Ready', 'True/Succeeded', {}],
  ['Ready', 'False/Paused', { paused: true }],
  ['Ready', 'False/ZoneNotAvailable', notFitting('ZoneNotAvailable')],
  ['Ready', 'False/Draining', { deletion: { reason: 'Draining', message: 'm' } }],
  ['Reconciling', 'False/Succeeded', {}],
  ['Reconciling', 'True/Paused', { paused: true }],
  ['Reconciling', 'True/Deleting', { deletion: { reason: 'Draining', message: 'm' } }],
  // Nothing happens until somebody corrects it.
  ['Reconciling', 'False/VaultNotFound', { acceptance: objection }],
  ['Stalled', 'False/Succeeded', {}],
  ['Stalled', 'False/Progressing', { paused: true }],
  ['Stalled', 'True/VaultNotFound', { acceptance: objection }],
  ['Stalled', 'False/Progressing', { acceptance: { ...objection, reason: 'NotInControl' } }],
])('%s is %s', (type, expected, change) => {
  const found = show({ ...sound, ...change }).conditions.find((one) => one.type === type);
  expect(`${found?.status}/${found?.reason}`).toBe(expected);
  expect(found?.message).not.toBe('');
});

function notFitting(reason: string): Partial<StatusInput> {
  return { target: { objection: { reason, message: 'm' } } };
}

test('a resync that waits says until when, and how to begin it', () => {
  const waitsUntilMs = Date.UTC(2026, 0, 1, 20);
  const resyncRequired = { reason: 'DiskResized' as const, waitsUntilMs };
  const shown = show({ ...sound, machine: { ...machine, resyncRequired } });
  const told = shown.conditions.find(({ type }) => type === 'ResyncRequired');
  expect(told?.message).toContain('opens at 2026-01-01T20:00:00.000Z');
  expect(told?.message).toContain('farshore.dev/resync-now');
  expect(shown.status.phase).toBe('Resync');
});

test('damage is named by disk and byte, and points that are marked count for no RPO', () => {
  const old = { name: '5', lsn: 5n, timeMs: now - 7_200_000, consistency: 'Crash' as const };
  const points = { ...pointsOf(replicating), damaged: { count: 8, newestSound: old } };
  const shown = show({ ...sound, ...damaged, points });
  const told = shown.conditions.find(({ type }) => type === 'ResyncRequired');
  expect(told?.message).toContain('leaf 3 of disk data (from byte 196608)');
  expect(shown.durableMs).toBe(old.timeMs);
  expect(shown.status.recoveryPoints?.damaged).toBe(8);
});

function appliedOf({ applied }: StatusInput): NonNullable<StatusInput['applied']> {
  if (applied === undefined) throw new Error('nothing is applied');
  return applied;
}

function pointsOf({ points }: StatusInput): NonNullable<StatusInput['points']> {
  if (points === undefined) throw new Error('there are no points');
  return points;
}
