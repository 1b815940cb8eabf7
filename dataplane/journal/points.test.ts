import { beforeEach, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { type PointDocument, pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { retirePoints } from './pointRetention.ts';
import {
  lsnOfPointName,
  newestPoint,
  newestPointAtOrBefore,
  newestPointOfConsistency,
  offeredPoint,
  pointName,
} from './points.ts';

const machineId = 'ab'.repeat(16);
const key = vaultLayout.replica(machineId, 'root');
const leavesKey = vaultLayout.replicaLeaves(machineId, 'root');
let deps: {
  objects: MemoryObjectStore;
  pages: MemoryPageBlobStore;
  logger: typeof silentLogger;
};

let clock: ManualClock;

beforeEach(() => {
  clock = new ManualClock();
  deps = {
    objects: new MemoryObjectStore({ clock }),
    pages: new MemoryPageBlobStore({ clock }),
    logger: silentLogger,
  };
});

/** Points at LSN 10, 20, … whose times are 1000, 2000, …; those at `app` are app-consistent. */
async function makePoints(count: number, app: readonly number[] = []): Promise<void> {
  const fences = new Map<string, { leaseId: string; sequenceNumber: number }>();
  for (const blob of [key, leavesKey]) {
    await deps.pages.create(blob, { size: 512, sequenceNumber: 1 });
    fences.set(blob, await deps.pages.fence(blob, { sequenceNumber: 1, leaseSeconds: 60 }));
  }
  for (let place = 1; place <= count; place += 1) {
    const snapshot = async (blob: string) => {
      const fence = fences.get(blob);
      if (fence === undefined) throw new Error(blob);
      return { key: blob, ...(await deps.pages.snapshot(blob, { fence, metadata: {} })) };
    };
    const point: PointDocument = {
      machineId,
      lsn: BigInt(place * 10),
      timeMs: place * 1000,
      consistency: app.includes(place) ? 'App' : 'Crash',
      segment: { seq: place, digest: 'cd'.repeat(32), writerEpoch: 1 },
      disks: [
        {
          index: 0,
          name: 'root',
          sizeBytes: 1 << 20,
          root: 'ef'.repeat(32),
          replica: await snapshot(key),
          leaves: await snapshot(leavesKey),
        },
      ],
      createdAt: place * 1000,
    };
    await deps.objects.putIfAbsent(
      vaultLayout.point(machineId, point.lsn),
      encodeDocument(pointDocumentSchema, point),
    );
  }
}

async function left(): Promise<bigint[]> {
  return (await listPoints(deps.objects, machineId)).lsns;
}

async function snapshotsLeft(): Promise<number> {
  let count = 0;
  for (const blob of [key, leavesKey]) for await (const _ of deps.pages.snapshots(blob)) count += 1;
  return count;
}

test('the newest point, and the newest of a kind', async () => {
  expect(await newestPoint(deps.objects, machineId)).toBeUndefined();
  await makePoints(12, [4, 7]);
  expect(await newestPoint(deps.objects, machineId)).toMatchObject({ lsn: 120n });
  expect(await newestPointOfConsistency(deps.objects, machineId, 'App')).toMatchObject({
    lsn: 70n,
  });
});

test('the newest point is found, also when all that were listed are retired before they are read', async () => {
  await makePoints(2);
  const { objects } = deps;
  const stored = await objects.get(vaultLayout.point(machineId, 20n));
  await objects.remove(vaultLayout.point(machineId, 20n));
  objects.interleave = async (operation) => {
    if (operation !== 'get') return;
    objects.interleave = undefined;
    await objects.put(vaultLayout.point(machineId, 20n), stored?.body ?? new Uint8Array());
    await objects.remove(vaultLayout.point(machineId, 10n));
  };
  expect(await newestPoint(objects, machineId)).toMatchObject({ lsn: 20n });
});

test('the newest point at or before any time, whatever is retired while it is looked for', async () => {
  await makePoints(9);
  for (let time = 0; time <= 10_000; time += 500) {
    const place = Math.min(9, Math.floor(time / 1000));
    const found = await newestPointAtOrBefore(deps.objects, { machineId, timeMs: time });
    expect(found?.lsn).toBe(place === 0 ? undefined : BigInt(place * 10));
  }
  const { objects } = deps;
  let first = true;
  objects.interleave = async (operation, asked) => {
    if (operation !== 'get' || !first) return;
    first = false;
    await objects.remove(asked);
  };
  const found = await newestPointAtOrBefore(objects, { machineId, timeMs: 5500 });
  expect(found?.lsn).toBe(40n);
});

test('a name is the LSN, and nothing else is one', () => {
  expect(lsnOfPointName(pointName(1234n))).toBe(1234n);
  for (const name of ['', 'latest', '-1', '1.5', '0x10', '9'.repeat(21)])
    expect(lsnOfPointName(name)).toBeUndefined();
});

test('points past retention are retired with their snapshots; the newest, the newest app-consistent and pinned ones stay', async () => {
  await makePoints(8, [2, 4]);
  await deps.objects.put(vaultLayout.pointPin(machineId, 50n), new Uint8Array());
  const retired = await retirePoints(deps, {
    machineId,
    retentionMs: 500,
    nowMs: 99_000,
    limit: 100,
  });
  expect(retired).toEqual([10n, 20n, 30n, 60n, 70n]);
  expect(await left()).toEqual([40n, 50n, 80n]);
  expect(await snapshotsLeft()).toBe(6);
});

test('retention stops at what is young enough, and at its limit', async () => {
  await makePoints(8);
  // The clock is far ahead: ages count from the newest point.
  const options = { machineId, retentionMs: 3000, nowMs: 9e12 };
  expect(await retirePoints(deps, { ...options, limit: 2 })).toEqual([10n, 20n]);
  expect(await retirePoints(deps, { ...options, limit: 9 })).toEqual([30n, 40n]);
  expect(await left()).toEqual([50n, 60n, 70n, 80n]);
});

const late = { machineId, retentionMs: 500, nowMs: 3000, limit: 9 };

test('a point that is pinned while it is retired stays whole, and is offered again', async () => {
  await makePoints(3);
  const { objects } = deps;
  objects.interleave = async (operation, asked) => {
    if (operation !== 'putIfAbsent') return;
    objects.interleave = undefined;
    expect(asked).toBe(vaultLayout.pointRetired(machineId, 10n));
    await objects.put(vaultLayout.pointPin(machineId, 10n), new Uint8Array());
  };
  expect(await retirePoints(deps, late)).toEqual([20n]);
  const kept = await offeredPoint(objects, { machineId, lsn: 10n });
  expect(await deps.pages.info(key, kept?.disks[0]?.replica)).toBeDefined();
  expect(await left()).toEqual([10n, 30n]);
  expect(await snapshotsLeft()).toBe(4);
});

test('a point whose removal was begun by somebody who died is ended by the next, unless it is in use by then', async () => {
  await makePoints(3);
  const { objects } = deps;
  await objects.put(vaultLayout.pointRetired(machineId, 10n), new Uint8Array());
  const pin = vaultLayout.pointPin(machineId, 10n);
  await objects.put(pin, new Uint8Array());
  expect(await left()).toEqual([20n, 30n]);
  await retirePoints(deps, { ...late, retentionMs: 9e6 });
  expect(await snapshotsLeft()).toBe(6);
  await objects.remove(pin);
  await retirePoints(deps, { ...late, retentionMs: 9e6 });
  expect(await snapshotsLeft()).toBe(4);
  expect(await objects.head(vaultLayout.point(machineId, 10n))).toBeUndefined();
});

test('a document that a late write brings back is not offered again, and goes', async () => {
  await makePoints(3);
  const { objects } = deps;
  const document = await objects.get(vaultLayout.point(machineId, 10n));
  expect(await retirePoints(deps, late)).toEqual([10n, 20n]);
  await objects.putIfAbsent(vaultLayout.point(machineId, 10n), document?.body ?? new Uint8Array());
  expect(await left()).toEqual([30n]);
  expect(await offeredPoint(objects, { machineId, lsn: 10n })).toBeUndefined();
  expect(await newestPointAtOrBefore(objects, { machineId, timeMs: 1500 })).toBeUndefined();
  await retirePoints(deps, late);
  expect(await objects.head(vaultLayout.point(machineId, 10n))).toBeUndefined();
});

test('the mark of a retired point goes once no write can be late any more, by the vault’s clock', async () => {
  await makePoints(2);
  const { objects } = deps;
  await retirePoints(deps, late);
  const mark = vaultLayout.pointRetired(machineId, 10n);
  clock.jumpWallClock(600_000);
  await retirePoints(deps, late);
  expect(await objects.head(mark)).toBeDefined();
  clock.jumpWallClock(1_000);
  // Something newer shows what time it is there.
  await objects.put(vaultLayout.pointPin(machineId, 20n), new Uint8Array());
  await retirePoints(deps, late);
  expect(await objects.head(mark)).toBeUndefined();
});
