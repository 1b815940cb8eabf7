import { expect, test } from 'vitest';
import { Cleanup } from './benchmark.ts';

test('cleaning up all waits for what a benchmark is removing itself, and removes each once, the last made first', async () => {
  const cleanup = new Cleanup();
  const removed: string[] = [];
  const slow = Promise.withResolvers<void>();
  cleanup.add(async () => void removed.push('server'));
  const endSite = cleanup.add(async () => {
    await slow.promise;
    removed.push('site');
  });
  const own = endSite();
  const all = cleanup.all();
  slow.resolve();
  await Promise.all([own, all, endSite()]);
  expect(removed).toEqual(['site', 'server']);
});

test('what can not be removed keeps nothing else from being removed, and is told', async () => {
  const cleanup = new Cleanup();
  const removed: string[] = [];
  cleanup.add(async () => void removed.push('server'));
  cleanup.add(async () => {
    throw new Error('busy');
  });
  await expect(cleanup.all()).rejects.toThrow('not everything was cleaned up');
  expect(removed).toEqual(['server']);
});
