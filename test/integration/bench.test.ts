import { expect, test } from 'vitest';
import { apply } from '../bench/apply.ts';
import { type Benchmark, Cleanup } from '../bench/benchmark.ts';
import { capture } from '../bench/capture.ts';
import { initial } from '../bench/initial.ts';

async function measured(benchmark: Benchmark, mib: number) {
  const lines: string[] = [];
  const cleanup = new Cleanup();
  const result = await benchmark({ mib, rounds: 2, cleanup, tell: (line) => lines.push(line) });
  expect(lines.length).toBeGreaterThanOrEqual(2);
  for (const { label, value } of result.figures) expect(value, label).toBeGreaterThan(0);
  return result;
}

test('the benchmark of initial replication measures both sides in turn, within the memory that a process server may take', async () => {
  const { figures, rounds } = await measured(initial, 64);
  expect(rounds.map((round) => (round as { first: string }).first)).toEqual([
    'azurite',
    'farshore',
  ]);
  // A small copy needs no more memory than a large one may take.
  expect(
    figures.find(({ unit, goal }) => unit === 'MiB' && goal !== undefined)?.value,
  ).toBeLessThan(400);
});

test('the benchmark of capture measures passes and traced events', async () => {
  await measured(capture, 64);
});

test('the benchmark of apply measures sequential and scattered journals', async () => {
  await measured(apply, 16);
});
