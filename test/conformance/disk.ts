import { expect, test } from 'vitest';
import type { Disk } from '../../platform/ports.ts';

/** What every Disk must do. A fresh one for each test. */
export function diskConformance(open: () => Disk): void {
  const bytes = (text: string) => new TextEncoder().encode(text);

  test('what was written reads back, at any offset, with zeros between', async () => {
    const disk = open();
    const file = await disk.open('a', 'createExclusive');
    await file.write(bytes('hello'), 0);
    await file.write(bytes('world'), 8);
    await file.sync();
    const into = new Uint8Array(20);
    expect(await file.read(into, 0)).toBe(13);
    expect(new TextDecoder().decode(into.subarray(0, 13))).toBe('hello\0\0\0world');
    expect(await file.read(into, 13)).toBe(0);
    expect(await file.read(into.subarray(0, 3), 8)).toBe(3);
    expect(await file.size()).toBe(13);
    await file.close();
  });

  test('modes: read and readWrite need the file, createExclusive needs its absence', async () => {
    const disk = open();
    for (const mode of ['read', 'readWrite'] as const)
      await expect(disk.open('a', mode)).rejects.toMatchObject({ code: 'ENOENT' });
    await (await disk.open('a', 'createExclusive')).close();
    await expect(disk.open('a', 'createExclusive')).rejects.toMatchObject({ code: 'EEXIST' });
    const again = await disk.open('a', 'create');
    await again.write(bytes('kept'), 0);
    await again.close();
    const reader = await disk.open('a', 'read');
    expect(await reader.size()).toBe(4);
    await expect(reader.write(bytes('x'), 0)).rejects.toMatchObject({ code: 'EBADF' });
    await reader.close();
    await expect(disk.open('none/a', 'create')).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('a file cut short and grown again holds zeros there', async () => {
    const disk = open();
    const file = await disk.open('a', 'create');
    await file.write(bytes('abcdef'), 0);
    await file.truncate(2);
    expect(await file.size()).toBe(2);
    await file.truncate(4);
    const into = new Uint8Array(6);
    expect(await file.read(into, 0)).toBe(4);
    expect(into).toEqual(Uint8Array.of(97, 98, 0, 0, 0, 0));
    await file.close();
  });

  test('directories: made with their parents, listed, and empty when they are not there', async () => {
    const disk = open();
    expect(await disk.list('d/e')).toEqual([]);
    await disk.makeDirectory('d/e');
    await disk.makeDirectory('d/e');
    await (await disk.open('d/e/1', 'create')).close();
    await (await disk.open('d/2', 'create')).close();
    expect((await disk.list('d')).sort()).toEqual(['2', 'e']);
    expect(await disk.list('d/e')).toEqual(['1']);
    await disk.syncDirectory('d');
    await disk.syncDirectory('.');
  });

  test('rename replaces, remove forgives', async () => {
    const disk = open();
    for (const name of ['a', 'b']) {
      const file = await disk.open(name, 'create');
      await file.write(bytes(name), 0);
      await file.close();
    }
    await disk.rename({ from: 'a', to: 'b' });
    expect(await disk.list('.')).toEqual(['b']);
    const file = await disk.open('b', 'read');
    const into = new Uint8Array(1);
    await file.read(into, 0);
    expect(into).toEqual(bytes('a'));
    await file.close();
    await expect(disk.rename({ from: 'a', to: 'c' })).rejects.toMatchObject({ code: 'ENOENT' });
    await disk.remove('b');
    await disk.remove('b');
    expect(await disk.list('.')).toEqual([]);
  });

  test('space is told in bytes', async () => {
    const disk = open();
    const [free, total] = [await disk.freeBytes(), await disk.totalBytes()];
    expect(free).toBeGreaterThan(0);
    expect(total).toBeGreaterThanOrEqual(free);
  });
}
