/** Failovers as the operator sees them: accepted once, run from the ledger, decided, stopped. The steps are scripted. */
import { describe, expect } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Catalog } from '../../vault/catalog.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { test } from './failoverSite.ts';
import { create, failover, named } from './manifests.ts';
import { untilCondition } from './waiting.ts';

const type = farshoreTypes.failover;

describe('a failover', () => {
  test('runs its steps, rests, and is committed when somebody says so', async ({ site, world }) => {
    const { kube } = world;
    site.operate();
    await site.prepare();
    await create(kube, failover('move'));
    const up = await site.untilPhase('move', 'FailedOver');
    expect(up.status?.steps?.map((step) => step.state)).not.toContain('Pending');
    expect(site.recovery.done).toContain('SealJournal');
    await untilCondition(kube, type, named('move'), { type: 'FailedOver', status: 'True' });
    const steps = site.recovery.done.length;
    await systemClock.sleep(300);
    expect(site.recovery.done).toHaveLength(steps);
    await site.desire('move', 'Committed');
    await site.untilPhase('move', 'Committed');
    await untilCondition(kube, type, named('move'), { type: 'Committed', status: 'True' });
  });

  test('goes on where it was after the operator died in a step', async ({ site, world }) => {
    const { kube } = world;
    const first = site.operate();
    await site.prepare();
    const release = site.recovery.hold('CreateVm');
    await create(kube, failover('move'));
    await site.untilStep('move', 'CreateVm');
    await first.stop();
    release();
    site.operate();
    await site.untilPhase('move', 'FailedOver');
    expect(new Set(site.recovery.done).size).toBe(site.recovery.done.length);
  });

  test('of a machine that is in one never begins, not even when that one has ended', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    const machineId = await site.prepare();
    await create(kube, failover('first', { type: 'Test' }));
    await site.untilPhase('first', 'FailedOver');
    await create(kube, failover('second'));
    const condition = await untilCondition(kube, type, named('second'), {
      type: 'Accepted',
      status: 'False',
      reason: 'MachineBusy',
    });
    expect(condition.message).toContain('first');
    await site.desire('first', 'CleanedUp');
    await site.untilPhase('first', 'CleanedUp');
    await systemClock.sleep(300);
    await site.untilPhase('second', 'Rejected');
    expect(await LedgerEntry.read(objects, 'second')).toBeUndefined();
    await new Catalog({ store: objects }).update(machineId, (entry) => ({
      ...entry,
      activeFailover: 'elsewhere',
    }));
    await create(kube, failover('third'));
    await untilCondition(kube, type, named('third'), {
      type: 'Accepted',
      status: 'False',
      reason: 'MachineBusy',
    });
  });

  test('stops when another installation takes control of the vault', async ({ site, world }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepare();
    const release = site.recovery.hold('CreateNics');
    await create(kube, failover('move'));
    await site.untilStep('move', 'CreateNics');
    const stored = await objects.get(vaultLayout.controller);
    const controller = JSON.parse(new TextDecoder().decode(stored?.body)) as object;
    await objects.put(
      vaultLayout.controller,
      new TextEncoder().encode(
        JSON.stringify({ ...controller, installationId: 'f'.repeat(32), controllerEpoch: 2 }),
      ),
    );
    await untilCondition(kube, farshoreTypes.recoveryVault, named('vault'), {
      type: 'InControl',
      status: 'False',
    });
    release();
    await systemClock.sleep(300);
    expect(site.recovery.done).not.toContain('CreateVm');
  });
});
