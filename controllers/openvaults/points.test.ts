import { expect, test } from 'vitest';
import { markPoint } from '../../dataplane/journal/pointDamage.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { newestSound, PointsReader } from './points.ts';

const machineId = 'ab'.repeat(16);

async function putPoint(objects: MemoryObjectStore, lsn: bigint): Promise<void> {
  const blob = { key: 'k', snapshot: 's' };
  const body = encodeDocument(pointDocumentSchema, {
    machineId,
    lsn,
    timeMs: Number(lsn) * 1000,
    consistency: 'Crash',
    segment: { seq: 1, digest: 'cd'.repeat(32), writerEpoch: 1 },
    disks: [
      { index: 0, name: 'root', sizeBytes: 1, root: 'ef'.repeat(32), replica: blob, leaves: blob },
    ],
    createdAt: 1,
  });
  await objects.put(vaultLayout.point(machineId, lsn), body);
}

test('points that are marked damaged are shown so, also those that were read before', async () => {
  const objects = new MemoryObjectStore({ clock: new ManualClock() });
  for (let lsn = 1n; lsn <= 30n; lsn += 1n) await putPoint(objects, lsn);
  const reader = new PointsReader({ objects });
  const summary = () => reader.summary(machineId, { appConsistent: false });
  const whole = await summary();
  expect(whole.damaged).toBeUndefined();
  expect(newestSound(whole)?.lsn).toBe(30n);
  const leaves = [{ disk: 0, leaf: 1 }];
  for (const lsn of [29n, 30n]) await markPoint(objects, { machineId, lsn, leaves });
  const some = await summary();
  expect(some).toMatchObject({ count: 30, damaged: { count: 2 } });
  expect(some.recent.slice(0, 3).map(({ damaged }) => damaged)).toEqual([true, true, undefined]);
  expect([newestSound(some)?.lsn, some.newestCrash?.lsn]).toEqual([28n, 28n]);
  for (let lsn = 3n; lsn <= 30n; lsn += 1n) await markPoint(objects, { machineId, lsn, leaves });
  expect(newestSound(await summary())?.lsn).toBe(2n);
  for (const lsn of [1n, 2n]) await markPoint(objects, { machineId, lsn, leaves });
  const none = await summary();
  expect(newestSound(none)).toBeUndefined();
  expect(none.count).toBe(30);
});
