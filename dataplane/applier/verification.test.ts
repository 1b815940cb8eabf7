import { beforeEach, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { AppliedMachine } from '../../test/replica/appliedMachine.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { retirePoints } from '../journal/pointRetention.ts';
import { newestPoint, newestSoundPoint, readPoints } from '../journal/points.ts';
import type { Replica } from '../journal/replica.ts';
import { readReplicaState } from '../journal/replicaFence.ts';
import { Gate } from './gate.ts';
import { ApplierMetrics } from './metrics.ts';
import { SampledVerification } from './verification.ts';

const MIB = 1 << 20;
const DAY_MS = 86_400_000;
const TURN_MS = 600_000;
const LEAF = 65_536;
const never = new AbortController().signal;

let clock: ManualClock;
let objects: MemoryObjectStore;
let pages: MemoryPageBlobStore;
let site: AppliedMachine;
let replica: Replica;
let metrics: ApplierMetrics;
let verification: SampledVerification;

beforeEach(async () => {
  clock = new ManualClock();
  objects = new MemoryObjectStore({ clock });
  pages = new MemoryPageBlobStore({ clock });
  metrics = new ApplierMetrics();
  site = new AppliedMachine({ objects, pages, clock }, { seed: 11, sizes: [3 * MIB, MIB + 512] });
  verification = begin();
  for (const { index } of site.machine.disks)
    for (let leaf = 0; leaf < (index === 0 ? 48 : 17); leaf += 1)
      site.machine.write({
        index,
        leaf,
        blockMask: leaf === 16 && index === 1 ? 1 : 0xffff,
        zeroMask: 0,
      });
  site.machine.barrier();
  await site.machine.cut();
  replica = await site.open();
  await apply();
});

function begin(): SampledVerification {
  return new SampledVerification({
    objects,
    pages,
    clock,
    metrics,
    logger: silentLogger,
    verifyGate: new Gate(1),
  });
}

async function apply(): Promise<void> {
  await replica.applyTo('end', { makePoints: true });
}

async function writeOn(rounds = 1): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    site.machine.write({ index: 0, leaf: 40, blockMask: 1, zeroMask: 0 });
    site.machine.barrier();
    await site.machine.cut();
    await apply();
  }
}

/** Turns of the applier's loop over some time. */
async function verifyFor(ms: number, options: { sharePerDay: number }): Promise<void> {
  const { sharePerDay } = options;
  for (const end = clock.now() + ms; clock.now() < end; ) {
    await clock.advance(Math.min(TURN_MS, end - clock.now()));
    const point = await newestPoint(objects, site.machine.machineId);
    if (point === undefined) throw new Error('no point');
    const { machineId } = site.machine;
    await verification.run({ machineId, replica, newestPoint: point, sharePerDay }, never);
  }
}

function rot(disk: number, leaf: number): void {
  pages.rot(vaultLayout.replica(site.machine.machineId, `disk-${disk}`), leaf * LEAF + 5);
}

async function marked(): Promise<bigint[]> {
  return [...(await listPoints(objects, site.machine.machineId)).damaged];
}

async function verifiedLeaves(): Promise<number> {
  return (await metrics.verified.get()).values[0]?.value ?? 0;
}

test('a day reads the share of the policy, spread over it; none when it is off', async () => {
  await verifyFor(DAY_MS, { sharePerDay: 0 });
  expect(await verifiedLeaves()).toBe(0);
  await verifyFor(DAY_MS / 2, { sharePerDay: 100 });
  const half = await verifiedLeaves();
  await verifyFor(DAY_MS / 2, { sharePerDay: 100 });
  // Five MiB of body in all, 16 leaves each.
  expect(await verifiedLeaves()).toBe(5 * 16);
  expect(half).toBe(2 * 16);
  await verifyFor(DAY_MS, { sharePerDay: 20 });
  expect(await verifiedLeaves()).toBe(6 * 16);
  expect(replica.state.damaged).toBeUndefined();
  expect(await marked()).toEqual([]);
});

test('what was missed for long is left out, and not made up for at once', async () => {
  await verifyFor(TURN_MS, { sharePerDay: 100 });
  await clock.advance(10 * DAY_MS);
  await verifyFor(TURN_MS, { sharePerDay: 100 });
  expect(await verifiedLeaves()).toBe(16);
});

test('a leaf that the storage lost is noted, counted, and every point that shares it is marked', async () => {
  const before = (await listPoints(objects, site.machine.machineId)).lsns;
  // Of this point leaf 7 is another; it is whole.
  site.machine.write({ index: 0, leaf: 7, blockMask: 0xffff, zeroMask: 0 });
  await writeOn(40);
  rot(0, 7);
  await verifyFor(DAY_MS, { sharePerDay: 100 });
  expect(replica.state.damaged).toEqual([{ disk: 0, leaf: 7 }]);
  const { lsns } = await listPoints(objects, site.machine.machineId);
  expect(await marked()).toEqual(lsns.filter((lsn) => !before.includes(lsn)));
  expect((await newestSoundPoint(objects, site.machine.machineId))?.lsn).toBe(before[0]);
  expect((await metrics.damaged.get()).values[0]?.value).toBe(1);
  // It is not found again and again.
  await verifyFor(DAY_MS, { sharePerDay: 100 });
  expect((await metrics.damaged.get()).values[0]?.value).toBe(1);
});

test('points that are made before the leaf comes again are marked, and none after', async () => {
  rot(1, 3);
  await verifyFor(DAY_MS, { sharePerDay: 100 });
  await writeOn();
  const { lsns } = await listPoints(objects, site.machine.machineId);
  expect(await marked()).toEqual(lsns);
  // A part of it does not make it whole.
  site.machine.write({ index: 1, leaf: 3, blockMask: 0x7fff, zeroMask: 0 });
  await writeOn();
  expect(replica.state.damaged).toHaveLength(1);
  site.machine.write({ index: 1, leaf: 3, blockMask: 0xffff, zeroMask: 0 });
  await writeOn();
  expect(replica.state.damaged).toBeUndefined();
  expect(await marked()).toHaveLength(3);
  const newest = (await readPoints(objects, site.machine.machineId)).at(-1);
  expect((await newestSoundPoint(objects, site.machine.machineId))?.lsn).toBe(newest?.lsn);
  await verifyFor(2 * DAY_MS, { sharePerDay: 100 });
  expect(replica.state.damaged).toBeUndefined();
});

test('a table that lost a hash is put right by the leaf that comes again, though it was cached', async () => {
  const { machineId } = site.machine;
  pages.rot(vaultLayout.replicaLeaves(machineId, 'disk-0'), 9 * 32);
  await verifyFor(DAY_MS, { sharePerDay: 100 });
  expect(replica.state.damaged).toEqual([{ disk: 0, leaf: 9 }]);
  site.machine.write({ index: 0, leaf: 9, blockMask: 0xffff, zeroMask: 0 });
  await writeOn();
  await verifyFor(2 * DAY_MS, { sharePerDay: 100 });
  expect(replica.state.damaged).toBeUndefined();
});

test('what lies behind the source’s bytes is zeroed again without anybody sending it', async () => {
  // Disk 1 ends 512 bytes into its leaf 16; its body goes on to leaf 31.
  pages.rot(vaultLayout.replica(site.machine.machineId, 'disk-1'), 20 * LEAF);
  await writeOn();
  await verifyFor(DAY_MS + TURN_MS, { sharePerDay: 100 });
  expect(await marked()).toHaveLength(1);
  expect(replica.state.damaged).toBeUndefined();
  await writeOn();
  await verifyFor(2 * DAY_MS, { sharePerDay: 100 });
  expect(await marked()).toHaveLength(1);
});

test('a successor goes on where it was, with the marking too', async () => {
  await writeOn(40);
  rot(0, 20);
  await verifyFor((DAY_MS * 3) / 5 + TURN_MS, { sharePerDay: 100 });
  const next = replica.state.sampling?.next;
  expect(next).toBe(3);
  await replica.close();
  const state = await readReplicaState(objects, site.machine.machineId);
  expect(state?.sampling?.next).toBe(next);
  replica = await site.open('applier:successor');
  verification = begin();
  await verifyFor((DAY_MS * 2) / 5, { sharePerDay: 100 });
  expect(replica.state.sampling?.next).toBe(5);
  expect(replica.state.damaged).toEqual([{ disk: 0, leaf: 20 }]);
  await verifyFor(3_600_000, { sharePerDay: 100 });
  expect(await marked()).toHaveLength(41);
});

test('the marks that a dead applier did not get to put are put by the next', async () => {
  await writeOn(40);
  rot(0, 20);
  await replica.noteDamaged([{ disk: 0, leaf: 20 }]);
  await replica.close();
  replica = await site.open('applier:successor');
  await verifyFor(3_600_000, { sharePerDay: 1 });
  expect(await marked()).toHaveLength(41);
});

test('retention keeps the newest point that is not marked, and takes marks along with their points', async () => {
  const { machineId } = site.machine;
  site.machine.write({ index: 0, leaf: 7, blockMask: 0xffff, zeroMask: 0 });
  await writeOn(5);
  rot(0, 7);
  await verifyFor(DAY_MS, { sharePerDay: 100 });
  await writeOn(5);
  const { lsns } = await listPoints(objects, machineId);
  const deps = { objects, pages, logger: silentLogger };
  const nowMs = Date.UTC(2027, 0, 1);
  await retirePoints(deps, { machineId, retentionMs: 90_000, nowMs, limit: 100 });
  const kept = [lsns[0], ...lsns.slice(-2)];
  expect((await listPoints(objects, machineId)).lsns).toEqual(kept);
  expect(await marked()).toEqual(lsns.slice(-2));
});
