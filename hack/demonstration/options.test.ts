import path from 'node:path';
import { expect, test } from 'vitest';
import { parseOptions } from './options.ts';
import { mostDisks, sizeFor } from './targetSize.ts';

test('--json takes a file or, without one, means standard output, wherever it stands', () => {
  expect(parseOptions([]).json).toBeUndefined();
  expect(parseOptions(['--json']).json).toBe('stdout');
  expect(parseOptions(['--json', '--keep'])).toMatchObject({ json: 'stdout', keep: true });
  expect(parseOptions(['--keep', '--json', 'out.json']).json).toBe(path.resolve('out.json'));
});

test('--disk may be given several times, and keeps its order', () => {
  const [first, second] = [import.meta.filename, path.join(import.meta.dirname, 'options.ts')];
  expect(parseOptions([]).disks).toEqual([]);
  expect(parseOptions(['--disk', first, '--disk', second]).disks).toEqual([first, second]);
});

test('a machine of many disks gets a size that takes them', () => {
  expect(sizeFor(5, 'Standard_D2s_v5')).toBe('Standard_D2s_v5');
  expect(sizeFor(6, 'Standard_D2s_v5')).toBe('Standard_D4s_v5');
  expect(sizeFor(10, 'Standard_D2s_v5')).toBe('Standard_E64s_v5');
  expect(() => sizeFor(mostDisks() + 1, 'Standard_D2s_v5')).toThrow(/no size of machine takes 34/);
});
