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
