import { expect, test } from 'vitest';
import { Figures } from '../controllers/openvaults/figures.ts';
import { operatorMetrics } from './metrics.ts';

const web = { namespace: 'default', name: 'web' };

/** Lines of one metric, as `labels value`, in order. */
async function samples(figures: Figures, metric: string): Promise<string[]> {
  const text = await operatorMetrics({ figures, queueDepths: () => ({}) }).registry.metrics();
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${metric}{`))
    .map((line) => line.slice(metric.length))
    .sort();
}

test('the age of the newest recovery point rises by the vault’s clock, apart from the RPO', async () => {
  const figures = new Figures();
  let now = 1_000_000;
  figures.machines.set(web, {
    durableMs: 990_000,
    newestPointMs: 700_500,
    rpoThresholdSeconds: 900,
    vaultNow: () => now,
    lsn: {},
    bytesBehind: {},
    initialReplicationRatio: undefined,
  });
  const labels = '{namespace="default",machine="web"}';
  const age = () => samples(figures, 'farshore_recovery_point_age_seconds');
  expect(await age()).toEqual([`${labels} 299.5`]);
  now += 60_000;
  expect(await age()).toEqual([`${labels} 359.5`]);
  expect(await samples(figures, 'farshore_rpo_seconds')).toEqual([`${labels} 70`]);
  // A clock that went back makes nothing younger than now.
  now = 600_000;
  expect(await age()).toEqual([`${labels} 0`]);
});

test('every position, and what waits at every stage, has its own value', async () => {
  const figures = new Figures();
  figures.machines.set(web, {
    durableMs: undefined,
    newestPointMs: undefined,
    rpoThresholdSeconds: 900,
    vaultNow: () => 0,
    lsn: { captured: 50n, journaled: 40n, uploaded: 30n, applied: 20n, recoveryPoint: 10n },
    bytesBehind: { agent: 4_096, cache: 8_192, applier: 12_288 },
    initialReplicationRatio: 0.5,
  });
  const machine = 'namespace="default",machine="web"';
  expect(await samples(figures, 'farshore_position_lsn')).toEqual([
    `{${machine},position="applied"} 20`,
    `{${machine},position="captured"} 50`,
    `{${machine},position="journaled"} 40`,
    `{${machine},position="recoveryPoint"} 10`,
    `{${machine},position="uploaded"} 30`,
  ]);
  expect(await samples(figures, 'farshore_behind_bytes')).toEqual([
    `{${machine},stage="agent"} 4096`,
    `{${machine},stage="applier"} 12288`,
    `{${machine},stage="cache"} 8192`,
  ]);
});

test('a process server’s cache and throughput are what it last reported, and its silence is counted', async () => {
  const figures = new Figures();
  let now = 200_000;
  figures.processServers.set(
    { namespace: 'default', name: 'ps' },
    {
      heartbeatMs: 197_500,
      vaultNow: () => now,
      machines: 12,
      cacheTotalBytes: 4_000,
      cacheFreeBytes: 3_000,
      inBytesPerSecond: 70,
      outBytesPerSecond: 50,
    },
  );
  const of = async (what: string) => {
    const name = `farshore_process_server_${what}`;
    const [line = ''] = await samples(figures, name);
    return line.replace('{namespace="default",process_server="ps"} ', '');
  };
  expect(await of('cache_total_bytes')).toBe('4000');
  expect(await of('cache_free_bytes')).toBe('3000');
  expect(await of('in_bytes_per_second')).toBe('70');
  expect(await of('out_bytes_per_second')).toBe('50');
  expect(await of('machines')).toBe('12');
  expect(await of('heartbeat_age_seconds')).toBe('2.5');
  now += 60_000;
  expect(await of('heartbeat_age_seconds')).toBe('62.5');
});

test('a failover’s steps are counted by state, and its RPO and RTO stand beside them once known', async () => {
  const figures = new Figures();
  const name = { namespace: 'default', name: 'move' };
  const running = { type: 'Planned', outcome: 'Running', rpoSeconds: undefined };
  const steps = { Running: 1, Done: 6, Failed: 0 };
  figures.failovers.set(name, { ...running, steps, rtoSeconds: undefined });
  const labels = 'namespace="default",failover="move",type="Planned"';
  expect(await samples(figures, 'farshore_failover_steps')).toEqual([
    `{${labels},state="Done"} 6`,
    `{${labels},state="Failed"} 0`,
    `{${labels},state="Running"} 1`,
  ]);
  expect(await samples(figures, 'farshore_failover_rto_seconds')).toEqual([]);
  expect(await samples(figures, 'farshore_failover_rpo_seconds')).toEqual([]);
  figures.failovers.set(name, {
    ...{ type: 'Planned', outcome: 'FailedOver', rpoSeconds: 0, rtoSeconds: 61.5 },
    steps: { Running: 0, Done: 12, Failed: 0 },
  });
  expect(await samples(figures, 'farshore_failover_rto_seconds')).toEqual([`{${labels}} 61.5`]);
  expect(await samples(figures, 'farshore_failover_rpo_seconds')).toEqual([`{${labels}} 0`]);
  figures.failovers.remove(name);
  expect(await samples(figures, 'farshore_failover_steps')).toEqual([]);
});
