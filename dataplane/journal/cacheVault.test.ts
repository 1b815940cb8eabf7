/** What a cache does with the vault: puts its segments there, and begins again from it. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { JournalWorld, machineId, rootOf, sda, until } from '../../test/fakes/journalWorld.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import type { SourceAgent } from '../../test/fakes/sourceAgent.ts';
import { protectedMachine } from '../../test/fixtures/protectedMachine.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { HASH_SIZE, LEAF_SIZE } from './record.ts';

const unreachable = new StoreError('VaultUnreachable', 'no answer');

describe('putting segments', () => {
  test('an answer that was lost is recognised: the same bytes are there, so the segment is ours', async () => {
    const world = new JournalWorld();
    const { cache, journal, agent } = await protectedMachine(world);
    let lost = 0;
    world.objects.fault = (operation) =>
      operation === 'putIfAbsent' && lost++ === 0
        ? { when: 'after', error: unreachable }
        : undefined;
    agent.scribble(2);
    await agent.barrier();
    await until(() => world.clock.sleeping > 0);
    expect(journal.uploadError()?.error).toBe(unreachable);
    await world.clock.advance(1000);
    await agent.uploaded();
    expect(journal.uploadError()).toBeUndefined();
    expect(journal.fenced()).toBeUndefined();
    expect((await world.replayVault()).wrongBarriers).toEqual([]);
    await cache.close();
  });

  test('a vault that is gone for hours stops nothing but the upload, which then catches up in order', async () => {
    const world = new JournalWorld({ limits: { segmentBytes: 100_000, logFileBytes: 150_000 } });
    const { cache, journal, agent } = await protectedMachine(world);
    world.objects.fault = () => ({ when: 'before', error: unreachable });
    for (let round = 0; round < 6; round++) {
      agent.scribble(5);
      await agent.barrier();
    }
    await until(() => world.clock.sleeping > 0);
    await world.clock.advance(3 * 3_600_000);
    expect(journal.uploadError()?.error).toBe(unreachable);
    expect(cache.usage().oldestNotUploadedMs).toBeLessThan(world.clock.now() - 3_000_000);
    expect(journal.backlogBytes()).toBeGreaterThan(0);
    const warned = world.logger.lines.filter(({ level }) => level === 'warn');
    expect(warned).toHaveLength(1);
    world.objects.fault = undefined;
    await world.clock.advance(60_000);
    await agent.uploaded();
    const replayed = await world.replayVault();
    expect(replayed.wrongBarriers).toEqual([]);
    expect(rootOf(replayed.disk)).toBe(agent.root());
    await cache.close();
  });

  test('records without a barrier are in the vault after sealAfterMs', async () => {
    const world = new JournalWorld({ limits: { sealAfterMs: 5000 } });
    const { cache, journal, agent } = await protectedMachine(world);
    agent.scribble(1);
    await agent.sendDirty();
    const { uploadedLsn, journaledLsn } = journal.positions();
    await until(() => world.clock.sleeping > 0);
    await world.clock.advance(4000);
    expect(journal.positions().uploadedLsn).toBe(uploadedLsn);
    await world.clock.advance(1001);
    await until(() => journal.positions().uploadedLsn === journaledLsn);
    await cache.close();
  });

  test('records go to an idle vault without waiting for more, and collect while one segment is on its way', async () => {
    const world = new JournalWorld({ limits: { sealEarlyBytes: 4096 } });
    const { cache, journal, agent } = await protectedMachine(world);
    const put = Promise.withResolvers<void>();
    world.objects.interleave = (operation) =>
      operation === 'putIfAbsent' ? put.promise : undefined;
    const before = world.objects.keys().length;
    // Each more than enough to be sealed: the first is put at once, the others wait for it in one cut.
    for (let round = 0; round < 4; round++) {
      agent.scribble(5);
      await agent.sendDirty();
    }
    const { journaledLsn } = journal.positions();
    put.resolve();
    await until(() => journal.positions().uploadedLsn === journaledLsn);
    expect(world.objects.keys().length - before).toBe(2);
    await cache.close();
  });
});

describe('a process server without its cache', () => {
  test('gets the leaf table from the journal, and asks for no resync', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    await first.cache.close();
    const cache = await world.open({ disk: new MemoryDisk() });
    expect(cache.cacheId).not.toBe(first.cache.cacheId);
    const journal = await cache.openMachine(world.machine());
    expect(journal.positions().uploadedBarrier?.lsn).toBe(
      first.journal.positions().uploadedBarrier?.lsn,
    );
    expect(journal.resync()).toEqual({ required: false });
    first.agent.connect(journal);
    expect(await first.agent.sameLeaves()).toHaveLength(sda.sizeBytes / LEAF_SIZE);
    first.agent.scribble(2);
    const barrier = await first.agent.barrier();
    expect(barrier.disks[0]?.root).toBe(first.agent.root());
    await first.agent.uploaded();
    await cache.close();
  });

  test('gets it from the newest point when the journal before that was trimmed', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    await writePoint(world, first.agent);
    first.agent.scribble(3);
    await first.agent.barrier();
    await first.agent.uploaded();
    await first.cache.close();
    await world.objects.remove(vaultLayout.segment(machineId, 0));
    await world.objects.remove(vaultLayout.segment(machineId, 1));
    const cache = await world.open({ disk: new MemoryDisk() });
    const journal = await cache.openMachine(world.machine({ disks: [{ ...sda, sizeBytes: 0 }] }));
    expect(journal.resync()).toEqual({ required: false });
    expect(journal.disks()).toEqual([sda]);
    first.agent.connect(journal);
    expect(await first.agent.sameLeaves()).toHaveLength(sda.sizeBytes / LEAF_SIZE);
    const barrier = await first.agent.barrier();
    expect(barrier.disks[0]?.root).toBe(first.agent.root());
    await cache.close();
  });

  test('believes nothing and demands a resync when the vault can not give the hashes back', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    first.agent.scribble(1);
    await first.agent.barrier();
    await first.agent.uploaded();
    await first.cache.close();
    await world.objects.remove(vaultLayout.segment(machineId, 1));
    const twin = await world.open({ disk: new MemoryDisk() });
    const journal = await twin.openMachine(world.machine({ writerEpoch: 2 }));
    expect(journal.resync()).toEqual({ required: true, reason: 'VaultGap' });
    first.agent.connect(journal);
    expect(await first.agent.sameLeaves()).toEqual([]);
    await first.agent.resyncIfRequired();
    const barrier = await first.agent.barrier();
    expect(barrier.disks[0]?.root).toBe(first.agent.root());
    await twin.close();
  });

  test('keeps what was acknowledged when the answers to its claim get lost', async () => {
    const world = new JournalWorld();
    const first = await protectedMachine(world);
    world.objects.fault = () => ({ when: 'before', error: unreachable });
    first.agent.scribble(2);
    await first.agent.barrier();
    const acknowledged = first.journal.positions().lastBarrierLsn;
    await first.cache.close();
    const cache = await world.open();
    let lost = 0;
    world.objects.fault = (operation) =>
      operation === 'putIfAbsent' && lost++ < 2 ? { when: 'after', error: unreachable } : undefined;
    const opening = cache.openMachine(world.machine({ writerEpoch: 2 }));
    let opened = false;
    void opening.then(() => {
      opened = true;
    });
    for (let round = 0; !opened && round < 200; round += 1) await world.clock.advance(1_000);
    const journal = await opening;
    expect(lost).toBeGreaterThan(2);
    expect(journal.positions().lastBarrierLsn).toBe(acknowledged);
    await cache.close();
  });

  test('waits for a vault that does not answer, says why, and can be called off', async () => {
    const world = new JournalWorld();
    world.objects.fault = () => ({ when: 'before', error: unreachable });
    const cache = await world.open();
    const stop = new AbortController();
    const heard: Error[] = [];
    const opening = cache.openMachine({
      ...world.machine(),
      signal: stop.signal,
      onWaiting: (error) => heard.push(error),
    });
    await until(() => heard.length === 1);
    await world.clock.advance(5000);
    expect(heard.length).toBeGreaterThan(1);
    stop.abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
    world.objects.fault = undefined;
    await cache.openMachine(world.machine());
    await cache.close();
  });
});

/** What an applier leaves behind for the newest barrier. */
async function writePoint(world: JournalWorld, agent: SourceAgent): Promise<void> {
  const newest = await world.chain().newest();
  const barrier = newest?.header.barriers.at(-1);
  if (newest === undefined || barrier === undefined) throw new Error('no barrier yet');
  const key = vaultLayout.replicaLeaves(machineId, 'sda');
  await world.pages.create(key, { size: 2048, sequenceNumber: 1 });
  const fence = await world.pages.fence(key, { sequenceNumber: 1, leaseSeconds: 60 });
  const table = new Uint8Array(2048);
  const zero = createHash('sha256').update(new Uint8Array(LEAF_SIZE)).digest();
  for (let leaf = 0; leaf < sda.sizeBytes / LEAF_SIZE; leaf++) {
    const hash = agent.source.leafHash(leaf);
    if (Buffer.compare(hash, zero) !== 0) table.set(hash, leaf * HASH_SIZE);
  }
  await world.pages.write(key, table, 0, fence);
  const { snapshot } = await world.pages.snapshot(key, { fence, metadata: {} });
  const point = {
    machineId,
    ...barrier,
    segment: { seq: newest.position.seq, digest: newest.position.digest, writerEpoch: 1 },
    disks: [
      {
        ...{ index: 0, name: 'sda', sizeBytes: sda.sizeBytes, root: agent.root() },
        replica: { key: vaultLayout.replica(machineId, 'sda'), snapshot },
        leaves: { key, snapshot },
      },
    ],
    createdAt: world.clock.now(),
  };
  await world.objects.put(
    vaultLayout.point(machineId, barrier.lsn),
    encodeDocument(pointDocumentSchema, point),
  );
}
