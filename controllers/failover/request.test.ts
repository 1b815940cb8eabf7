import { expect, test } from 'vitest';
import type { Failover } from '../../crds/index.ts';
import { failover, protectedVM, recoveryVault } from '../../test/operator/manifests.ts';
import type { FailoverRequest } from '../../vault/documents/failover.ts';
import { requestOf } from './request.ts';

const vault = recoveryVault({ recipients: [] });

function requested(spec: Partial<Failover['spec']>): FailoverRequest {
  return requestOf({
    failover: failover('move', spec),
    machine: protectedVM('web', {
      target: {
        ...protectedVM().spec.target,
        name: 'web-in-azure',
        nics: [{ ip: '10.0.0.9' }],
      },
    }),
    machineId: 'b'.repeat(32),
    vault,
  });
}

test('a Failover is entered with its machine, and the target as it is now', () => {
  expect(requested({})).toMatchObject({
    type: 'Unplanned',
    machineId: 'b'.repeat(32),
    machineName: 'web',
    target: { name: 'web-in-azure', nics: [{ network: 'production', privateIp: '10.0.0.9' }] },
  });
});

test.each<[Failover['spec']['type'], string, string | undefined]>([
  ['Unplanned', 'production', '10.0.0.9'],
  ['Planned', 'production', '10.0.0.9'],
  ['Test', 'test', undefined],
])('%s is brought up in the %s network', (type, network, privateIp) => {
  const [nic] = requested({ type }).target.nics;
  expect([nic?.network, nic?.privateIp]).toEqual([network, privateIp]);
});

test.each<[Failover['spec']['recoveryPoint'], FailoverRequest['recoveryPoint']]>([
  [{ type: 'Latest' }, { type: 'Latest' }],
  [{ type: 'LatestProcessed' }, { type: 'LatestProcessed' }],
  [
    { type: 'Time', time: '2026-01-01T10:00:00+02:00' },
    { type: 'Time', timeMs: Date.UTC(2026, 0, 1, 8) },
  ],
  [
    { type: 'Name', name: '77' },
    { type: 'Name', name: '77' },
  ],
])('the recovery point of %o', (recoveryPoint, expected) => {
  expect(requested({ recoveryPoint }).recoveryPoint).toEqual(expected);
});

test.each<[string, Partial<Failover['spec']>, boolean]>([
  ['Planned that says nothing', { type: 'Planned' }, true],
  ['Planned that says so', { type: 'Planned', powerOffSource: true }, true],
  ['Planned that says not to', { type: 'Planned', powerOffSource: false }, false],
  ['Unplanned', { type: 'Unplanned' }, false],
  ['Test', { type: 'Test' }, false],
])('the source is powered off by a %s: %s', (_, spec, expected) => {
  expect(requested(spec).powerOffSource).toBe(expected);
});

test.each(['Full', 'None'] as const)('the disks are verified as asked: %s', (verify) => {
  expect(requested({ verify }).verify).toBe(verify);
});

test('the health check is the text and the patience that are asked for, and none when none is', () => {
  expect(requested({})).not.toHaveProperty('healthCheck');
  const serialConsole = { contains: 'login:', timeout: '2m' };
  expect(requested({ healthCheck: { serialConsole } }).healthCheck).toEqual({
    serialContains: 'login:',
    timeoutSeconds: 120,
  });
});
