import { expect, test } from 'vitest';
import type { ProcessServerStatus } from '../../vault/documents/processServerStatus.ts';
import { type ProcessServerStatusInput, showProcessServer } from './status.ts';

const now = Date.UTC(2026, 0, 1);
const iso = (ms: number) => new Date(ms).toISOString();
const reported: ProcessServerStatus = {
  name: 'ps-0',
  version: '1.2.3',
  formatVersion: 1,
  heartbeatMs: now - 1_000,
  clockOffsetMs: -12.4,
  cache: { totalBytes: 4_000, freeBytes: 3_000, oldestNotUploadedMs: now - 9_000 },
  throughput: { inBytesPerSecond: 70.4, outBytesPerSecond: 50.6 },
  uploadLimitBytesPerSecond: 1_250,
  endpoints: ['ps.example:9443'],
  machines: [],
};
const input: ProcessServerStatusInput = {
  vaultNowMs: now,
  acceptance: undefined,
  deletion: undefined,
  replicas: [
    { name: 'ps-0', registered: true, reported },
    { name: 'ps-1', registered: false, reported: undefined },
  ],
  selector: 'app=ps',
  bootstrapSecretName: 'ps-bootstrap',
  machines: 3,
  assignments: { controllerEpoch: 2, generation: 7 },
  assignmentsTrouble: undefined,
  pendingRemoval: undefined,
  vaultReadable: true,
};

test('everything that is known of a process server and its replicas is shown', () => {
  expect(showProcessServer(input).status).toEqual({
    replicas: 2,
    selector: 'app=ps',
    machines: 3,
    bootstrapSecretName: 'ps-bootstrap',
    assignments: { controllerEpoch: 2, generation: 7 },
    replicaStatuses: [
      {
        name: 'ps-0',
        heartbeatTime: iso(now - 1_000),
        version: '1.2.3',
        machines: 0,
        endpoints: ['ps.example:9443'],
        clockOffsetMs: -12,
        cache: { totalBytes: 4_000, freeBytes: 3_000, oldestNotUploadedTime: iso(now - 9_000) },
        uploadLimitBitsPerSecond: 10_000,
        throughput: { inBytesPerSecond: 70, outBytesPerSecond: 51 },
      },
      { name: 'ps-1' },
    ],
  });
});

test('nothing is shown of what is not known', () => {
  const unknown = { bootstrapSecretName: undefined, assignments: undefined, replicas: [] };
  expect(showProcessServer({ ...input, ...unknown, selector: '', machines: 0 }).status).toEqual({
    replicas: 0,
    selector: '',
    machines: 0,
    replicaStatuses: [],
  });
});

test('a removal that waits shows its token and its first hundred machines', () => {
  const machines = Array.from({ length: 101 }, (_, index) => `default/m${index}`);
  const { pendingRemoval } = showProcessServer({
    ...input,
    pendingRemoval: { token: 'abc', machines },
  }).status;
  expect(pendingRemoval).toEqual({ token: 'abc', machines: machines.slice(0, 100) });
});

test('what a replica tells at length is cut to what the API takes', () => {
  const long = 'x'.repeat(70_000);
  const told = { ...reported, version: long, endpoints: Array(40).fill(long) };
  const [shown] =
    showProcessServer({
      ...input,
      replicas: [{ name: 'ps-0', registered: true, reported: told }],
    }).status.replicaStatuses ?? [];
  expect(shown?.version).toHaveLength(128);
  expect(shown?.endpoints).toHaveLength(32);
  expect(shown?.endpoints?.[0]).toHaveLength(262);
});

const one = { name: 'ps-0', registered: true, reported };
const sound: Partial<ProcessServerStatusInput> = { replicas: [one] };
const unread = {
  vaultReadable: false,
  replicas: [{ ...one, registered: false, reported: undefined }],
};
const objection = { reason: 'NameTaken', message: 'm' };
const trouble = { reason: 'AssignmentsContended', message: 'm' };

test.each<[string, string, Partial<ProcessServerStatusInput>]>([
  ['Accepted', 'True/Accepted', sound],
  ['Accepted', 'False/NameTaken', { acceptance: objection }],
  ['Enrolled', 'True/CertificateIssued', sound],
  ['Enrolled', 'False/Pending', {}],
  ['Enrolled', 'Unknown/VaultNotReady', unread],
  ['HeartbeatCurrent', 'True/HeartbeatSeen', sound],
  ['HeartbeatCurrent', 'False/NeverSeen', {}],
  ['HeartbeatCurrent', 'False/HeartbeatMissing', { ...sound, vaultNowMs: now + 100_000 }],
  ['HeartbeatCurrent', 'Unknown/VaultNotReady', unread],
  ['CacheHasRoom', 'True/CacheFree', sound],
  [
    'CacheHasRoom',
    'False/CacheNearlyFull',
    { replicas: [{ ...one, reported: { ...reported, cache: { totalBytes: 100, freeBytes: 9 } } }] },
  ],
  ['CacheHasRoom', 'Unknown/NeverSeen', unread],
  ['AssignmentsCurrent', 'True/AssignmentsWritten', sound],
  ['AssignmentsCurrent', 'False/AssignmentsContended', { assignmentsTrouble: trouble }],
  [
    'AssignmentsCurrent',
    'False/RemovalNotConfirmed',
    { pendingRemoval: { token: 't', machines: ['default/web'] } },
  ],
  [
    'AssignmentsCurrent',
    'False/SignerUnknown',
    {
      replicas: [
        {
          ...one,
          reported: {
            ...reported,
            errors: [{ code: 'SignerUnknown', message: 'no such controller', sinceMs: now }],
          },
        },
      ],
    },
  ],
  ['AssignmentsCurrent', 'Unknown/Pending', { assignments: undefined }],
  ['Ready', 'True/Succeeded', sound],
  ['Ready', 'False/Pending', {}],
  ['Reconciling', 'False/Succeeded', sound],
  ['Reconciling', 'True/Pending', {}],
  ['Stalled', 'False/Succeeded', sound],
  ['Stalled', 'False/Progressing', {}],
  ['Stalled', 'True/NameTaken', { ...sound, acceptance: objection }],
])('%s is %s', (type, expected, change) => {
  const found = showProcessServer({ ...input, ...change }).conditions.find(
    (condition) => condition.type === type,
  );
  expect(`${found?.status}/${found?.reason}`).toBe(expected);
});
