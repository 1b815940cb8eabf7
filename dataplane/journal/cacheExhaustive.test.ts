import { describe, expect, test } from 'vitest';
import { exploreCrashes } from '../../test/crash/campaign.ts';
import { cacheMutants } from '../../test/crash/mutants.ts';

/** All workloads of three operations take many minutes. */
const operations = process.env.FARSHORE_EXHAUSTIVE === undefined ? 2 : 3;
const TIMEOUT_MS = 3_600_000;

describe('a journal that dies at any call of any short workload, with any outcome that the disk allows', () => {
  test(
    'has everything it acknowledged, takes no crash for damage, and goes on to a right barrier, also when it dies again coming back',
    async () => {
      const result = await exploreCrashes({ operations, secondDeathsUpTo: 1 });
      const { breaches, ...counts } = result;
      console.log(`crashes of all workloads of up to ${operations} operations`, counts);
      expect(breaches).toEqual([]);
      // Who tries nothing finds nothing.
      expect(counts.workloads).toBe(operations === 2 ? 73 : 585);
      expect(counts.recoveries).toBeGreaterThan(5_000);
    },
    TIMEOUT_MS,
  );

  test.each(cacheMutants.map(({ name }) => name))(
    'shows the planted bug %s',
    async (mutant) => {
      // Most show in the shortest workloads.
      const first = await exploreCrashes({ operations: 1, secondDeathsUpTo: 1, mutant });
      if (first.breaches.length > 0) return;
      const { breaches } = await exploreCrashes({ operations: 2, secondDeathsUpTo: 1, mutant });
      expect(breaches.length).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );

  test('has eight planted bugs to show', () => {
    expect(cacheMutants).toHaveLength(8);
  });
});
