import { afterEach, beforeEach, expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { recordingLogger } from '../../test/fakes/silentLogger.ts';
import { problemsOfPoint } from '../../test/replica/checkPoint.ts';
import { SampleMachine } from '../../test/replica/sampleMachine.ts';
import { type ApplierStatus, applierStatusSchema } from '../../vault/documents/applierStatus.ts';
import { type CatalogDocument, catalogDocumentSchema } from '../../vault/documents/catalog.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { boxContext, generateBoxKey, sealKeyForAll } from '../../vault/keys.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { readPoints } from '../journal/points.ts';
import { Replica } from '../journal/replica.ts';
import { readReplicaState } from '../journal/replicaFence.ts';
import { inlineCodec } from '../journal/segmentCodec.ts';
import { Applier } from './applier.ts';
import { ApplierMetrics } from './metrics.ts';

const MIB = 1 << 20;
const vaultId = 'cd'.repeat(16);

let clock: ManualClock;
let objects: MemoryObjectStore;
let pages: MemoryPageBlobStore;
let random: SeededRandom;
let key: ReturnType<typeof generateBoxKey>;
let machine: SampleMachine;
let running: { stop: () => Promise<void> }[];

beforeEach(async () => {
  clock = new ManualClock();
  objects = new MemoryObjectStore({ clock });
  pages = new MemoryPageBlobStore({ clock });
  random = new SeededRandom(99);
  key = generateBoxKey(random);
  machine = new SampleMachine({ objects, seed: 5, sizes: [MIB, MIB] });
  running = [];
});

afterEach(async () => {
  for (const { stop } of running) await stop();
});

function catalogOf(changes: Partial<CatalogDocument> = {}): CatalogDocument {
  return {
    machineId: machine.machineId,
    name: 'shop',
    namespace: 'sites',
    createdAt: 0,
    writerEpoch: 1,
    disks: machine.disks,
    dataKey: sealKeyForAll({
      random,
      recipients: [{ kind: 'applier', publicKey: key.publicKey }],
      secret: machine.dataKey,
      context: boxContext.dataKey(vaultId, machine.machineId),
    }),
    activeSide: 'Source',
    policy: { name: 'policy', retentionSeconds: 86_400 },
    target: {},
    nextDiskIndex: machine.disks.length,
    ...changes,
  };
}

async function putCatalog(changes: Partial<CatalogDocument> = {}): Promise<void> {
  const body = encodeDocument(catalogDocumentSchema, catalogOf(changes));
  await objects.put(vaultLayout.catalog(machine.machineId), body);
}

async function writeRounds(rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    for (let record = 0; record < 5; record += 1) machine.writeRandom();
    machine.barrier();
    await machine.cut();
  }
}

function start(name = 'applier') {
  const logger = recordingLogger();
  const metrics = new ApplierMetrics();
  const applier = new Applier(
    { objects, pages, clock, random, logger, metrics, codec: inlineCodec },
    { name, version: '1', vaultId, key },
  );
  const stop = new AbortController();
  const done = applier.run(stop.signal);
  const started = {
    applier,
    metrics,
    logger,
    stop: async () => {
      stop.abort();
      await done;
    },
  };
  running.push(started);
  return started;
}

async function statusOf(name = 'applier'): Promise<ApplierStatus['machines'][number] | undefined> {
  const at = vaultLayout.applierStatus(name);
  const stored = await objects.get(at);
  return stored && decodeDocument(applierStatusSchema, at, stored.body).machines[0];
}

/** Moves time on in seconds until the condition holds; fails after an hour. */
async function until(condition: () => Promise<boolean>): Promise<number> {
  for (let second = 0; second < 3600; second += 1) {
    if (await condition()) return second;
    await clock.advance(1000);
  }
  throw new Error(
    `still not so after an hour: ${JSON.stringify(await objects.get(vaultLayout.applierStatus('applier')))}`,
  );
}

async function pointsAre(count: number): Promise<boolean> {
  return (await listPoints(objects, machine.machineId)).lsns.length === count;
}

async function segments(): Promise<number[]> {
  const found: number[] = [];
  for await (const { key: at } of objects.list(vaultLayout.journalPrefix(machine.machineId))) {
    const seq = sequenceOfSegmentKey(at);
    if (seq !== undefined) found.push(seq);
  }
  return found;
}

async function problems(): Promise<string[]> {
  const found: string[] = [];
  for (const point of await readPoints(objects, machine.machineId)) {
    const barrier = machine.barriers.find(({ lsn }) => lsn === point.lsn);
    if (barrier === undefined) found.push(`no barrier at ${point.lsn}`);
    else found.push(...(await problemsOfPoint(pages, point, barrier)));
  }
  return found;
}

test('a machine in the catalog is applied, its points made, its positions told, and given back at the end', async () => {
  await writeRounds(2);
  await putCatalog();
  const { stop, applier, metrics } = start();
  await until(() => pointsAre(2));
  await writeRounds(1);
  expect(await until(() => pointsAre(3))).toBeLessThan(5);
  expect(await problems()).toEqual([]);
  await until(async () => (await statusOf())?.recoveryPointLsn === machine.lsn);
  expect(await statusOf()).toMatchObject({ appliedLsn: machine.lsn, behindBytes: 0 });
  applier.showMetrics();
  const text = await metrics.registry.metrics();
  expect(text).toContain(
    `farshore_applier_applied_lsn{namespace="sites",machine="shop"} ${machine.lsn}`,
  );
  expect(text).toContain('farshore_applier_points_total 3');
  expect((await readReplicaState(objects, machine.machineId))?.holder).toMatch(/^applier:applier:/);
  await stop();
  expect((await readReplicaState(objects, machine.machineId))?.holder).toBe('');
});

test('a machine that runs in Azure is left alone until it is back', async () => {
  await writeRounds(1);
  await putCatalog({ activeSide: 'Azure' });
  start();
  await clock.advance(60_000);
  expect(await pointsAre(0)).toBe(true);
  await putCatalog();
  await until(() => pointsAre(1));
});

test('without a key for this applier the status says so, and it goes on once there is one', async () => {
  await writeRounds(1);
  await putCatalog({ dataKey: [] });
  const { logger } = start();
  await until(async () => (await statusOf())?.error?.code === 'SealedForOthers');
  expect((await statusOf())?.behindBytes).toBeGreaterThan(0);
  await putCatalog();
  await until(() => pointsAre(1));
  await until(async () => (await statusOf())?.error === undefined);
  expect(logger.lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
});

test('a replica that a recovery holds is not taken, and is taken once it is released', async () => {
  await writeRounds(1);
  await putCatalog();
  const deps = { objects, pages, clock, logger: recordingLogger() };
  const options = { machineId: machine.machineId, disks: machine.disks, dataKey: machine.dataKey };
  const recovery = await Replica.open(deps, { ...options, holder: 'recovery:test-1' });
  start();
  await until(async () => (await statusOf())?.error?.code === 'ReplicaHeld');
  await clock.advance(300_000);
  await recovery.applyTo('end', { makePoints: true });
  await clock.advance(300_000);
  expect((await readReplicaState(objects, machine.machineId))?.holder).toBe('recovery:test-1');
  await recovery.close();
  await writeRounds(1);
  await until(() => pointsAre(2));
  expect(await problems()).toEqual([]);
});

test('a recovery takes the replica from a running applier', async () => {
  await writeRounds(1);
  await putCatalog();
  start();
  await until(() => pointsAre(1));
  const deps = { objects, pages, clock, logger: recordingLogger() };
  const options = { machineId: machine.machineId, disks: machine.disks, dataKey: machine.dataKey };
  const recovery = await Replica.open(deps, { ...options, holder: 'recovery:test-1' });
  await writeRounds(1);
  await until(async () => /ReplicaFenced|ReplicaHeld/.test((await statusOf())?.error?.code ?? ''));
  await recovery.applyTo('end', { makePoints: true });
  expect(await pointsAre(2)).toBe(true);
  await recovery.close();
  await writeRounds(1);
  await until(() => pointsAre(3));
  expect(await problems()).toEqual([]);
});

test('the newer of two appliers wins, and the older takes over when the newer is dead', async () => {
  await writeRounds(1);
  await putCatalog();
  start('older');
  await until(() => pointsAre(1));
  const newer = start('newer');
  await until(async () =>
    ((await readReplicaState(objects, machine.machineId))?.holder ?? '').startsWith(
      'applier:newer',
    ),
  );
  await writeRounds(1);
  await until(() => pointsAre(2));
  await clock.advance(600_000);
  const holder = async () => (await readReplicaState(objects, machine.machineId))?.holder ?? '';
  expect(await holder()).toMatch(/^applier:newer/);

  // Killed: it renews nothing and releases nothing.
  const dead = new StoreError('VaultUnreachable', 'the process is gone');
  const state = await objects.get(vaultLayout.replicaState(machine.machineId));
  objects.fault = (operation, at) =>
    operation === 'replace' && at.endsWith('state.json')
      ? { when: 'before', error: dead }
      : undefined;
  pages.fault = (operation) =>
    operation === 'release' ? { when: 'before', error: dead } : undefined;
  await newer.stop();
  objects.fault = undefined;
  pages.fault = undefined;
  expect((await objects.get(vaultLayout.replicaState(machine.machineId)))?.etag).toBe(state?.etag);
  await writeRounds(1);
  const seconds = await until(() => pointsAre(3));
  expect(seconds).toBeGreaterThan(60);
  expect(await holder()).toMatch(/^applier:older/);
  expect(await problems()).toEqual([]);
});

test('a damaged segment is reported with its code, and the points before it stay', async () => {
  await writeRounds(2);
  const at = vaultLayout.segment(machine.machineId, 2);
  const body = ((await objects.get(at))?.body ?? new Uint8Array()).slice();
  body[body.length - 9] = (body[body.length - 9] ?? 0) ^ 1;
  await objects.put(at, body);
  await putCatalog();
  start();
  await until(async () => (await statusOf())?.error?.code === 'SegmentKeyRefused');
  expect(await pointsAre(1)).toBe(true);
  expect(await problems()).toEqual([]);
});

test('a barrier that can not be proven is reported until one can be', async () => {
  await writeRounds(1);
  const blocks = [random.bytes(4096)];
  machine.data({ disk: 0, leaf: 1, blockMask: 1, zeroMask: 0, leafHash: random.bytes(32), blocks });
  machine.barrier();
  await machine.cut();
  await putCatalog();
  start();
  await until(async () => (await statusOf())?.error?.code === 'BarrierRootMismatch');
  await clock.advance(30_000);
  expect(await statusOf()).toMatchObject({
    appliedLsn: machine.lsn,
    error: { code: 'BarrierRootMismatch' },
  });
  machine.write({ index: 0, leaf: 1, blockMask: 0xffff, zeroMask: 0 });
  machine.barrier();
  await machine.cut();
  await until(async () => (await statusOf())?.error === undefined);
  expect(await pointsAre(2)).toBe(true);
});

test('points past their retention go while newer ones arrive', async () => {
  await writeRounds(10);
  await putCatalog({ policy: { name: 'policy', retentionSeconds: 180 } });
  start();
  // A barrier a minute: those of the last three minutes stay.
  await until(() => pointsAre(4));
  expect(await problems()).toEqual([]);
});

test('the journal past its retention goes, up to the newest point, and nothing while the machine runs in Azure', async () => {
  await writeRounds(8);
  const policy = { name: 'policy', retentionSeconds: 180 };
  await putCatalog({ policy });
  const { applier, metrics } = start();
  await until(() => pointsAre(8));
  await putCatalog({ policy, activeSide: 'Azure' });
  await clock.advance(1_200_000);
  expect(await segments()).toHaveLength(9);
  await putCatalog({ policy });
  await until(async () => (await segments()).length < 9);
  expect(await segments()).toEqual([8]);
  applier.showMetrics();
  expect(await metrics.registry.metrics()).toContain('farshore_applier_trimmed_segments_total 8');
  await writeRounds(1);
  await until(async () => (await statusOf())?.recoveryPointLsn === machine.lsn);
  expect(await problems()).toEqual([]);
});

test('a long journal is trimmed in many short steps', async () => {
  for (let segment = 0; segment < 250; segment += 1) {
    machine.resyncBegin();
    await machine.cut();
  }
  machine.resyncEnd();
  await writeRounds(1);
  await putCatalog({ policy: { name: 'policy', retentionSeconds: 1 } });
  start();
  const asked = () => objects.log.filter(({ operation }) => operation === 'remove').length;
  await until(async () => asked() > 0);
  expect(asked()).toBe(100);
  expect(await until(async () => (await segments()).length === 1)).toBeLessThan(10);
});

test('a newest point whose document is damaged holds nothing up', async () => {
  await writeRounds(2);
  await putCatalog();
  const { stop } = start();
  await until(() => pointsAre(2));
  await stop();
  await objects.put(vaultLayout.point(machine.machineId, machine.lsn), new Uint8Array([1]));
  await writeRounds(8);
  await putCatalog({ policy: { name: 'policy', retentionSeconds: 180 } });
  start('second');
  // The three of the last three minutes, the newest, and the damaged one.
  await until(() => pointsAre(5));
  expect((await statusOf('second'))?.error).toBeUndefined();
});

test('a machine that leaves the catalog is let go', async () => {
  await writeRounds(1);
  await putCatalog();
  start();
  await until(() => pointsAre(1));
  await objects.remove(vaultLayout.catalog(machine.machineId));
  await until(async () => (await readReplicaState(objects, machine.machineId))?.holder === '');
});

test('an unreachable vault stops nothing for good', async () => {
  await writeRounds(1);
  await putCatalog();
  let failing = true;
  const error = new StoreError('VaultUnreachable', 'no route');
  objects.fault = () => (failing ? { when: 'before', error } : undefined);
  start();
  await clock.advance(120_000);
  failing = false;
  await until(() => pointsAre(1));
});
