import { expect, test } from 'vitest';
import type { PageBlobStore } from '../../platform/ports.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { problemsOfPoint } from '../../test/replica/checkPoint.ts';
import { SampleMachine } from '../../test/replica/sampleMachine.ts';
import { readPoints } from './points.ts';
import { Replica } from './replica.ts';

test('an applier that was suspended while it opened a replica removes no snapshot of its successor’s points', async () => {
  const clock = new ManualClock();
  const objects = new MemoryObjectStore({ clock });
  const pages = new MemoryPageBlobStore({ clock });
  const deps = { clock, objects, pages, logger: silentLogger };
  const machine = new SampleMachine({ objects, seed: 1, sizes: [1 << 20] });
  const round = async () => {
    machine.writeRandom();
    machine.barrier();
    await machine.cut();
  };
  const open = (holder: string, store: PageBlobStore = pages) => {
    const { machineId, disks, dataKey } = machine;
    return Replica.open({ ...deps, pages: store }, { machineId, disks, dataKey, holder });
  };
  const applyAll = async (holder: string) => {
    const replica = await open(holder);
    await replica.applyTo('end', { makePoints: true });
    await replica.close();
  };
  await round();
  await applyAll('applier:first');
  await round();
  // Between its look at the points and its look at the snapshots another one takes over and makes the next point.
  let suspended = true;
  const stopped = new Proxy<PageBlobStore>(pages, {
    get: (target, name) => {
      if (name === 'snapshots')
        return async function* (key: string) {
          if (suspended) {
            suspended = false;
            await applyAll('applier:second');
          }
          yield* pages.snapshots(key);
        };
      const member: unknown = Reflect.get(target, name);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
  await open('applier:third', stopped);
  expect(suspended).toBe(false);
  const points = await readPoints(objects, machine.machineId);
  expect(points.map(({ lsn }) => lsn)).toEqual(machine.barriers.map(({ lsn }) => lsn));
  for (const [index, point] of points.entries()) {
    const barrier = machine.barriers[index];
    if (barrier === undefined) throw new Error('a point without barrier');
    expect(await problemsOfPoint(pages, point, barrier)).toEqual([]);
  }
});
