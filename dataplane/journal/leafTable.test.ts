import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { standsHostileBytes } from '../../test/fuzz/hostile.ts';
import { leafTable } from '../../test/fuzz/targets/cache.ts';
import { LeafAnswer, LeafTable } from './leafTable.ts';
import { DiskTree, ZERO_LEAF_HASH } from './merkle.ts';
import { HASH_SIZE } from './record.ts';
import { SparseBitmap } from './sparseBitmap.ts';

const GIB = 2 ** 30;
const hashOf = (value: number) =>
  new Uint8Array(createHash('sha256').update(String(value)).digest());

async function openTable(disk: MemoryDisk, sizeBytes: number, fresh: boolean) {
  return await LeafTable.open({ disk, path: 't', sizeBytes, fresh });
}

describe('LeafTable', () => {
  test('over files of any bytes holds what is in them, and nothing past the disk’s end', async () => {
    await standsHostileBytes(leafTable, 100);
  });

  test('holds what was set through flushes, syncs and reopening, as a plain map does', async () => {
    const leaf = fc.oneof(fc.nat(300), fc.nat(16_000));
    const step = fc.oneof(
      fc.record({ do: fc.constant('set' as const), leaf, value: fc.nat(5), settled: fc.boolean() }),
      fc.record({ do: fc.constantFrom('sync', 'reopen', 'settleAll') }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const disk = new MemoryDisk();
        let table = await openTable(disk, GIB, true);
        const hashes = new Map<number, number>();
        const unsettled = new Set<number>();
        for (const each of steps) {
          if (each.do === 'set') {
            table.set(
              each.leaf,
              each.value === 0 ? ZERO_LEAF_HASH : hashOf(each.value),
              each.settled,
            );
            hashes.set(each.leaf, each.value);
            if (each.settled) unsettled.delete(each.leaf);
            else unsettled.add(each.leaf);
          } else if (each.do === 'settleAll') {
            table.settleAll();
            unsettled.clear();
          } else {
            await table.sync();
            if (each.do === 'reopen') {
              await table.close();
              disk.crash();
              await disk.makeDirectory('.');
              table = await openTable(disk, GIB, false);
            }
          }
          if (each.do !== 'sync' && each.do !== 'reopen') await disk.syncDirectory('.');
        }
        await disk.syncDirectory('.');
        for (const [at, value] of hashes) {
          const asked = value === 0 ? ZERO_LEAF_HASH : hashOf(value);
          const [answer] = await table.ask(at, asked);
          expect(answer).toBe(unsettled.has(at) ? LeafAnswer.Differs : LeafAnswer.SameUploaded);
          expect((await table.ask(at, hashOf(99)))[0]).toBe(LeafAnswer.Differs);
        }
        const fresh = new DiskTree({ sizeBytes: GIB, known: 'unread' });
        expect(await table.root()).toBe(await fresh.root(table));
        await table.close();
      }),
      { numRuns: 40 },
    );
  });

  test('of a 1 TiB disk with a little data takes little space', async () => {
    const disk = new MemoryDisk();
    const table = await openTable(disk, 2 ** 40, true);
    for (let leaf = 0; leaf < 3000; leaf++) table.set(leaf, hashOf(leaf), true);
    for (let leaf = 50_000; leaf < 60_000; leaf++) table.set(leaf, ZERO_LEAF_HASH, true);
    await table.sync();
    const file = await disk.open('t.leaves', 'read');
    expect(await file.size()).toBe(3000 * HASH_SIZE);
    await table.close();
  });

  test('forgets leaves past a smaller end, and finds zeros when it grows again', async () => {
    const disk = new MemoryDisk();
    const table = await openTable(disk, GIB, true);
    table.set(10, hashOf(1), true);
    table.set(500, hashOf(2), false);
    await table.resize(4 << 20);
    await table.resize(GIB);
    expect((await table.ask(10, hashOf(1)))[0]).toBe(LeafAnswer.SameUploaded);
    expect((await table.ask(500, ZERO_LEAF_HASH))[0]).toBe(LeafAnswer.SameUploaded);
    const fresh = new DiskTree({ sizeBytes: GIB, known: 'unread' });
    expect(await table.root()).toBe(await fresh.root(table));
    await table.close();
  });

  test('a leaf is pending until the mark that follows it is in the vault', async () => {
    const table = await openTable(new MemoryDisk(), GIB, true);
    const ask = async (leaf: number) => (await table.ask(leaf, hashOf(1)))[0];
    for (const leaf of [1, 2]) table.set(leaf, hashOf(1), true);
    table.setPending(1);
    table.markPending();
    table.setPending(2);
    expect([await ask(1), await ask(2)]).toEqual([LeafAnswer.SamePending, LeafAnswer.SamePending]);
    table.clearPending('beforeMark');
    expect([await ask(1), await ask(2)]).toEqual([LeafAnswer.SameUploaded, LeafAnswer.SamePending]);
    table.clearPending('all');
    expect(await ask(2)).toBe(LeafAnswer.SameUploaded);
    table.distrustAll();
    expect(await ask(1)).toBe(LeafAnswer.Differs);
    await table.close();
  });
});

test('SparseBitmap does what a set of numbers does', async () => {
  const bit = fc.nat(200_000);
  const step = fc.oneof(
    fc.record({ do: fc.constantFrom('set', 'clear', 'clearFrom', 'fill'), bit }),
    fc.record({ do: fc.constantFrom('clearAll', 'flush'), bit }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.array(bit), async (steps, extra) => {
      const probes = [...extra];
      const disk = new MemoryDisk();
      const file = await disk.open('b', 'create');
      const bitmap = new SparseBitmap();
      let model = (_: number) => false;
      for (const each of steps) {
        const before = model;
        const at = each.bit;
        if (each.do === 'set') model = (b) => b === at || before(b);
        if (each.do === 'clear') model = (b) => b !== at && before(b);
        if (each.do === 'clearFrom') model = (b) => b < at && before(b);
        if (each.do === 'fill') model = (b) => b < at || before(b);
        if (each.do === 'clearAll') model = () => false;
        if (each.do === 'set') bitmap.set(at);
        if (each.do === 'clear') bitmap.clear(at);
        if (each.do === 'clearFrom') bitmap.clearFrom(at);
        if (each.do === 'fill') bitmap.fill(at);
        if (each.do === 'clearAll') bitmap.clearAll();
        if (each.do === 'flush') await bitmap.flush(file);
      }
      await bitmap.flush(file);
      const loaded = new SparseBitmap();
      await loaded.load(file);
      for (const { bit: at } of steps) probes.push(at, at + 1, Math.max(0, at - 1));
      for (const probe of probes) {
        expect(bitmap.has(probe)).toBe(model(probe));
        expect(loaded.has(probe)).toBe(model(probe));
      }
    }),
    { numRuns: 100 },
  );
});
