import { expect, test } from 'vitest';
import { HeldDiscards } from './heldDiscards.ts';

test('a discard of several ranges is read again until, and once after, all of it completed', () => {
  const held = new HeldDiscards();
  const ranges = [
    { sector: 0, sectorCount: 8 },
    { sector: 800, sectorCount: 16 },
  ];
  for (const range of ranges) held.ask(range);
  expect(held.take(0)).toEqual({ ranges, lost: false });
  held.complete(8);
  expect(held.take(1).ranges).toEqual(ranges);
  held.complete(16);
  expect(held.take(2).ranges).toEqual(ranges);
  expect(held.take(3).ranges).toEqual([]);
});

test('a discard that never completes makes tracking lost after a minute, not before', () => {
  const held = new HeldDiscards();
  held.ask({ sector: 0, sectorCount: 8 });
  expect(held.take(0).lost).toBe(false);
  expect(held.take(59_000).lost).toBe(false);
  expect(held.take(61_000).lost).toBe(true);
});
