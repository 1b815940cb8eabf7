/** Failovers that are deleted: they go when nothing of theirs is left to anybody's care. The steps are scripted. */
import { describe, expect } from 'vitest';
import { type Failover, farshoreTypes } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { test } from './failoverSite.ts';
import { create, failover, named } from './manifests.ts';
import { untilCondition } from './waiting.ts';

const type = farshoreTypes.failover;

describe('a failover', () => {
  test('a Test that is deleted goes only when everything that it made is removed', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepare();
    await create(kube, failover('drill', { type: 'Test' }));
    await site.untilPhase('drill', 'FailedOver');
    const release = site.recovery.hold('RemoveVm');
    await kube.remove(type, named('drill'));
    await site.untilPhase('drill', 'Deleting');
    await systemClock.sleep(200);
    expect(kube.peek(type, named('drill'))).toBeDefined();
    release();
    await world.untilGone(type, 'drill');
    expect((await LedgerEntry.read(objects, 'drill'))?.document.outcome).toBe('CleanedUp');
  });

  test('a Test that failed its health check and is deleted goes only when its machine is removed', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepare();
    site.recovery.failing.add('HealthCheck');
    await create(kube, failover('drill', { type: 'Test' }));
    await site.untilPhase('drill', 'Failed');
    const release = site.recovery.hold('RemoveVm');
    await kube.remove(type, named('drill'));
    await site.untilPhase('drill', 'Deleting');
    await systemClock.sleep(200);
    expect(kube.peek(type, named('drill'))).toBeDefined();
    release();
    await world.untilGone(type, 'drill');
    expect(site.recovery.done).toContain('RemoveDisks');
    expect((await LedgerEntry.read(objects, 'drill'))?.document.outcome).toBe('CleanedUp');
  });

  test('a Test that is deleted while its vault does not allow its namespace is held: nobody could clean up', async ({
    site,
    world,
  }) => {
    const { kube } = world;
    site.operate();
    await site.prepareOther();
    await create(kube, failover('drill', { type: 'Test', machineRef: { name: 'db' } }, 'other'));
    await site.untilPhase('drill', 'FailedOver', { namespace: 'other' });
    await site.allow([]);
    await untilCondition(kube, type, named('drill', 'other'), {
      type: 'Accepted',
      status: 'False',
      reason: 'VaultNotAllowed',
    });
    await kube.remove(type, named('drill', 'other'));
    await untilCondition(kube, type, named('drill', 'other'), {
      type: 'Ready',
      status: 'False',
      reason: 'VaultNotAllowed',
    });
    await site.allow(['other']);
    await world.untilGone(type, 'drill', 'other');
    expect(site.recovery.done).toContain('RemoveVm');
  });

  test('that was accepted by an operator which died before it said so is not let go unread', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    const first = site.operate();
    await site.prepare();
    await create(kube, failover('drill', { type: 'Test' }));
    await site.untilPhase('drill', 'FailedOver');
    await first.stop();
    // As if the operator had died between the ledger and the status.
    const { status: _, ...unseen } = kube.peek<Failover>(type, named('drill')) as Failover;
    kube.seed(type, unseen);
    await kube.remove(type, named('drill'));
    objects.fault = () => ({ when: 'before', error: new StoreError('VaultUnreachable', 'gone.') });
    site.operate();
    await untilCondition(kube, type, named('drill'), {
      type: 'Ready',
      status: 'False',
      reason: 'VaultNotReady',
    });
    objects.fault = undefined;
    await world.untilGone(type, 'drill');
    expect((await LedgerEntry.read(objects, 'drill'))?.document.outcome).toBe('CleanedUp');
  });

  test('that is deleted while it runs ends first, and is let go by force at once', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepare();
    const release = site.recovery.hold('ImportDisks');
    await create(kube, failover('move'));
    await site.untilStep('move', 'ImportDisks');
    await kube.remove(type, named('move'));
    await untilCondition(kube, type, named('move'), {
      type: 'Ready',
      status: 'False',
      reason: 'DeletionBlocked',
    });
    await kube.patch(type, named('move'), {
      merge: { metadata: { annotations: { 'farshore.dev/force-delete': '' } } },
    });
    await world.untilGone(type, 'move');
    expect((await LedgerEntry.read(objects, 'move'))?.document.outcome).toBe('Running');
    release();
  });
});
