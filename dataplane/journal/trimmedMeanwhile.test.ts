/** Who reads or continues a journal while it is trimmed: at any call to the vault others go on, make points, and trim. */
import { expect, test } from 'vitest';
import { errorCode } from '../../platform/errors.ts';
import { atEveryCall } from '../../test/fakes/atEveryCall.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { AppliedMachine } from '../../test/replica/appliedMachine.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { CHAIN_START, type ChainPosition } from './chain.ts';
import { claimJournal, sealJournal } from './claim.ts';
import { newestPoint } from './points.ts';
import { inlineCodec } from './segmentCodec.ts';
import { commitSegment } from './segmentCommit.ts';
import { raiseTrimMark } from './trimMark.ts';

const all = { retentionMs: 0, nowMs: 9e12 };

function makeVault() {
  const clock = new ManualClock();
  const objects = new MemoryObjectStore({ clock });
  const pages = new MemoryPageBlobStore({ clock });
  const applied = new AppliedMachine({ objects, pages, clock }, { seed: 41 });
  return { objects, applied };
}

/** Two rounds more unless somebody else has the journal now, all of it applied, and everything trimmed but for what must stay. */
async function goOnAndTrim({ applied }: { applied: AppliedMachine }): Promise<void> {
  if ((await applied.chain().newest())?.position.seq === applied.machine.seq)
    await applied.write(2);
  await applied.apply();
  await applied.trim(all);
}

async function appliedWorld() {
  const world = makeVault();
  await world.applied.write(3);
  await world.applied.apply();
  return world;
}

test('a reader that begins before the mark is told that the journal was trimmed, not that it has a gap', async () => {
  const { applied } = await appliedWorld();
  await applied.trim(all);
  const next = async (after: ChainPosition) => await applied.chain().segments(after).next();
  await expect(next(CHAIN_START)).rejects.toMatchObject({ code: 'ChainTrimmed' });
  await applied.write(2);
  const fourth = vaultLayout.segment(applied.machine.machineId, 4);
  await applied.deps.objects.remove(fourth);
  const newest = await newestPoint(applied.deps.objects, applied.machine.machineId);
  if (newest === undefined) throw new Error('no point');
  await expect(next({ ...newest.segment, lsn: newest.lsn })).rejects.toMatchObject({
    code: 'ChainGap',
  });
});

test('a reader on its way sees what follows or is told that it was trimmed, never a gap, damage or a false end', async () => {
  const calls = await atEveryCall({
    world: appliedWorld,
    meanwhile: goOnAndTrim,
    act: async ({ applied }) => {
      const seen: number[] = [];
      try {
        for await (const { header, batches } of applied.chain().segments(CHAIN_START)) {
          for await (const { count } of batches()) expect(count).toBeGreaterThan(0);
          seen.push(header.seq);
        }
        return { seen, error: undefined };
      } catch (error) {
        return { seen, error: errorCode(error) };
      }
    },
    check: async ({ seen, error }) => {
      expect(seen).toEqual(seen.map((_, place) => place));
      if (error === undefined) expect(seen.at(-1)).toBeGreaterThanOrEqual(3);
      else expect(error).toMatch(/^(ChainTrimmed|SegmentRemoved)$/);
    },
  });
  expect(calls).toBeGreaterThan(8);
});

test('the newest segment is found, however much is added and trimmed while it is looked for', async () => {
  const claims = async ({ objects, applied }: ReturnType<typeof makeVault>, from: number) => {
    const { machineId: id, dataKey: key, random } = applied.machine;
    const deps = { ...applied.deps, objects, codec: inlineCodec, random };
    for (let epoch = from; epoch < from + 20; epoch += 1)
      await claimJournal(deps, { machineId: id, dataKey: key, writerEpoch: epoch, side: 'Source' });
  };
  await atEveryCall({
    world: async () => {
      const world = makeVault();
      await claims(world, 1);
      return world;
    },
    meanwhile: async (world) => {
      await claims(world, 21);
      const { machineId: id } = world.applied.machine;
      await raiseTrimMark(world.objects, { machineId: id, firstSeq: 38 });
      for (let seq = 0; seq < 38; seq += 1)
        await world.objects.remove(vaultLayout.segment(id, seq));
    },
    act: async ({ applied }) => (await applied.chain().newest())?.position.seq,
    // What it answers was the newest at some moment of the call.
    check: async (found) => expect([19, 39]).toContain(found),
  });
});

test('what a writer that slept put below the mark is nobody’s newest segment', async () => {
  const { applied, objects } = await appliedWorld();
  const second = vaultLayout.segment(applied.machine.machineId, 2);
  const body = (await objects.get(second))?.body ?? new Uint8Array();
  await applied.trim(all);
  await objects.put(second, body);
  expect((await applied.chain().newest())?.position.seq).toBe(3);
  expect((await applied.chain().newest({ from: 2 }))?.position.seq).toBe(3);
});

test('nor what one puts there while the newest segment is looked for', async () => {
  const { applied, objects } = await appliedWorld();
  const second = vaultLayout.segment(applied.machine.machineId, 2);
  const body = (await objects.get(second))?.body ?? new Uint8Array();
  objects.interleave = async (operation) => {
    if (operation !== 'list') return;
    objects.interleave = undefined;
    await applied.trim(all);
    await objects.put(second, body);
  };
  expect((await applied.chain().newest())?.position.seq).toBe(3);
});

async function claim({ applied }: { applied: AppliedMachine }, writerEpoch: number) {
  const { machineId, dataKey, random } = applied.machine;
  const request = { machineId, dataKey, writerEpoch, side: 'Source' } as const;
  return await claimJournal({ ...applied.deps, codec: inlineCodec, random }, request);
}

/** As epoch 2. */
async function othersTakeOver(world: { applied: AppliedMachine }): Promise<void> {
  const { applied } = world;
  if ((await applied.chain().newest())?.position.seq === applied.machine.seq)
    await applied.machine.claim();
  await goOnAndTrim(world);
}

test('a claim of the highest epoch ends up behind the newest segment', async () => {
  await atEveryCall({
    world: appliedWorld,
    meanwhile: othersTakeOver,
    act: (world) => claim(world, 3),
    check: async (claimed, { applied }) => {
      if (claimed.outcome !== 'claimed') throw new Error('it outranks everybody');
      expect((await applied.chain().newest())?.position).toEqual(claimed.position);
      // A claim holds no record: the journal leads to the same disks.
      expect(await applied.problems({ of: 'newest' })).toEqual([]);
      const there = await applied.segments();
      expect(there).toEqual(there.map((_, place) => (there[0] ?? 0) + place));
    },
  });
});

test('a claim that others overtake is refused, or they know of it', async () => {
  await atEveryCall({
    world: appliedWorld,
    meanwhile: othersTakeOver,
    act: (world) => claim(world, 1),
    check: async (claimed, { applied }) => {
      // Either the others came before it, or it came before them and they know.
      if (claimed.outcome === 'fenced') expect(claimed.fenced).toEqual({ by: 'HigherEpoch' });
      else expect((await applied.chain().newest())?.position).toEqual(claimed.position);
      expect(await applied.problems({ of: 'newest' })).toEqual([]);
    },
  });
});

test('a seal ends the journal at its end', async () => {
  await atEveryCall({
    world: appliedWorld,
    meanwhile: goOnAndTrim,
    act: async ({ applied }) => {
      const { machineId, dataKey, random } = applied.machine;
      return await sealJournal(
        { ...applied.deps, codec: inlineCodec, random },
        { machineId, dataKey, failover: 'lost-site', side: 'Source' },
      );
    },
    check: async (sealed, { applied }) => {
      const newest = await applied.chain().newest();
      expect(newest).toMatchObject({ position: sealed.position, header: { kind: 'Seal' } });
      expect(await applied.problems({ of: 'newest' })).toEqual([]);
    },
  });
});

test('whoever lost the replica finds that out, and takes a trimmed journal for no damage', async () => {
  const outcomes = new Set<string>();
  await atEveryCall({
    world: async () => {
      const world = makeVault();
      await world.applied.write(1);
      await world.applied.apply();
      await world.applied.write(2);
      return world;
    },
    meanwhile: goOnAndTrim,
    act: async ({ applied }) => {
      try {
        const replica = await applied.open('applier:older');
        await replica.applyTo('end', { makePoints: true });
        return 'applied';
      } catch (error) {
        return errorCode(error);
      }
    },
    check: async (outcome, { applied }) => {
      outcomes.add(outcome);
      expect(await applied.problems()).toEqual([]);
    },
  });
  expect([...outcomes].sort()).toEqual(['ReplicaFenced', 'applied']);
});

test('a number below the mark is nobody’s: what was put there is taken away, and the newest segment is told', async () => {
  const { applied, objects } = await appliedWorld();
  await applied.trim(all);
  const { machineId: id } = applied.machine;
  const outcome = await commitSegment(objects, {
    machineId: id,
    seq: 2,
    body: new Uint8Array(10),
    digest: 'ab'.repeat(32),
  });
  expect(outcome).toMatchObject({ outcome: 'taken', by: { position: { seq: 3 } } });
  expect(await applied.segments()).toEqual([3]);
});
