import { describe, expect, test } from 'vitest';
import { Reason } from '../../crds/index.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { firstObjection } from '../decisions.ts';
import {
  beginChecks,
  decideDesire,
  deletionObjection,
  type FailoverInput,
  isFinal,
  nameChecks,
} from './policies.ts';

const timeMs = Date.UTC(2026, 0, 1);
const point = { name: '5', lsn: 5n, timeMs, consistency: 'Crash' as const };
const points = {
  count: 1,
  oldest: point,
  recent: [point],
  newestCrash: point,
  newestApp: undefined,
};
const catalog = { activeSide: 'Source' } as CatalogDocument;
const ledger = {
  name: 'move',
  namespace: 'default',
  acceptedAt: timeMs,
  outcome: 'Running',
  request: { type: 'Unplanned', machineName: 'web' },
} as FailoverDocument;
const fine: FailoverInput = {
  name: 'move',
  namespace: 'default',
  spec: {
    type: 'Unplanned',
    machineRef: { name: 'web' },
    recoveryPoint: { type: 'Latest' },
    verify: 'Full',
  },
  machine: { exists: true, accepted: true, message: undefined },
  vault: { state: 'InControl' },
  vaultRef: 'default/vault',
  ledger: undefined,
  catalog,
  otherActive: undefined,
  agentConnected: true,
  points,
  namedPointExists: false,
  hasBarrier: true,
};
const at = (recoveryPoint: FailoverInput['spec']['recoveryPoint']) => ({
  spec: { ...fine.spec, recoveryPoint },
});
const none = { points: { ...points, count: 0, oldest: undefined } };

describe('beginning', () => {
  test.each<[string | undefined, Partial<FailoverInput>]>([
    [undefined, {}],
    [Reason.NotInControl, { vault: { state: 'Standby', holder: 'them' } }],
    [Reason.DependencyNotReady, { machine: { exists: true, accepted: false, message: 'm' } }],
    [Reason.DependencyNotReady, { catalog: undefined }],
    [Reason.MachineBusy, { otherActive: 'other' }],
    [undefined, { otherActive: 'move' }],
    [Reason.ActiveInAzure, { catalog: { ...catalog, activeSide: 'Azure' } }],
    [Reason.NoPoint, { ...none, hasBarrier: false }],
    [undefined, none],
    [Reason.NoPoint, { ...none, ...at({ type: 'LatestProcessed' }) }],
    [Reason.PointNotFound, at({ type: 'Name', name: '9' })],
    [undefined, { ...at({ type: 'Name', name: '5' }), namedPointExists: true }],
    [Reason.NoPoint, at({ type: 'Time', time: '2025-12-31T23:59:59Z' })],
    [undefined, at({ type: 'Time', time: '2026-01-01T00:00:00Z' })],
    [Reason.AgentDisconnected, { spec: { ...fine.spec, type: 'Planned' }, agentConnected: false }],
  ])('%s', (reason, change) => {
    expect(firstObjection(beginChecks, { ...fine, ...change })?.reason).toBe(reason);
  });

  test('what would surprise people later is refused for good; what is only not ready yet is not', () => {
    for (const reason of [Reason.MachineBusy, Reason.PointNotFound, Reason.ActiveInAzure])
      expect(isFinal({ reason })).toBe(true);
    for (const reason of [Reason.VaultNotReady, Reason.NotInControl, Reason.DependencyNotReady])
      expect(isFinal({ reason })).toBe(false);
  });
});

describe('a name', () => {
  test.each<[string | undefined, Partial<FailoverInput>]>([
    [undefined, { ledger }],
    [Reason.MachineNotFound, { machine: { exists: false, accepted: false, message: undefined } }],
    [Reason.VaultNotReady, { vault: { state: 'NotOpen', message: 'm' } }],
    [Reason.NameTaken, { ledger: { ...ledger, namespace: 'other' } }],
    [
      Reason.NameTaken,
      { ledger: { ...ledger, request: { ...ledger.request, machineName: 'another' } } },
    ],
  ])('%s', (reason, change) => {
    expect(firstObjection(nameChecks, { ...fine, ...change })?.reason).toBe(reason);
  });
});

describe('what people want', () => {
  test.each([
    ['Committed', 'Unplanned', 'Committed', false, undefined],
    [undefined, 'Unplanned', 'CleanedUp', false, undefined],
    ['CleanedUp', 'Test', 'CleanedUp', false, undefined],
    [undefined, 'Test', 'Committed', false, undefined],
    ['CleanedUp', 'Test', undefined, true, undefined],
    [undefined, 'Unplanned', undefined, true, undefined],
    // Forward only: what was decided stays decided.
    [undefined, 'Unplanned', 'Committed', false, 'Committed'],
  ] as const)('%s of a %s failover', (expected, type, desiredState, deleted, desired) => {
    const spec = desiredState === undefined ? {} : { desiredState };
    const request = { ...ledger.request, type };
    const entry = { ...ledger, request, ...(desired === undefined ? {} : { desired }) };
    expect(decideDesire(spec, entry, { deleted })).toBe(expected);
  });
});

describe('deletion', () => {
  const of = (type: 'Test' | 'Unplanned', outcome: FailoverDocument['outcome']) =>
    ({ ...ledger, outcome, request: { ...ledger.request, type } }) as FailoverDocument;
  test.each([
    [undefined, undefined, true],
    [Reason.Deleting, of('Test', 'FailedOver'), true],
    [undefined, of('Test', 'CleanedUp'), true],
    [undefined, of('Test', 'Failed'), true],
    [Reason.DeletionBlocked, of('Unplanned', 'Running'), true],
    [undefined, of('Unplanned', 'Running'), false],
    [undefined, of('Unplanned', 'FailedOver'), true],
  ])('%s', (reason, entry, inControl) => {
    expect(deletionObjection(entry, inControl)?.reason).toBe(reason);
  });
});
