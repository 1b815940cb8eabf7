/** What a ProtectedVM's fields do to lists and catalog, and what it shows of what others report. */
import { expect } from 'vitest';
import { farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Catalog } from '../../vault/catalog.ts';
import { create, named, processServer } from './manifests.ts';
import { type MemoryWorld, test } from './memoryWorld.ts';
import {
  askAsAgent,
  awaitAnswer,
  bootstrapOf,
  listOf,
  machineReport,
  putPoint,
  readList,
  reportStatus,
} from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

const type = farshoreTypes.protectedVM;

async function change({ kube }: MemoryWorld, spec: object): Promise<void> {
  await kube.patch(type, named('web'), { merge: { spec } });
}

function seen({ kube }: MemoryWorld): ProtectedVM['status'] {
  return kube.peek<ProtectedVM>(type, named('web'))?.status;
}

test('a disk’s device may change: the process server is told the new one for the same disk', async ({
  world,
}) => {
  world.operate();
  await world.createAll();
  const { bootstrap } = await world.enrolProcessServer();
  const disksOf = async () =>
    (await listOf(world.objects, bootstrap.controllerPublicKey)).machines[0]?.disks;
  await eventually(async () =>
    expect(await disksOf()).toMatchObject([{ index: 0, name: 'system', device: '/dev/sda' }]),
  );
  await change(world, { disks: [{ name: 'system', device: '/dev/disk/by-id/wwn-1' }] });
  await eventually(async () =>
    expect(await disksOf()).toMatchObject([
      { index: 0, name: 'system', device: '/dev/disk/by-id/wwn-1' },
    ]),
  );
});

test('another process server takes the machine over under a higher epoch, and the first sends its agent there', async ({
  world,
}) => {
  const { kube, objects } = world;
  world.operate();
  await world.createAll();
  await create(kube, processServer('ps2', { exposure: { endpoints: ['ps2.example:9443'] } }));
  const { bootstrap } = await world.enrolProcessServer();
  const pinned = bootstrap.controllerPublicKey;
  const machineId = await world.machineIdOf();
  const listed = async (name: string) => await readList(objects, { processServer: name, pinned });
  await eventually(async () =>
    expect((await listed('ps'))?.machines).toMatchObject([{ machineId, writerEpoch: 1 }]),
  );
  await bootstrapOf(kube, 'ps2-bootstrap');
  await change(world, { processServerRef: { name: 'ps2' } });
  await eventually(async () => {
    expect((await listed('ps2'))?.machines).toMatchObject([{ machineId, writerEpoch: 2 }]);
    expect((await listed('ps'))?.machines).toEqual([]);
  });
  // Where the new one is reached is known only now; the old one is looked at again every few seconds, or when it changes.
  await reportStatus(objects, 'ps2', [], { endpoints: ['ps2.example:9443'] });
  await untilCondition(kube, farshoreTypes.processServer, named('ps2'), {
    type: 'HeartbeatCurrent',
    status: 'True',
  });
  await kube.patch(farshoreTypes.processServer, named('ps'), { merge: { spec: { port: 9444 } } });
  await eventually(async () =>
    expect((await listed('ps'))?.redirects).toEqual({ [machineId]: ['ps2.example:9443'] }),
  );
  const entry = await new Catalog({ store: objects }).read(machineId);
  expect(entry?.document).toMatchObject({ processServer: 'ps2', writerEpoch: 2 });
});

test('what agent, process server and applier tell of a machine is shown, and given to the metrics', async ({
  world,
}) => {
  const { objects } = world;
  const { operator } = world.operate();
  await world.createAll();
  const machineId = await world.machineIdOf();
  const agent = await askAsAgent(objects, { name: 'web', via: 'ps' });
  expect(await awaitAnswer(objects, agent.id)).toMatchObject({ outcome: 'accepted' });
  await reportStatus(objects, 'ps', [
    machineReport(machineId, {
      uploadedBarrier: { lsn: 10n, timeMs: systemClock.now() - 5_000, consistency: 'Crash' },
      resyncToken: 'again',
    }),
  ]);
  await putPoint(objects, machineId);
  await eventually(() =>
    expect(seen(world)).toMatchObject({
      machineId,
      activeSide: 'Source',
      observedGeneration: 1,
      offeredDisks: [{ device: '/dev/sda', sizeBytes: 8 << 20, description: 'a disk' }],
      disks: [{ name: 'system', index: 0, sizeBytes: 8 << 20 }],
      agent: { connected: true, version: '1.0.0', hostname: 'web' },
      positions: { captured: '30', journaled: '20', uploaded: '10', recoveryPoint: '12' },
      bytesBehind: { agent: 4096, cache: 8192 },
      barriers: { count: 1, voided: 0, lastFreezeMs: 13, maxFreezeMs: 40 },
      recoveryPoints: { count: 1, newestCrash: { name: '12' } },
      resyncToken: 'again',
    }),
  );
  const text = await operator.metrics.registry.metrics();
  const secondsOf = (metric: string) =>
    Number(
      new RegExp(`^${metric}\\{namespace="default",machine="web"\\} (.*)$`, 'm').exec(text)?.[1],
    );
  // The point was made 20 s ago, the barrier 5.
  expect(secondsOf('farshore_recovery_point_age_seconds')).toBeGreaterThanOrEqual(20);
  expect(secondsOf('farshore_recovery_point_age_seconds')).toBeLessThan(40);
  expect(secondsOf('farshore_rpo_seconds')).toBeGreaterThanOrEqual(5);
  expect(secondsOf('farshore_rpo_seconds')).toBeLessThan(20);
});
