import { describe, expect } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { test } from './failoverSite.ts';
import { create, failover, named } from './manifests.ts';
import { eventually } from './waiting.ts';

describe('the metrics of a failover', () => {
  test('count its steps as they run, and are gone with it', async ({ site, world }) => {
    const { operator } = site.operate();
    await site.prepare();
    const release = site.recovery.hold('CreateVm');
    await create(world.kube, failover('move'));
    await site.untilStep('move', 'CreateVm');
    const countOf = async (state: string) => {
      const text = await operator.metrics.registry.metrics();
      const labels = `namespace="default",failover="move",type="Unplanned",state="${state}"`;
      const line = text
        .split('\n')
        .find((one) => one.includes(`farshore_failover_steps{${labels}}`));
      return line === undefined ? undefined : Number(line.split(' ').at(-1));
    };
    const before = site.recovery.done.length;
    expect(before).toBeGreaterThan(5);
    await eventually(async () => {
      expect(await countOf('Running')).toBe(1);
      expect(await countOf('Done')).toBe(before);
      expect(await countOf('Failed')).toBe(0);
    });
    release();
    await site.untilPhase('move', 'FailedOver');
    await eventually(async () => {
      expect(await countOf('Running')).toBe(0);
      expect(await countOf('Done')).toBe(site.recovery.done.length);
    });
    await world.kube.remove(farshoreTypes.failover, named('move'));
    await world.untilGone(farshoreTypes.failover, 'move');
    await eventually(async () => expect(await countOf('Done')).toBeUndefined());
  });
});
