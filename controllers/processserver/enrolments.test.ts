import { expect, test } from 'vitest';
import type { Condition } from '../../platform/kubernetes.ts';
import { processServer, protectedVM } from '../../test/operator/manifests.ts';
import { refuseMachine } from './enrolments.ts';

function refusalFor(accepted: Pick<Condition, 'status' | 'reason'> | undefined) {
  const machine = protectedVM();
  if (accepted !== undefined)
    machine.status = {
      machineId: 'ab'.repeat(16),
      conditions: [
        {
          type: 'Accepted',
          message: 'Why.',
          lastTransitionTime: '2026-01-01T00:00:00Z',
          ...accepted,
        },
      ],
    };
  const request = { kind: 'agent', name: 'web', requestedAt: 0, csrPem: '' } as const;
  return refuseMachine({ request, machine, server: processServer() })?.code;
}

test('an agent that asks before its machine was looked at, or while its vault is opened, is told to ask again', () => {
  expect(refusalFor(undefined)).toBe('NotReady');
  expect(refusalFor({ status: 'Unknown', reason: 'Pending' })).toBe('NotReady');
  expect(refusalFor({ status: 'False', reason: 'VaultNotReady' })).toBe('NotReady');
});

test('an agent of a machine that somebody must correct first is refused for good', () => {
  expect(refusalFor({ status: 'False', reason: 'NameTaken' })).toBe('MachineNotAccepted');
});

test('an agent of a machine that is accepted is not refused', () => {
  expect(refusalFor({ status: 'True', reason: 'Accepted' })).toBeUndefined();
});
