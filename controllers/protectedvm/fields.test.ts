import { describe, expect, test } from 'vitest';
import type { ProtectedVMStatus } from '../../crds/index.ts';
import {
  catalogEntry as catalog,
  GIB,
  machineStatus as machine,
  now,
  replicating,
} from '../../test/fixtures/statusInput.ts';
import { fieldsOf } from './fields.ts';
import { show } from './status.ts';
import type { StatusInput } from './statusInput.ts';

const input = replicating;
const ago = (seconds: number) => new Date(now - seconds * 1000).toISOString();

function shown(change: Partial<StatusInput> = {}) {
  return fieldsOf({ ...input, ...change }, now - 30_000);
}

test('everything that is reported of a machine is shown', () => {
  expect(shown()).toEqual({
    machineId: machine.machineId,
    activeSide: 'Source',
    offeredDisks: [{ device: '/dev/sda', sizeBytes: GIB, description: 'gpt' }],
    disks: [
      { name: 'system', index: 0, sizeBytes: GIB },
      { name: 'data', index: 1, sizeBytes: 2 * GIB, error: 'the device is gone' },
    ],
    agent: {
      connected: true,
      lastSeen: ago(2),
      version: '1.2.3',
      hostname: 'web.shop.example',
      kernel: '6.1.0-30-cloud-amd64',
    },
    positions: {
      captured: '50',
      journaled: '40',
      uploaded: '30',
      applied: '28',
      recoveryPoint: '30',
    },
    bytesBehind: { agent: 4_096, cache: 8_192, applier: 12_288 },
    initialReplication: { percent: 100, etaSeconds: 0, finishedAt: ago(30) },
    lastBarrierTime: ago(30),
    barriers: {
      count: 7,
      voided: 2,
      lastFreezeMs: 12,
      maxFreezeMs: 41,
      lastVoid: 'HookFailed: 10-flush ended with 1',
    },
    recoveryPoints: {
      count: 9,
      oldestTime: ago(3_600),
      newestCrash: { name: '30', lsn: '30', time: ago(30) },
      newestApp: { name: '10', lsn: '10', time: ago(3_600) },
      recent: [
        { name: '30', lsn: '30', time: ago(30), consistency: 'Crash' },
        { name: '10', lsn: '10', time: ago(3_600), consistency: 'App' },
      ],
    },
    resyncToken: '2026-01-01',
  });
});

test('nothing is shown of what nobody reported', () => {
  const nobody = { machine: undefined, applied: undefined, points: undefined };
  const unknown = { catalog: undefined, offeredDisks: undefined };
  expect(fieldsOf({ ...input, ...nobody, ...unknown }, undefined)).toEqual({});
});

test('a machine that runs in Azure, and the failover that has it, are shown', () => {
  const moved = { ...catalog, activeSide: 'Azure' as const, activeFailover: 'move' };
  expect(shown({ catalog: moved })).toMatchObject({ activeSide: 'Azure', activeFailover: 'move' });
  expect(shown()).not.toHaveProperty('activeFailover');
});

test('an agent that went away is shown as it was last heard of', () => {
  const { lastSeenMs = 0 } = machine.agent;
  const gone = { ...machine, agent: { connected: false, lastSeenMs } };
  expect(shown({ machine: gone }).agent).toEqual({ connected: false, lastSeen: ago(2) });
});

test('the applier’s newest point stands in while no point could be listed', () => {
  expect(shown({ points: undefined }).positions?.recoveryPoint).toBe('20');
  expect(shown({ points: undefined, applied: undefined }).positions).toEqual({
    captured: '50',
    journaled: '40',
    uploaded: '30',
  });
});

describe('progress', () => {
  const running = {
    bytesTotal: 100 * GIB,
    bytesDone: 25 * GIB,
    bytesSent: 4 * GIB,
    startedMs: now - 60_000,
    bytesPerSecond: 0.5 * GIB,
  };
  const unreplicated: Partial<StatusInput> = {
    points: {
      count: 0,
      oldest: undefined,
      recent: [],
      newestCrash: undefined,
      newestApp: undefined,
    },
  };
  const expected = {
    bytesTotal: 100 * GIB,
    bytesDone: 25 * GIB,
    bytesSent: 4 * GIB,
    percent: 25,
    bytesPerSecond: 0.5 * GIB,
    etaSeconds: 150,
    startedAt: ago(60),
  };

  test('of an initial replication says how far, how fast, since when and how long still', () => {
    const resync = { ...running, reason: 'Initial' as const };
    const fields = shown({ ...unreplicated, machine: { ...machine, resync } });
    expect(fields.initialReplication).toEqual(expected);
    expect(fields.resync).toBeUndefined();
  });

  test('of a resync is shown beside the initial replication, which stays', () => {
    const resync = { ...running, reason: 'TrackingLost' as const };
    const before: ProtectedVMStatus = { initialReplication: { percent: 100, finishedAt: ago(9) } };
    const fields = shown({ machine: { ...machine, resync }, before });
    expect(fields.resync).toEqual({ reason: 'TrackingLost', ...expected });
    expect(fields.initialReplication).toEqual(before.initialReplication);
  });

  test('of a resync that ended is gone', () => {
    expect(shown({ before: { resync: { reason: 'Manual' } } })).not.toHaveProperty('resync');
  });

  test('of an initial replication that the agent tells to have ended is what it cost', () => {
    const lastResync = {
      reason: 'Initial' as const,
      bytesTotal: 100 * GIB,
      bytesSent: 4 * GIB,
      startedMs: now - 100_000,
      finishedMs: now - 50_000,
    };
    expect(shown({ machine: { ...machine, lastResync } }).initialReplication).toEqual({
      bytesTotal: 100 * GIB,
      bytesDone: 100 * GIB,
      bytesSent: 4 * GIB,
      percent: 100,
      bytesPerSecond: 2 * GIB,
      etaSeconds: 0,
      startedAt: ago(100),
      finishedAt: ago(50),
    });
  });
});

test('what a machine tells at length is cut to what the API takes', () => {
  const long = 'x'.repeat(70_000);
  const fields = shown({
    offeredDisks: [{ device: long, sizeBytes: 1, description: long }],
    machine: {
      ...machine,
      agent: { connected: true, version: long, hostname: long, kernel: long },
      disks: [{ index: 0, sizeBytes: 1, error: long }],
      barriers: { ...machine.barriers, lastVoid: long },
      resyncToken: long,
    },
  });
  const lengths = (value: unknown) =>
    Object.values(value ?? {}).map((one) => (typeof one === 'string' ? one.length : one));
  expect(lengths(fields.offeredDisks?.[0])).toEqual([1024, 1, 4096]);
  expect(lengths(fields.agent)).toEqual([true, 128, 256, 256]);
  expect(fields.disks?.[0]?.error).toHaveLength(4096);
  expect(fields.barriers?.lastVoid).toHaveLength(4096);
  expect(fields.resyncToken).toHaveLength(63);
});

describe('the phase', () => {
  const resync = {
    reason: 'TrackingLost' as const,
    ...{ bytesTotal: 10, bytesDone: 1, bytesSent: 1, startedMs: now, bytesPerSecond: 1 },
  };
  const sound = {
    ...machine,
    disks: [],
    uploadedBarrier: { lsn: 30n, timeMs: now - 30_000, consistency: 'Crash' as const },
  };
  const first = {
    points: {
      count: 0,
      oldest: undefined,
      recent: [],
      newestCrash: undefined,
      newestApp: undefined,
    },
  };
  const objection = { reason: 'VaultNotFound', message: 'm' };

  test.each<[string, Partial<StatusInput>]>([
    ['Protected', {}],
    ['Deleting', { deletion: { reason: 'Draining', message: 'm' } }],
    ['Rejected', { acceptance: objection }],
    ['Waiting', { acceptance: { ...objection, reason: 'VaultNotReady' } }],
    ['InAzure', { catalog: { ...catalog, activeSide: 'Azure', activeFailover: 'move' } }],
    ['FailingOver', { catalog: { ...catalog, activeFailover: 'move' } }],
    ['Paused', { paused: true }],
    ['WaitingForAgent', { ...first, machine: undefined }],
    [
      'InitialReplication',
      { ...first, machine: { ...machine, resync: { ...resync, reason: 'Initial' } } },
    ],
    ['Resync', { machine: { ...sound, resync } }],
    ['Degraded', { machine: { ...sound, agent: { connected: false } } }],
    ['Degraded', { vaultNowMs: now + 3_600_000 }],
  ])('%s', (phase, change) => {
    expect(show({ ...input, machine: sound, ...change }).status.phase).toBe(phase);
  });
});
