import { describe, expect, test } from 'vitest';
import type { ProcessServerStatus } from '../../vault/documents/processServerStatus.ts';
import { type ProcessServerStatusInput, showProcessServer } from './status.ts';

const now = Date.UTC(2026, 0, 1);
const reported: ProcessServerStatus = {
  name: 'ps',
  version: '1',
  formatVersion: 1,
  heartbeatMs: now - 1_000,
  clockOffsetMs: 0,
  cache: { totalBytes: 100, freeBytes: 50 },
  throughput: { inBytesPerSecond: 1.5, outBytesPerSecond: 2.5 },
  endpoints: [],
  machines: [],
};
const healthy: ProcessServerStatusInput = {
  vaultNowMs: now,
  acceptance: undefined,
  deletion: undefined,
  replicas: [{ name: 'ps', registered: true, reported }],
  selector: '',
  bootstrapSecretName: 'ps-bootstrap',
  machines: 1,
  assignments: { controllerEpoch: 1, generation: 2 },
  assignmentsTrouble: undefined,
  pendingRemoval: undefined,
  vaultReadable: true,
};

describe('a process server', () => {
  test.each<[object, Partial<ProcessServerStatusInput>]>([
    [{ Ready: 'True/Succeeded' }, {}],
    [
      { Accepted: 'False/NameTaken', Stalled: 'True/NameTaken' },
      { acceptance: { reason: 'NameTaken', message: 'm' } },
    ],
    [
      { Enrolled: 'False/Pending' },
      { replicas: [{ name: 'ps', registered: false, reported: undefined }] },
    ],
    [
      { HeartbeatCurrent: 'False/NeverSeen' },
      { replicas: [{ name: 'ps', registered: true, reported: undefined }] },
    ],
    [{ HeartbeatCurrent: 'False/HeartbeatMissing' }, { vaultNowMs: now + 60_000 }],
    // A clock that is wrong by an hour is not an hour of silence.
    [
      { HeartbeatCurrent: 'True/HeartbeatSeen' },
      {
        replicas: [
          {
            name: 'ps',
            registered: true,
            reported: { ...reported, heartbeatMs: now - 3_601_000, clockOffsetMs: -3_600_000 },
          },
        ],
      },
    ],
    [
      { CacheHasRoom: 'False/CacheNearlyFull' },
      {
        replicas: [
          {
            name: 'ps',
            registered: true,
            reported: { ...reported, cache: { totalBytes: 100, freeBytes: 9 } },
          },
        ],
      },
    ],
    [
      { AssignmentsCurrent: 'False/RemovalNotConfirmed', Stalled: 'True/RemovalNotConfirmed' },
      { pendingRemoval: { token: 't', machines: ['a'] } },
    ],
    [{ AssignmentsCurrent: 'Unknown/Pending' }, { assignments: undefined }],
    [{ Ready: 'False/Draining' }, { deletion: { reason: 'Draining', message: 'm' } }],
  ])('%o', (expected, change) => {
    const shown = showProcessServer({ ...healthy, ...change });
    expect(
      Object.fromEntries(shown.conditions.map((one) => [one.type, `${one.status}/${one.reason}`])),
    ).toMatchObject(expected);
  });

  test('shows the heartbeat of the replica that was silent longest, and none while one never reported', () => {
    const older = { ...reported, heartbeatMs: now - 9_000 };
    const two = (second: ProcessServerStatus | undefined) =>
      showProcessServer({
        ...healthy,
        replicas: [...healthy.replicas, { name: 'ps-1', registered: true, reported: second }],
      }).status.heartbeatTime;
    expect(two(older)).toBe(new Date(now - 9_000).toISOString());
    expect(two(undefined)).toBeUndefined();
  });
});
