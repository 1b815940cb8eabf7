import { expect, test } from 'vitest';
import { benchInitial } from '../bench/initial.ts';

test('the benchmark of initial replication measures both sides, and ends with figures', async () => {
  const lines: string[] = [];
  const result = await benchInitial({ mib: 64, rounds: 2, tell: (line) => lines.push(line) });
  expect(lines).toHaveLength(2);
  expect(result.rounds.map(({ first }) => first)).toEqual(['azurite', 'farshore']);
  for (const figure of [
    result.azuriteMibPerSecond,
    result.farshoreMibPerSecond,
    result.ratio,
    result.processServerPeakMib,
  ])
    expect(figure).toBeGreaterThan(0);
  // A small copy needs no more memory than a large one may take.
  expect(result.processServerPeakMib).toBeLessThan(400);
});
