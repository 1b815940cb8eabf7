/** What becomes of a machine whose failover fails: the operator, its recovery and a journal, all real, over stores in memory. */
import { expect } from 'vitest';
import { type Failover, farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { claimJournal } from '../../dataplane/journal/claim.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { AssignmentsDocument } from '../../vault/documents/assignments.ts';
import { openDataKey } from '../../vault/keys.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { requireVault } from '../../vault/vault.ts';
import { ModelMachine } from '../fixtures/modelMachine.ts';
import { create, failover, named } from './manifests.ts';
import { type MemoryWorld, test as worldTest } from './memoryWorld.ts';
import { listOf, machineReport, reportStatus } from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

/** Machine web, replicated: a model of it writes the journal that its assignment allows. */
class ReplicatedSite {
  readonly #world: MemoryWorld;
  readonly #source: Awaited<ReturnType<typeof replicate>>;

  constructor(world: MemoryWorld, source: Awaited<ReturnType<typeof replicate>>) {
    this.#world = world;
    this.#source = source;
  }

  async report(): Promise<void> {
    const { machine, barrier } = this.#source;
    await reportStatus(this.#world.objects, 'ps', [
      machineReport(machine.machineId, { uploadedBarrier: { ...barrier, consistency: 'Crash' } }),
    ]);
  }

  /** As a process server does that was given this epoch. */
  async claim(writerEpoch: number) {
    const { machine, dataKey } = this.#source;
    const deps = { objects: this.#world.objects, clock: systemClock, random: systemRandom };
    return await claimJournal(
      { ...deps, codec: inlineCodec },
      { machineId: machine.machineId, dataKey, writerEpoch, side: 'Source' },
    );
  }

  async untilList(fits: (list: AssignmentsDocument) => boolean): Promise<AssignmentsDocument> {
    return await eventually(async () => {
      const list = await listOf(this.#world.objects, this.#source.pinned);
      if (!fits(list))
        throw new Error(
          `the list is ${JSON.stringify(list, (_, part) => (typeof part === 'bigint' ? String(part) : part))}`,
        );
      return list;
    });
  }

  async untilPhase(name: string, phase: string): Promise<void> {
    await this.#world.untilPhase<Failover>(farshoreTypes.failover, name, { phase });
  }
}

const test = worldTest.extend('site', async ({ world }) => {
  world.operate();
  const site = new ReplicatedSite(world, await replicate(world));
  await site.report();
  await untilCondition(world.kube, farshoreTypes.protectedVM, named('web'), {
    type: 'InitialReplicationComplete',
    status: 'True',
  });
  return site;
});

async function replicate(world: MemoryWorld) {
  const { kube, objects } = world;
  await world.createAll();
  const { bootstrap, box } = await world.enrolProcessServer();
  await untilCondition(kube, farshoreTypes.protectedVM, named('web'), {
    type: 'Accepted',
    status: 'True',
  });
  const pinned = bootstrap.controllerPublicKey;
  const assignment = await eventually(async () => {
    const list = await listOf(objects, pinned);
    const found = list.machines[0];
    if (found?.dataKey.some((one) => one.recipient === box.id) !== true)
      throw new Error('not assigned yet');
    return found;
  });
  const { document: vault } = await requireVault(objects);
  const { machineId, dataKey: sealed } = assignment;
  const dataKey = openDataKey({ sealed, key: box, vaultId: vault.vaultId, machineId });
  const machine = new ModelMachine(
    { objects, clock: systemClock, random: systemRandom },
    { name: 'web', machineId, dataKey, diskBytes: [1 << 20] },
  );
  machine.scribble();
  return { machine, dataKey, pinned, barrier: await machine.barrier() };
}

test('an Unplanned failover that fails after sealing: the source is assigned again under an epoch that the seal lets in', async ({
  site,
  world,
}) => {
  const { compute, kube, objects } = world;
  const read = compute.read.bind(compute);
  compute.read = async (url, range) => {
    const bytes = (await read(url, range)).slice();
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    return bytes;
  };
  await create(kube, failover('move'));
  await site.untilPhase('move', 'Failed');
  const ledger = (await LedgerEntry.read(objects, 'move'))?.document;
  expect(ledger?.failure?.code).toBe('RootMismatch');
  const sealed = ledger?.seal?.writerEpoch ?? 0;
  expect(sealed).toBe(1);
  const list = await site.untilList((one) => (one.machines[0]?.writerEpoch ?? 0) > sealed);
  expect(list.machines[0]?.finalSync).toBeUndefined();
  // As a process server does with its old assignment, and with this one.
  expect(await site.claim(sealed)).toMatchObject({ outcome: 'fenced', fenced: { by: 'Seal' } });
  expect(await site.claim(list.machines[0]?.writerEpoch ?? 0)).toMatchObject({
    outcome: 'claimed',
  });
  // And the machine can be failed over again.
  compute.read = read;
  await site.report();
  await create(kube, failover('again', { recoveryPoint: { type: 'LatestProcessed' } }));
  await site.untilPhase('again', 'FailedOver');
});

test('while its machine runs in Azure, its list neither drops it nor gives it an epoch that the seal lets in', async ({
  site,
  world,
}) => {
  const { kube } = world;
  await create(kube, failover('move'));
  await site.untilPhase('move', 'FailedOver');
  const machine = await eventually(() => {
    const found = kube.peek<ProtectedVM>(farshoreTypes.protectedVM, named('web'));
    expect(found?.status?.activeSide).toBe('Azure');
    return found;
  });
  expect(machine?.status?.phase).toBe('InAzure');
  await systemClock.sleep(500);
  const list = await site.untilList(() => true);
  expect(list.machines.map((one) => one.writerEpoch)).toEqual([1]);
  expect(await site.claim(1)).toMatchObject({ outcome: 'fenced' });
});
