/** An operator that has just started: what it has not read yet must not count as not being there. */
import { expect } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import type { OperatorDeps } from '../../operator/operator.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { create, failover, named } from './manifests.ts';
import { test } from './memoryWorld.ts';
import { machineReport, reportStatus } from './peers.ts';
import { untilCondition } from './waiting.ts';

test('a Planned Failover that arrives before the first look at the vault has ended is not refused for lack of an agent', async ({
  world,
}) => {
  const { kube, objects } = world;
  const operator = world.operate({ runFailover: underWay });
  await world.createAll();
  const { protectedVM: machines, failover: failovers } = farshoreTypes;
  await untilCondition(kube, machines, named('web'), { type: 'Accepted', status: 'True' });
  const machineId = await world.machineIdOf();
  await operator.stop();
  await reportStatus(objects, 'ps', [
    machineReport(machineId, {
      uploadedBarrier: { lsn: 12n, timeMs: systemClock.now(), consistency: 'Crash' },
    }),
  ]);

  // The first time that its successor reads what the process server said, the answer takes a while.
  const slow = vaultLayout.processServerStatus('ps');
  objects.interleave = async (operation, key) => {
    if (operation !== 'get' || key !== slow) return;
    objects.interleave = undefined;
    await create(kube, failover('move', { type: 'Planned' }));
    await systemClock.sleep(500);
  };
  world.operate({ runFailover: underWay });
  const accepted = { type: 'Accepted', status: 'True' } as const;
  const { reason } = await untilCondition(kube, failovers, named('move'), accepted);
  expect(reason).toBe('Accepted');
});

/** Accepted, and under way until the end. */
const underWay: OperatorDeps['runFailover'] = async (_name, _deps, { signal }) => {
  await systemClock.sleep(60_000, signal);
  throw new Error('nobody ended it');
};
