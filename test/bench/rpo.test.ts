import { expect, test } from 'vitest';
import { percentile } from './benchmark.ts';
import { rpoSamples } from './rpo.ts';

test('RPO grows from one durable barrier to the next, and counts from the time of the barrier', () => {
  const durable = [
    { timeMs: 0, seenMs: 1_000 },
    { timeMs: 4_000, seenMs: 6_000 },
  ];
  const samples = rpoSamples(durable, { from: 500, to: 8_000 });
  // Nothing is known before 1,000. Just before 6,000 the newest is that of 0; at the end that of 4,000.
  expect(samples).toHaveLength(71);
  expect(samples[0]).toBe(1);
  expect(samples.at(-1)).toBe(5.9);
  expect(samples).toContain(2);
});

test('a percentile is the least value that the share does not exceed', () => {
  const values = Array.from({ length: 200 }, (_, index) => index + 1);
  expect(percentile(values, 0.5)).toBe(100);
  expect(percentile(values, 0.99)).toBe(198);
  expect(percentile(values, 1)).toBe(200);
});
