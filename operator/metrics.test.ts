import { describe, expect, test } from 'vitest';
import { Figures } from '../controllers/openvaults/figures.ts';
import { operatorMetrics } from './metrics.ts';

describe('metrics', () => {
  test('the RPO rises between scrapes although nobody reports, and goes with its machine', async () => {
    const figures = new Figures();
    const metrics = operatorMetrics({ figures, queueDepths: () => ({ machines: 3 }) });
    let now = 100_000;
    const name = { namespace: 'default', name: 'web' };
    figures.machines.set(name, {
      durableMs: 40_000,
      newestPointMs: undefined,
      rpoThresholdSeconds: 900,
      vaultNow: () => now,
      lsn: { captured: 12n },
      bytesBehind: { agent: 4096 },
      initialReplicationRatio: 0.25,
    });
    const scrape = () => metrics.registry.metrics();
    expect(await scrape()).toContain('farshore_rpo_seconds{namespace="default",machine="web"} 60');
    now += 5_000;
    const text = await scrape();
    expect(text).toContain('farshore_rpo_seconds{namespace="default",machine="web"} 65');
    expect(text).toContain('farshore_rpo_threshold_seconds{namespace="default",machine="web"} 900');
    expect(text).toContain('position="captured"} 12');
    expect(text).toContain('stage="agent"} 4096');
    expect(text).toContain(
      'farshore_initial_replication_ratio{namespace="default",machine="web"} 0.25',
    );
    expect(text).not.toContain('farshore_recovery_point_age_seconds{');
    expect(text).toContain('farshore_queue_depth{controller="machines"} 3');
    figures.machines.remove(name);
    expect(await scrape()).not.toContain('machine="web"');
  });

  test('reconciles are counted by controller, errors by code', async () => {
    const metrics = operatorMetrics({ figures: new Figures(), queueDepths: () => ({}) });
    metrics.observeReconcile({ controller: 'vaults', seconds: 0.2 });
    metrics.observeReconcile({ controller: 'vaults', seconds: 0.2, error: 'VaultUnreachable' });
    const text = await metrics.registry.metrics();
    expect(text).toContain('farshore_reconcile_duration_seconds_count{controller="vaults"} 2');
    expect(text).toContain(
      'farshore_reconcile_errors_total{controller="vaults",code="VaultUnreachable"} 1',
    );
  });
});
