/** A process server falls silent: its machines move to one that lives, under a higher epoch. */
import { expect } from 'vitest';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { Catalog } from '../../vault/catalog.ts';
import { create, protectedVM, replicationPolicy, statefulServer } from './manifests.ts';
import { type MemoryWorld, test } from './memoryWorld.ts';
import { machineReport, readList, reportStatus } from './peers.ts';
import { eventually } from './waiting.ts';

const REPORT_MS = 5_000;
const LIVE_MS = 40_000;
/** The promise: a silent process server's machines are with another within a minute of its last report. */
const MOVED_WITHIN_MS = 60_000;
/** Half of what it takes to be called silent: real time passes too, on a busy machine many seconds of it. */
const NOT_SILENT_MS = 15_000;

/** Two replicas, the machine with the first, both reporting for a while. */
async function protectedByTwo(world: MemoryWorld) {
  world.operate();
  await create(
    world.kube,
    world.vault(),
    replicationPolicy(),
    statefulServer({ size: '10Gi' }),
    protectedVM('web', { processServerRef: { name: 'sts' } }),
  );
  const first = await world.enrolProcessServer('sts-0');
  await world.enrolProcessServer('sts-1');
  const machineId = await world.machineIdOf();
  const lists = async (name: string) =>
    await readList(world.objects, {
      processServer: name,
      pinned: first.bootstrap.controllerPublicKey,
    });
  await eventually(async () =>
    expect((await lists('sts-0'))?.machines[0]).toMatchObject({ machineId, writerEpoch: 1 }),
  );
  return { machineId, lists };
}

/** So much time passes while these report; the operator sees each report. */
async function pass(
  world: MemoryWorld,
  ms: number,
  reporting: readonly string[],
  machineId: string,
) {
  for (let passed = 0; passed < ms; passed += REPORT_MS) {
    world.clock.pass(REPORT_MS);
    const heartbeatMs = world.clock.now();
    for (const name of reporting)
      await reportStatus(world.objects, name, name === 'sts-0' ? [machineReport(machineId)] : [], {
        heartbeatMs,
      });
    const reads = () => world.objects.log.filter(({ operation }) => operation === 'list').length;
    const before = reads();
    // Two whole looks at the vault begin with a listing each of its five kinds of documents.
    await eventually(() => expect(reads()).toBeGreaterThan(before + 10));
  }
}

async function ownerOf(world: MemoryWorld, machineId: string) {
  const document = (await new Catalog({ store: world.objects }).read(machineId))?.document;
  return { processServer: document?.processServer, writerEpoch: document?.writerEpoch };
}

test('its machines are with another replica within a minute, under a higher epoch; its own list sends agents there', async ({
  world,
}) => {
  const { machineId, lists } = await protectedByTwo(world);
  await pass(world, LIVE_MS, ['sts-0', 'sts-1'], machineId);
  await pass(world, NOT_SILENT_MS, ['sts-1'], machineId);
  expect(await ownerOf(world, machineId)).toEqual({ processServer: 'sts-0', writerEpoch: 1 });
  // Told while all is well, so that agents know it when it is needed.
  expect((await lists('sts-0'))?.peers).toEqual(['ps.example:9443']);
  await pass(world, MOVED_WITHIN_MS - NOT_SILENT_MS, ['sts-1'], machineId);
  expect(await ownerOf(world, machineId)).toEqual({ processServer: 'sts-1', writerEpoch: 2 });
  await eventually(async () => {
    expect((await lists('sts-1'))?.machines[0]).toMatchObject({ machineId, writerEpoch: 2 });
    expect((await lists('sts-0'))?.machines).toEqual([]);
  });
  await eventually(async () => {
    const { items } = await world.kube.list<KubeObject & { reason?: string }>(kubeTypes.event, {
      limit: 500,
    });
    expect(items.map(({ reason }) => reason)).toContain('ProcessServerReplaced');
  });
});

test('nobody moves when all fall silent at once, nor when the first of them reports again', async ({
  world,
}) => {
  const { machineId } = await protectedByTwo(world);
  await pass(world, LIVE_MS, ['sts-0', 'sts-1'], machineId);
  world.clock.pass(300_000);
  await pass(world, 15_000, ['sts-1'], machineId);
  await pass(world, LIVE_MS, ['sts-0', 'sts-1'], machineId);
  expect(await ownerOf(world, machineId)).toEqual({ processServer: 'sts-0', writerEpoch: 1 });
});

test('a machine does not go back when its former process server lives again', async ({ world }) => {
  const { machineId } = await protectedByTwo(world);
  await pass(world, LIVE_MS, ['sts-0', 'sts-1'], machineId);
  await pass(world, MOVED_WITHIN_MS, ['sts-1'], machineId);
  await pass(world, LIVE_MS, ['sts-0', 'sts-1'], machineId);
  expect(await ownerOf(world, machineId)).toEqual({ processServer: 'sts-1', writerEpoch: 2 });
});
