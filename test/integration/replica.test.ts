/** Replicas and the applier's process against a real blob service, checked byte for byte and by QEMU's own reading of the VHDs. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Gate } from '../../dataplane/applier/gate.ts';
import { ApplierMetrics } from '../../dataplane/applier/metrics.ts';
import { SampledVerification } from '../../dataplane/applier/verification.ts';
import { CHAIN_START } from '../../dataplane/journal/chain.ts';
import { newestPoint, newestSoundPoint, readPoints } from '../../dataplane/journal/points.ts';
import { readReplicaState } from '../../dataplane/journal/replicaFence.ts';
import { commitSegment } from '../../dataplane/journal/segmentCommit.ts';
import { encodeVhdFooter, vhdBodySize, vhdUniqueId } from '../../dataplane/journal/vhd.ts';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultStores,
} from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { certificateRequestDer } from '../../vault/authority.ts';
import { applierStatusSchema } from '../../vault/documents/applierStatus.ts';
import { catalogDocumentSchema } from '../../vault/documents/catalog.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { enrolmentAnswerSchema, enrolmentRequestSchema } from '../../vault/documents/enrolment.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { answerMac, tokenKey } from '../../vault/enrolmentProof.ts';
import { boxContext, decodePublicKey, sealKeyForAll } from '../../vault/keys.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { ShiftedClock } from '../fakes/shiftedClock.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import { AppliedMachine } from '../replica/appliedMachine.ts';
import { problemsOfPoint, problemsOfPoints } from '../replica/checkPoint.ts';
import { openReplica } from '../replica/openReplica.ts';
import { type SampleBarrier, SampleMachine } from '../replica/sampleMachine.ts';
import { ApplierProcess } from '../servers/applierProcess.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';

const MIB = 1 << 20;
const world = { clock: systemClock, random: systemRandom };
const run = promisify(execFile);

let azurite: Azurite;
let directory: string;
let stores: VaultStores;
let container = 0;

beforeAll(async () => {
  azurite = await startAzurite();
  directory = await mkdtemp(path.join(tmpdir(), 'farshore-replica-'));
});

afterAll(async () => {
  await azurite?.stop();
  await rm(directory, { recursive: true, force: true });
});

function access() {
  return { connectionString: azurite.connectionString, container: `vault-${container}` };
}

beforeEach(async () => {
  container += 1;
  await ensureVaultContainer(world, access());
  stores = openVaultStores(world, access());
});

function deps() {
  return { ...stores, clock: systemClock, logger: silentLogger };
}

/** Writes a snapshot into a file, holes where the blob has no pages. */
async function download(blob: { key: string; snapshot: string }, file: string): Promise<void> {
  const { key, snapshot } = blob;
  const handle = await open(file, 'w');
  try {
    await handle.truncate((await stores.pages.info(key, { snapshot }))?.size ?? 0);
    for await (const range of stores.pages.ranges(key, { snapshot }))
      for (let at = 0; at < range.length; at += 4 * MIB) {
        const offset = range.offset + at;
        const length = Math.min(4 * MIB, range.length - at);
        const bytes = await stores.pages.read(key, { offset, length }, { snapshot });
        await handle.write(bytes, 0, length, offset);
      }
  } finally {
    await handle.close();
  }
}

/** What QEMU makes of a point's VHDs: exact sizes, and content equal to the disks at the barrier. */
async function checkWithQemu(point: PointDocument, barrier: SampleBarrier): Promise<void> {
  for (const disk of point.disks) {
    const body = barrier.bodies.get(disk.index) ?? new Uint8Array();
    const vhd = path.join(directory, `${disk.name}.vhd`);
    const raw = path.join(directory, `${disk.name}.raw`);
    await download(disk.replica, vhd);
    await writeFile(raw, body);
    const { stdout } = await run('qemu-img', ['info', '--output=json', '-f', 'vpc', vhd]);
    expect(JSON.parse(stdout)).toMatchObject({ 'virtual-size': body.length });
    // Rejects when they differ.
    await run('qemu-img', ['compare', '-f', 'vpc', '-F', 'raw', vhd, raw]);
  }
}

test('a page that was overwritten past the fence is found, marked, and whole again once the source has sent it', async () => {
  const machine = new SampleMachine({ objects: stores.objects, seed: 71, sizes: [2 * MIB] });
  const { machineId } = machine;
  for (let leaf = 0; leaf < 32; leaf += 1)
    machine.write({ index: 0, leaf, blockMask: 0xffff, zeroMask: 0 });
  machine.barrier();
  await machine.cut();
  let replica = await openReplica(deps(), machine, { holder: 'applier:one' });
  await replica.applyTo('end', { makePoints: true });
  await replica.close();
  // Somebody with the account's credential writes where only the applier may.
  const key = vaultLayout.replica(machineId, machine.disks[0]?.name ?? '');
  const { sequenceNumber = 0 } = (await stores.pages.info(key)) ?? {};
  const fence = await stores.pages.fence(key, { sequenceNumber, leaseSeconds: 60 });
  await stores.pages.write(key, new Uint8Array(512).fill(7), 9 * 65_536, fence);
  await stores.pages.release(key, fence);
  machine.write({ index: 0, leaf: 20, blockMask: 1, zeroMask: 0 });
  machine.barrier();
  await machine.cut();
  replica = await openReplica(deps(), machine, { holder: 'applier:two' });
  await replica.applyTo('end', { makePoints: true });
  const verify = async () => {
    const newest = await newestPoint(stores.objects, machineId);
    if (newest === undefined) throw new Error('no point');
    const clock = new ShiftedClock();
    const logger = silentLogger;
    const verification = new SampledVerification({
      ...stores,
      clock,
      logger,
      metrics: new ApplierMetrics(),
      verifyGate: new Gate(1),
    });
    for (let turn = 0; turn < 4; turn += 1) {
      const run = { machineId, replica, newestPoint: newest, sharePerDay: 100 };
      await verification.run(run, new AbortController().signal);
      clock.pass(43_200_000);
    }
  };
  await verify();
  expect(replica.state.damaged).toEqual([{ disk: 0, leaf: 9 }]);
  const [first, second] = machine.barriers.map(({ lsn }) => lsn);
  // The point of before the overwriting holds the leaf whole.
  expect([...(await listPoints(stores.objects, machineId)).damaged]).toEqual([second]);
  expect((await newestSoundPoint(stores.objects, machineId))?.lsn).toBe(first);
  machine.write({ index: 0, leaf: 9, blockMask: 0xffff, zeroMask: 0 });
  machine.barrier();
  await machine.cut();
  await replica.applyTo('end', { makePoints: true });
  expect(replica.state.damaged).toBeUndefined();
  await verify();
  expect(replica.state.damaged).toBeUndefined();
  const sound = await newestSoundPoint(stores.objects, machineId);
  const last = machine.barriers.at(-1);
  if (sound === undefined || last === undefined) throw new Error('no sound point');
  expect(await problemsOfPoint(stores.pages, sound, last)).toEqual([]);
  await replica.close();
});

test('a replica equals the disks at every barrier, and QEMU reads its VHDs at their exact size', async () => {
  const sizes = [17 * MIB, 5 * MIB + 512];
  const machine = new SampleMachine({ objects: stores.objects, seed: 21, sizes });
  await machine.writeRounds(3, { records: 60, wholeEvery: 4 });
  const replica = await openReplica(deps(), machine, { holder: 'applier:test:1' });
  await replica.applyTo('end', { makePoints: true });
  await replica.close();
  expect(await problemsOfPoints(stores, machine)).toEqual([]);
  const points = await readPoints(stores.objects, machine.machineId);
  expect(points.map(({ lsn }) => lsn)).toEqual(machine.barriers.map(({ lsn }) => lsn));
  for (const [place, point] of points.entries())
    await checkWithQemu(point, machine.barriers[place] as SampleBarrier);
});

test('the newer of two holders wins on every blob; the older one writes nothing more', async () => {
  const machine = new SampleMachine({ objects: stores.objects, seed: 22, sizes: [2 * MIB] });
  await machine.writeRounds(1, { records: 20, wholeEvery: 4 });
  const older = await openReplica(deps(), machine, { holder: 'applier:older:1' });
  await older.applyTo('end', { makePoints: true });
  const newer = await openReplica(deps(), machine, { holder: 'applier:newer:1' });
  await machine.writeRounds(1, { records: 20, wholeEvery: 4 });
  await expect(older.applyTo('end', { makePoints: true })).rejects.toMatchObject({
    code: 'ReplicaFenced',
    holder: 'applier:newer:1',
  });
  await older.close();
  await newer.applyTo('end', { makePoints: true });
  await newer.close();
  expect((await listPoints(stores.objects, machine.machineId)).lsns).toHaveLength(2);
  expect(await problemsOfPoints(stores, machine)).toEqual([]);
});

test('past the retention go points, snapshots and segments; the journal reads on, and takes nothing of a writer that slept', async () => {
  const hour = 3_600_000;
  const startMs = systemClock.now() + hour;
  const applied = new AppliedMachine({ ...stores, clock: systemClock }, { seed: 24, startMs });
  const { machineId } = applied.machine;
  await applied.write(4);
  await applied.apply();
  const slept = (await stores.objects.get(vaultLayout.segment(machineId, 2)))?.body;
  if (slept === undefined) throw new Error('segment 2 is missing');
  const nowMs = startMs + hour;
  await applied.trim({ retentionMs: 2 * hour, nowMs });
  expect(await applied.segments()).toEqual([0, 1, 2, 3, 4]);
  await applied.retire({ retentionMs: 0, nowMs });
  await applied.trim({ retentionMs: 0, nowMs });
  expect(await applied.segments()).toEqual([4]);
  expect((await listPoints(stores.objects, machineId)).lsns).toEqual([applied.machine.lsn]);
  for (const key of [vaultLayout.replica, vaultLayout.replicaLeaves]) {
    const left: string[] = [];
    for await (const { snapshot } of stores.pages.snapshots(key(machineId, 'disk-0')))
      left.push(snapshot);
    expect(left).toHaveLength(1);
  }
  await expect(applied.chain().segments(CHAIN_START).next()).rejects.toMatchObject({
    code: 'ChainTrimmed',
  });
  const digest = createHash('sha256').update(slept).digest('hex');
  const late = { machineId, seq: 2, body: slept, digest };
  expect(await commitSegment(stores.objects, late)).toMatchObject({
    outcome: 'taken',
    by: { position: { seq: 4 } },
  });
  expect(await applied.segments()).toEqual([4]);
  await applied.write(2);
  await applied.apply();
  expect(await applied.problems()).toEqual([]);
});

test('QEMU reads a footer of any size exactly, up to its own limit of 2040 GiB', async () => {
  const gib = 1024 * MIB;
  const sizes = [1, MIB, MIB + 512, 17 * MIB, 127 * gib, 500 * gib + 3 * MIB, 2040 * gib];
  for (const size of sizes) {
    const bodySize = vhdBodySize(size);
    const file = path.join(directory, 'sized.vhd');
    const uniqueId = vhdUniqueId({ machineId: 'ab'.repeat(16), index: 0 });
    const handle = await open(file, 'w');
    await handle.write(encodeVhdFooter({ bodySize, uniqueId }), 0, 512, bodySize);
    await handle.close();
    const { stdout } = await run('qemu-img', ['info', '--output=json', '-f', 'vpc', file]);
    expect(JSON.parse(stdout)['virtual-size']).toBe(bodySize);
  }
});

const token = 'one-time-token-of-the-test';
const vaultId = 'ef'.repeat(16);

/** What the operator does: answers the enrolment, seals the data key for the applier, enters the machine into the catalog. */
async function takeIn(machine: SampleMachine, applier: ApplierProcess): Promise<void> {
  const { objects } = stores;
  let key = '';
  await applier.waitFor(async () => {
    for await (const found of objects.list(vaultLayout.enrolmentsPrefix)) key = found.key;
    return key !== '';
  });
  const body = (await objects.get(key))?.body ?? new Uint8Array();
  const request = decodeDocument(enrolmentRequestSchema, key, body);
  const id = createHash('sha256').update(certificateRequestDer(request.csrPem)).digest('hex');
  const shown = { certificatePem: '', caCertificatePem: 'CA' };
  await objects.putIfAbsent(
    vaultLayout.enrolmentAnswer(id),
    encodeDocument(enrolmentAnswerSchema, {
      outcome: 'accepted',
      ...shown,
      mac: answerMac({ key: tokenKey(token), ...shown }),
    }),
  );
  const publicKey = decodePublicKey(request.encryptionKey ?? '');
  await objects.put(
    vaultLayout.catalog(machine.machineId),
    encodeDocument(catalogDocumentSchema, {
      machineId: machine.machineId,
      name: 'shop',
      namespace: 'sites',
      createdAt: 0,
      writerEpoch: 1,
      disks: machine.disks,
      dataKey: sealKeyForAll({
        random: systemRandom,
        recipients: [{ kind: 'applier', publicKey }],
        secret: machine.dataKey,
        context: boxContext.dataKey(vaultId, machine.machineId),
      }),
      activeSide: 'Source',
      policy: { name: 'policy', retentionSeconds: 86_400 },
      target: {},
    }),
  );
}

test('an applier killed without warning in the middle goes on where it was, and gives the replica back at the end', async () => {
  const sizes = [8 * MIB, 4 * MIB];
  const machine = new SampleMachine({ objects: stores.objects, seed: 23, sizes });
  await machine.writeRounds(8, { records: 40, wholeEvery: 4 });
  const state = await mkdtemp(path.join(directory, 'applier-'));
  const bootstrap = path.join(state, 'bootstrap.json');
  await writeFile(
    bootstrap,
    JSON.stringify({
      name: 'applier',
      vault: access(),
      vaultId,
      controllerPublicKey: Buffer.alloc(32).toString('base64url'),
      token,
    }),
  );
  const points = async () => (await listPoints(stores.objects, machine.machineId)).lsns.length;
  let applier = new ApplierProcess({ bootstrap, state });
  try {
    await takeIn(machine, applier);
    // Killed whenever another point or two are there; the process before it is fenced each time.
    for (let wanted = 1; wanted <= 5; wanted += 2) {
      const killed = applier;
      await killed.waitFor(async () => (await points()) >= wanted);
      await killed.end('SIGKILL');
      applier = new ApplierProcess({ bootstrap, state });
    }
    await machine.writeRounds(1, { records: 10, wholeEvery: 4 });
    const last = applier;
    await last.waitFor(async () => (await points()) === machine.barriers.length);
    await last.waitFor(async () => {
      const key = vaultLayout.applierStatus('applier');
      const stored = await stores.objects.get(key);
      const status = stored && decodeDocument(applierStatusSchema, key, stored.body);
      return status?.machines[0]?.recoveryPointLsn === machine.lsn;
    });
    expect(await last.metrics()).toContain(
      `farshore_applier_applied_lsn{namespace="sites",machine="shop"} ${machine.lsn}`,
    );
    expect(await last.end('SIGTERM')).toBe(0);
  } finally {
    await applier.end('SIGKILL');
  }
  expect(await problemsOfPoints(stores, machine)).toEqual([]);
  expect((await readReplicaState(stores.objects, machine.machineId))?.holder).toBe('');
  for (const disk of ['disk-0', 'disk-1'])
    expect((await stores.pages.info(vaultLayout.replica(machine.machineId, disk)))?.leased).toBe(
      false,
    );
});
