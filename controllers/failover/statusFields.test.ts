import { describe, expect, test } from 'vitest';
import { failoverEntry } from '../../test/fixtures/failoverEntry.ts';
import type { FailoverDocument, FailoverStep } from '../../vault/documents/failover.ts';
import { type FailoverStatusInput, showFailover } from './status.ts';

const at = Date.UTC(2026, 0, 1);
const iso = (ms: number) => new Date(ms).toISOString();

const step = (name: FailoverStep['name'], change: Partial<FailoverStep> = {}): FailoverStep => ({
  name,
  state: 'Done',
  startedAt: at + 1_000,
  finishedAt: at + 2_000,
  attempts: 1,
  ...change,
});

function shown(change: Parameters<typeof failoverEntry>[0] = {}) {
  return showFailover({
    ...{ objection: undefined, final: false, deletion: undefined, adopted: false },
    ledger: failoverEntry({ acceptedAt: at, ...change }),
  });
}

const disk = {
  index: 0,
  name: 'system',
  sizeBytes: 1 << 30,
  root: 'c'.repeat(64),
  replica: { key: 'k', snapshot: 's' },
  copyKey: 'c',
  managedDisk: { name: 'd', id: '/disk' },
  rootMatches: true,
};
const up: Partial<FailoverDocument> = {
  outcome: 'FailedOver',
  point: { lsn: 77n, timeMs: at - 30_000, consistency: 'App' },
  disks: [disk],
  nics: [{ name: 'n', id: '/nic' }],
  vm: { name: 'v', id: '/vm' },
  rpoSeconds: 30.4,
  rtoSeconds: 61.6,
  health: { passedAt: at + 61_600, evidence: 'web login:' },
  steps: [step('Validate', { message: 'The target is valid.' }), step('HealthCheck')],
};

test('everything that the ledger holds of a failover that came up is shown', () => {
  const { status } = shown({ ...up, request: { machineId: 'b'.repeat(32) } });
  const { steps, ...fields } = status;
  expect(fields).toEqual({
    phase: 'FailedOver',
    machineId: 'b'.repeat(32),
    acceptedAt: iso(at),
    finishedAt: iso(at + 61_600),
    recoveryPoint: { name: '77', lsn: '77', time: iso(at - 30_000), consistency: 'App' },
    rpoSeconds: 30,
    rtoSeconds: 62,
    rootsMatch: true,
    vmId: '/vm',
    resources: ['/vm', '/nic', '/disk'],
    evidence: { serialConsole: 'web login:' },
  });
  expect(steps?.[0]).toEqual({
    name: 'Validate',
    state: 'Done',
    startedAt: iso(at + 1_000),
    finishedAt: iso(at + 2_000),
    message: 'The target is valid.',
  });
});

test('nothing is shown of what has not come yet', () => {
  const { steps, ...fields } = shown().status;
  expect(fields).toEqual({
    phase: 'Running',
    machineId: 'b'.repeat(32),
    acceptedAt: iso(at),
    resources: [],
  });
  expect(steps?.every((one) => one.state === 'Pending')).toBe(true);
});

describe('the steps', () => {
  const running = (progress: FailoverStep['progress']) =>
    shown({
      steps: [step('CopyDisks', { state: 'Running', finishedAt: undefined, progress })],
    }).status;

  test('that move bytes say how far, how fast and how long still', () => {
    const status = running({ bytesTotal: 1_000, bytesDone: 250, bytesPerSecond: 49.6 });
    expect(status.currentStep).toBe('CopyDisks');
    expect(status.steps?.find((one) => one.name === 'CopyDisks')).toEqual({
      name: 'CopyDisks',
      state: 'Running',
      startedAt: iso(at + 1_000),
      progress: {
        bytesTotal: 1_000,
        bytesDone: 250,
        percent: 25,
        bytesPerSecond: 50,
        etaSeconds: 16,
      },
    });
  });

  test('that do not move say no time, and those with nothing to move are done', () => {
    const of = (progress: NonNullable<FailoverStep['progress']>) =>
      running(progress).steps?.find((one) => one.name === 'CopyDisks')?.progress;
    expect(of({ bytesTotal: 10, bytesDone: 0, bytesPerSecond: 0 })).not.toHaveProperty(
      'etaSeconds',
    );
    expect(of({ bytesTotal: 0, bytesDone: 0, bytesPerSecond: 0 })?.percent).toBe(100);
  });

  test('leave VerifyDisks out where verify is None, and the condition says that nobody looked', () => {
    const unverified = shown({ ...up, disks: [], request: { verify: 'None' } });
    expect(unverified.status.steps?.map((one) => one.name)).not.toContain('VerifyDisks');
    expect(unverified.status).not.toHaveProperty('rootsMatch');
    expect(unverified.conditions.find((one) => one.type === 'Verified')).toMatchObject({
      status: 'Unknown',
      reason: 'NotVerified',
    });
    const names = shown({ ...up, request: { verify: 'Full' } }).status.steps;
    expect(names?.map((one) => one.name)).toContain('VerifyDisks');
  });

  test('that never came are Skipped once it failed', () => {
    const failure = { step: 'Validate' as const, code: 'SizeNotAvailable', message: 'm' };
    const failed = step('Validate', { state: 'Failed' });
    const { status } = shown({ outcome: 'Failed', failure, steps: [failed] });
    const states = new Set(status.steps?.slice(1).map((one) => one.state));
    expect(status.steps?.[0]?.state).toBe('Failed');
    expect([...states]).toEqual(['Skipped']);
    expect(status.finishedAt).toBe(iso(at + 2_000));
  });
});

test('disks of which one differs do not match, and what they were is kept in view', () => {
  const two = [disk, { ...disk, index: 1, rootMatches: false }];
  expect(shown({ ...up, disks: two }).status.rootsMatch).toBe(false);
  const unread = [disk, { ...disk, index: 1, rootMatches: undefined }];
  expect(shown({ ...up, disks: unread }).status).not.toHaveProperty('rootsMatch');
});

const failed: Partial<FailoverDocument> = {
  outcome: 'Failed',
  failure: { step: 'CreateVm', code: 'QuotaExceeded', message: 'm' },
};
const objection = { reason: 'MachineBusy', message: 'm' };

test.each<[string, string, Partial<FailoverDocument>, Partial<FailoverStatusInput>?]>([
  ['Accepted', 'True/Accepted', {}],
  ['Accepted', 'True/AdoptedFromLedger', {}, { adopted: true }],
  ['Accepted', 'False/MachineBusy', {}, { objection, ledger: undefined }],
  ['Accepted', 'Unknown/Pending', {}, { ledger: undefined }],
  ['FailedOver', 'True/AwaitingDecision', up],
  ['FailedOver', 'True/Committed', { ...up, outcome: 'Committed' }],
  ['FailedOver', 'False/Running', {}],
  ['FailedOver', 'False/QuotaExceeded', failed],
  ['FailedOver', 'False/CleanedUp', { outcome: 'CleanedUp' }],
  ['FailedOver', 'False/Pending', {}, { ledger: undefined }],
  ['Verified', 'True/RootsMatch', up],
  ['Verified', 'False/RootsDiffer', { disks: [{ ...disk, rootMatches: false }] }],
  ['Verified', 'Unknown/Pending', {}],
  ['Committed', 'True/Committed', { outcome: 'Committed' }],
  ['Committed', 'False/Pending', up],
  ['CleanedUp', 'True/CleanedUp', { outcome: 'CleanedUp' }],
  ['CleanedUp', 'False/Pending', up],
  ['Ready', 'True/AwaitingDecision', up],
  ['Ready', 'False/Running', {}],
  ['Ready', 'False/QuotaExceeded', failed],
  ['Reconciling', 'False/AwaitingDecision', up],
  ['Reconciling', 'True/Running', {}],
  ['Reconciling', 'True/MachineBusy', {}, { objection, ledger: undefined }],
  ['Reconciling', 'False/MachineBusy', {}, { objection, ledger: undefined, final: true }],
  ['Stalled', 'False/AwaitingDecision', up],
  ['Stalled', 'True/QuotaExceeded', failed],
  ['Stalled', 'True/MachineBusy', {}, { objection, ledger: undefined, final: true }],
])('%s is %s', (type, expected, change, more = {}) => {
  const found = showFailover({
    ...{ objection: undefined, final: false, deletion: undefined, adopted: false },
    ledger: failoverEntry({ acceptedAt: at, ...change }),
    ...more,
  }).conditions.find((one) => one.type === type);
  expect(`${found?.status}/${found?.reason}`).toBe(expected);
});
