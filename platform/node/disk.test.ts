import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { diskConformance } from '../../test/conformance/disk.ts';
import type { Disk } from '../ports.ts';
import { openDisk } from './disk.ts';

let outside: string;
let root: string;
let disk: Disk;

beforeEach(() => {
  outside = mkdtempSync(path.join(tmpdir(), 'farshore-disk-'));
  root = path.join(outside, 'root');
  disk = openDisk(outside);
});
afterEach(() => rmSync(outside, { recursive: true, force: true }));

describe('a directory as a disk', () => {
  diskConformance(() => openDisk(outside));
});

describe('staying inside the root', () => {
  test('paths that leave it are refused, whatever is asked', async () => {
    await disk.makeDirectory('root');
    const inner = openDisk(root);
    writeFileSync(path.join(outside, 'secret'), 'x');
    for (const bad of [
      '../secret',
      'a/../../secret',
      '/etc/passwd',
      path.join(outside, 'secret'),
      'a\0b',
      '../root2/x',
    ]) {
      const refused = { code: 'DiskPathOutside' };
      await expect(inner.open(bad, 'read')).rejects.toMatchObject(refused);
      await expect(inner.open(bad, 'create')).rejects.toMatchObject(refused);
      await expect(inner.remove(bad)).rejects.toMatchObject(refused);
      await expect(inner.rename({ from: 'x', to: bad })).rejects.toMatchObject(refused);
      await expect(inner.makeDirectory(bad)).rejects.toMatchObject(refused);
      await expect(inner.list(bad)).rejects.toMatchObject(refused);
    }
    expect(statSync(path.join(outside, 'secret')).size).toBe(1);
  });

  test('a symbolic link is not followed', async () => {
    writeFileSync(path.join(outside, 'target'), 'x');
    symlinkSync(path.join(outside, 'target'), path.join(outside, 'link'));
    await expect(disk.open('link', 'readWrite')).rejects.toMatchObject({ code: 'ELOOP' });
  });

  test('what it makes is for its owner alone', async () => {
    await disk.makeDirectory('d');
    await (await disk.open('d/f', 'create')).close();
    expect(statSync(path.join(outside, 'd')).mode & 0o777).toBe(0o700);
    expect(statSync(path.join(outside, 'd/f')).mode & 0o777).toBe(0o600);
  });
});
