import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { diskConformance } from '../conformance/disk.ts';
import { Outcomes } from '../crash/outcomes.ts';
import { MemoryDisk } from './memoryDisk.ts';
import { SeededRandom } from './seededRandom.ts';

describe('MemoryDisk', () => {
  diskConformance(() => new MemoryDisk());
});

const bytes = (text: string) => new TextEncoder().encode(text);

async function contentOf(disk: MemoryDisk, path: string): Promise<string | undefined> {
  const file = await disk.open(path, 'read').catch(() => undefined);
  if (file === undefined) return undefined;
  const into = new Uint8Array(await file.size());
  await file.read(into, 0);
  return new TextDecoder().decode(into);
}

describe('a crash', () => {
  test('loses names whose directory was not synced, and bytes that were not', async () => {
    const disk = new MemoryDisk();
    const kept = await disk.open('kept', 'create');
    await kept.write(bytes('one'), 0);
    await kept.sync();
    await disk.syncDirectory('.');
    await kept.write(bytes('two, longer'), 0);
    const lost = await disk.open('lost', 'create');
    await lost.write(bytes('x'), 0);
    await lost.sync();
    disk.crash();
    expect(await contentOf(disk, 'kept')).toBe('one');
    expect(await contentOf(disk, 'lost')).toBeUndefined();
    await expect(kept.size()).rejects.toMatchObject({ code: 'EBADF' });
  });

  test('takes back a rename and a removal that were not synced', async () => {
    const disk = new MemoryDisk();
    for (const name of ['a', 'b']) {
      const file = await disk.open(name, 'create');
      await file.write(bytes(name), 0);
      await file.sync();
    }
    await disk.syncDirectory('.');
    await disk.rename({ from: 'a', to: 'b' });
    disk.crash();
    expect([await contentOf(disk, 'a'), await contentOf(disk, 'b')]).toEqual(['a', 'b']);
    await disk.rename({ from: 'a', to: 'b' });
    await disk.syncDirectory('.');
    disk.crash();
    expect([await contentOf(disk, 'a'), await contentOf(disk, 'b')]).toEqual([undefined, 'a']);
  });

  test('loses a directory whose parent was not synced', async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory('d');
    const file = await disk.open('d/f', 'create');
    await file.sync();
    await disk.syncDirectory('d');
    disk.crash();
    expect(await disk.list('.')).toEqual([]);
  });

  test('takes back truncation and growth', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('a', 'create');
    await file.write(bytes('abcdef'), 0);
    await file.sync();
    await disk.syncDirectory('.');
    await file.truncate(2);
    await file.write(bytes('XYZ'), 5);
    disk.crash();
    expect(await contentOf(disk, 'a')).toBe('abcdef');
  });

  test('torn, keeps of the changes of a directory a first part: every part is met, and no other', async () => {
    const outcomes = new Set<string>();
    for (let seed = 1; seed <= 40; seed += 1) {
      const disk = new MemoryDisk();
      const file = await disk.open('a', 'create');
      await file.write(bytes('a'), 0);
      await file.sync();
      await disk.syncDirectory('.');
      await disk.rename({ from: 'a', to: 'b' });
      await disk.rename({ from: 'b', to: 'c' });
      disk.crash({ torn: new SeededRandom(seed) });
      outcomes.add((await disk.list('.')).join());
    }
    expect([...outcomes].sort()).toEqual(['a', 'b', 'c']);
  });

  test('loses what was written before a sync that failed, whatever is synced later', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('a', 'create');
    await disk.syncDirectory('.');
    await file.write(bytes('kept'), 0);
    await file.sync();
    await file.write(bytes('lost'), 0);
    disk.fault = (operation) => (operation === 'sync' ? new Error('EIO') : undefined);
    await expect(file.sync()).rejects.toThrow('EIO');
    disk.fault = undefined;
    await file.write(bytes('later'), 0);
    await file.sync();
    expect(await contentOf(disk, 'a')).toBe('later');
    disk.crash();
    expect(await contentOf(disk, 'a')).toBe('kept');
  });

  test('whatever was written and synced, the synced prefix survives a torn crash, and the seed decides the rest', async () => {
    const operation = fc.oneof(
      fc.record({ write: fc.nat(20), at: fc.nat(4000) }),
      fc.constant('sync' as const),
      fc.record({ truncate: fc.nat(4000) }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(operation, { maxLength: 12 }),
        fc.nat(),
        async (operations, seed) => {
          const run = async () => {
            const disk = new MemoryDisk();
            const file = await disk.open('a', 'create');
            await disk.syncDirectory('.');
            let synced = '';
            for (const [index, step] of operations.entries()) {
              if (step === 'sync') {
                await file.sync();
                synced = (await contentOf(disk, 'a')) ?? '';
              } else if ('write' in step)
                await file.write(new Uint8Array(600 + step.write).fill(65 + (index % 26)), step.at);
              else await file.truncate(step.truncate);
            }
            const clean = operations.at(-1) === 'sync' || operations.length === 0;
            disk.crash({ torn: new SeededRandom(seed) });
            const after = await contentOf(disk, 'a');
            if (clean) expect(after).toBe(synced);
            return after;
          };
          expect(await run()).toBe(await run());
        },
      ),
      { numRuns: 60 },
    );
  });

  test('a full disk refuses, and a planned fault comes through', async () => {
    const disk = new MemoryDisk({ capacityBytes: 10 });
    const file = await disk.open('a', 'create');
    await file.write(new Uint8Array(10), 0);
    await expect(file.write(new Uint8Array(1), 10)).rejects.toMatchObject({ code: 'ENOSPC' });
    disk.fault = (operation) => (operation === 'sync' ? new Error('EIO') : undefined);
    await expect(file.sync()).rejects.toThrow('EIO');
  });
});

describe('a crash whose outcomes are chosen', () => {
  /** What a disk holds in each outcome: names, and of each file its pieces of 64 bytes. */
  async function outcomesOf(disk: MemoryDisk): Promise<Set<string>> {
    const found = new Set<string>();
    const outcomes = new Outcomes();
    let count = 0;
    do {
      const copy = disk.copy();
      copy.crash({ choices: outcomes });
      const seen: string[] = [];
      for (const name of (await copy.list('.')).sort()) {
        const content = (await contentOf(copy, name)) ?? '';
        const pieces = content.match(/[\s\S]{1,64}/g) ?? [];
        seen.push(
          `${name}:${pieces.map((piece) => (piece[0] === '\0' ? '-' : piece[0])).join('')}`,
        );
      }
      found.add(seen.join(' '));
      count += 1;
    } while (outcomes.next());
    // Each way is tried once.
    expect(count).toBe(found.size);
    return found;
  }

  test('has every length that a file may have reached, and every piece written or not', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('f', 'create');
    await disk.syncDirectory('.');
    await file.write(bytes('a'.repeat(64) + 'b'.repeat(64)), 0);
    expect(await outcomesOf(disk)).toEqual(
      new Set(['f:', 'f:a', 'f:-', 'f:ab', 'f:a-', 'f:-b', 'f:--']),
    );
    await file.sync();
    expect(await outcomesOf(disk)).toEqual(new Set(['f:ab']));
    await file.write(bytes('c'.repeat(64)), 64);
    expect(await outcomesOf(disk)).toEqual(new Set(['f:ab', 'f:ac']));
  });

  test('has of a directory’s changes every first part', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('new', 'create');
    await file.write(bytes('x'), 0);
    await file.sync();
    await disk.rename({ from: 'new', to: 'old' });
    expect(await outcomesOf(disk)).toEqual(new Set(['', 'new:x', 'old:x']));
  });

  test('decides nothing of a file that nobody reads', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('f', 'create');
    await disk.syncDirectory('.');
    await file.write(bytes('a'.repeat(640)), 0);
    const outcomes = new Outcomes();
    disk.crash({ choices: outcomes });
    await disk.remove('f');
    expect(outcomes.next()).toBe(false);
  });
});
