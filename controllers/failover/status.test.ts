import { describe, expect, test } from 'vitest';
import type { FailoverDocument, FailoverStep } from '../../vault/documents/failover.ts';
import { type FailoverStatusInput, showFailover } from './status.ts';

const at = Date.UTC(2026, 0, 1);
const step = (name: FailoverStep['name'], change: Partial<FailoverStep> = {}): FailoverStep => ({
  name,
  state: 'Done',
  startedAt: at,
  finishedAt: at + 1_000,
  attempts: 1,
  ...change,
});
const disk = {
  index: 0,
  name: 'system',
  root: 'r',
  replica: { key: 'k', snapshot: 's' },
  copyKey: 'c',
  managedDisk: { name: 'd', id: '/disk' },
};
const ledger = {
  name: 'move',
  failoverId: 'f',
  namespace: 'default',
  uid: 'u',
  installationId: 'i',
  request: { type: 'Unplanned', machineId: 'm', machineName: 'web', verify: 'Full' },
  acceptedAt: at,
  outcome: 'Running',
  steps: [step('Validate')],
} as unknown as FailoverDocument;

function input(change: Partial<FailoverDocument>, more: Partial<FailoverStatusInput> = {}) {
  return {
    objection: undefined,
    final: false,
    deletion: undefined,
    adopted: false,
    ledger: { ...ledger, ...change },
    ...more,
  };
}

function conditions(of: FailoverStatusInput): Record<string, string> {
  return Object.fromEntries(
    showFailover(of).conditions.map((one) => [one.type, `${one.status}/${one.reason}`]),
  );
}

describe('a failover', () => {
  test('that runs shows what is done, what runs and what is to come', () => {
    const running = step('SealJournal', { state: 'Running', finishedAt: undefined });
    const { status } = showFailover(input({ steps: [step('Validate'), running] }));
    expect(status).toMatchObject({ phase: 'Running', currentStep: 'SealJournal' });
    expect(status.steps?.slice(0, 3).map((one) => [one.name, one.state])).toEqual([
      ['Validate', 'Done'],
      ['SealJournal', 'Running'],
      [expect.anything(), 'Pending'],
    ]);
    expect(status.finishedAt).toBeUndefined();
  });

  test.each<[object, Partial<FailoverDocument>]>([
    [{ Ready: 'False/Running', Stalled: 'False/Progressing' }, {}],
    [
      { Ready: 'False/QuotaExceeded', Stalled: 'False/Progressing' },
      { steps: [step('CreateVm', { state: 'Running', code: 'QuotaExceeded', message: 'm' })] },
    ],
    [
      { Ready: 'True/AwaitingDecision', FailedOver: 'True/AwaitingDecision' },
      { outcome: 'FailedOver' },
    ],
    [
      { Ready: 'True/Committed', Committed: 'True/Committed', FailedOver: 'True/Committed' },
      { outcome: 'Committed' },
    ],
    [
      { Ready: 'True/CleanedUp', CleanedUp: 'True/CleanedUp', FailedOver: 'False/CleanedUp' },
      { outcome: 'CleanedUp' },
    ],
    [
      { Ready: 'False/RootsDiffer', Stalled: 'True/RootsDiffer', Verified: 'False/RootsDiffer' },
      {
        outcome: 'Failed',
        failure: { step: 'VerifyDisks', code: 'RootsDiffer', message: 'm' },
        disks: [{ ...disk, rootMatches: false }],
      },
    ],
    [{ Verified: 'True/RootsMatch' }, { disks: [{ ...disk, rootMatches: true }] }],
    [{ Verified: 'Unknown/Pending' }, { disks: [{ ...disk, rootMatches: true }, disk] }],
    [{ Verified: 'Unknown/NotVerified' }, { request: { ...ledger.request, verify: 'None' } }],
  ])('%o', (expected, change) => {
    expect(conditions(input(change))).toMatchObject(expected);
  });

  test('that never begins is stalled, one that waits is not', () => {
    const refused = { ledger: undefined, objection: { reason: 'MachineBusy', message: 'm' } };
    expect(conditions(input({}, { ...refused, final: true })).Stalled).toBe('True/MachineBusy');
    expect(showFailover(input({}, { ...refused, final: true })).status.phase).toBe('Rejected');
    expect(conditions(input({}, refused)).Stalled).toBe('False/Progressing');
    expect(showFailover(input({}, refused)).status.phase).toBe('Waiting');
  });

  test('that was adopted says so', () => {
    expect(conditions(input({}, { adopted: true })).Accepted).toBe('True/AdoptedFromLedger');
  });

  test('names what is left in Azure, and nothing of what was removed', () => {
    const made = {
      disks: [disk],
      nics: [{ name: 'n', id: '/nic' }],
      vm: { name: 'v', id: '/vm' },
    };
    expect(showFailover(input(made)).status.resources).toEqual(['/vm', '/nic', '/disk']);
    const removed = showFailover(input({ ...made, steps: [step('RemoveVm'), step('RemoveNics')] }));
    expect(removed.status.resources).toEqual(['/disk']);
    expect(removed.status.vmId).toBeUndefined();
  });
});
