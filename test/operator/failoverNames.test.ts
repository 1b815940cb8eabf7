/** A failover's name: whose it is in a vault that several resources, namespaces and clusters share. The steps are scripted. */
import { describe, expect } from 'vitest';
import { farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { type FailoverDocument, failoverDocumentSchema } from '../../vault/documents/failover.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { FakeKube } from '../fakes/kube.ts';
import { failoverEntry } from '../fixtures/failoverEntry.ts';
import { test } from './failoverSite.ts';
import { create, failover, named } from './manifests.ts';
import type { MemoryWorld } from './memoryWorld.ts';
import { untilCondition } from './waiting.ts';

const type = farshoreTypes.failover;

describe('a failover', () => {
  test('that is in the ledger is adopted by a re-created resource, and nothing is made again', async ({
    site,
    world,
  }) => {
    const { kube } = world;
    site.operate();
    await site.prepare();
    await create(kube, failover('move'));
    await site.untilPhase('move', 'FailedOver');
    const steps = site.recovery.done.length;
    await kube.remove(type, named('move'));
    await world.untilGone(type, 'move');
    await create(kube, failover('move'));
    await site.untilPhase('move', 'FailedOver');
    await untilCondition(kube, type, named('move'), {
      type: 'Accepted',
      status: 'True',
      reason: 'AdoptedFromLedger',
    });
    expect(site.recovery.done).toHaveLength(steps);
  });

  test('is shown, not run, by a second cluster that stands by', async ({ site, world }) => {
    const { kube } = world;
    site.operate();
    await site.prepare();
    await create(kube, failover('move'));
    await site.untilPhase('move', 'FailedOver');
    const steps = site.recovery.done.length;
    const second = new FakeKube();
    site.operate({ kube: second, holder: 'second cluster' });
    await world.createSecrets(second);
    await world.createAll(second);
    await create(second, failover('move'), failover('another'));
    await site.untilPhase('move', 'FailedOver', { kube: second });
    await untilCondition(second, type, named('another'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NotInControl',
    });
    expect(site.recovery.done).toHaveLength(steps);
  });

  test('of a name that another namespace used in the same vault is refused, and moves nothing there', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepareOther();
    await create(kube, failover('move'));
    await site.untilPhase('move', 'FailedOver');
    const steps = site.recovery.done.length;
    const theirs = failover(
      'move',
      { machineRef: { name: 'db' }, desiredState: 'Committed' },
      'other',
    );
    await create(kube, theirs);
    const condition = await untilCondition(kube, type, named('move', 'other'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    expect(condition.message).toContain('default/move');
    expect(condition.message).toContain('web');
    await kube.remove(type, named('move', 'other'));
    await world.untilGone(type, 'move', 'other');
    expect(site.recovery.done).toHaveLength(steps);
    expect((await LedgerEntry.read(objects, 'move'))?.document.desired).toBeUndefined();
  });

  test('whose name is entered by another namespace at the same moment does not take that one for its own', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepareOther();
    const key = vaultLayout.failover('move');
    let theirs: FailoverDocument | undefined;
    objects.interleave = async (operation, at) => {
      if (operation !== 'putIfAbsent' || at !== key || theirs !== undefined) return;
      objects.interleave = undefined;
      theirs = await enterForOther(world, key);
    };
    await create(kube, failover('move', { desiredState: 'Committed' }));
    await untilCondition(kube, type, named('move'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    await systemClock.sleep(200);
    expect(site.recovery.done).toEqual([]);
    expect((await LedgerEntry.read(objects, 'move'))?.document).toEqual(theirs);
  });

  test('of another type under a name that was used is refused, and its deletion changes nothing', async ({
    site,
    world,
  }) => {
    const { kube, objects } = world;
    site.operate();
    await site.prepare();
    await create(kube, failover('move'));
    await site.untilPhase('move', 'FailedOver');
    await kube.remove(type, named('move'));
    await world.untilGone(type, 'move');
    await create(kube, failover('move', { type: 'Test' }));
    await untilCondition(kube, type, named('move'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    await kube.remove(type, named('move'));
    await world.untilGone(type, 'move');
    expect((await LedgerEntry.read(objects, 'move'))?.document.desired).toBeUndefined();
  });
});

/** As if another installation had entered a failover of machine db under that name. */
async function enterForOther(
  { kube, objects }: MemoryWorld,
  key: string,
): Promise<FailoverDocument> {
  const machine = kube.peek<ProtectedVM>(farshoreTypes.protectedVM, named('db', 'other'));
  const document = failoverEntry({
    failoverId: 'c'.repeat(32),
    namespace: 'other',
    uid: 'another',
    installationId: 'd'.repeat(32),
    acceptedAt: systemClock.now(),
    outcome: 'FailedOver',
    request: { machineId: machine?.status?.machineId ?? '', machineName: 'db' },
  });
  await objects.putIfAbsent(key, encodeDocument(failoverDocumentSchema, document));
  return document;
}
