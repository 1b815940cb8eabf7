import { describe, expect, test } from 'vitest';
import { runCampaign } from './campaign.ts';
import { mutants } from './mutants.ts';
import { mutated } from './mutate.ts';

/** hack/test runs more, and `npm run sim -- --seeds N` any number. */
const SEEDS = Number(process.env.FARSHORE_SIM_SEEDS ?? 24);
const TIMEOUT_MS = 1_800_000;

describe('the simulated data path', () => {
  test(
    'keeps every invariant, whatever fails when',
    async () => {
      const result = await runCampaign({ from: 1, seeds: SEEDS });
      expect(result.breaches).toEqual([]);
      expect(result.seeds).toBe(SEEDS);
      // A run that compares nothing proves nothing.
      expect(result.points).toBeGreaterThan(SEEDS);
    },
    TIMEOUT_MS,
  );

  test(
    'is the same run each time for the same seed',
    async () => {
      const range = { from: 7_001, seeds: 4 };
      const first = await runCampaign(range);
      // In slices of other lengths: what ran before in the same process must not matter.
      const second = new Map<number, string>();
      for (let seed = range.from; seed < range.from + range.seeds; seed += 2)
        for (const [key, trace] of (await runCampaign({ from: seed, seeds: 2 })).traces)
          second.set(key, trace);
      expect(first.traces.size).toBe(range.seeds);
      expect(new Map([...second].sort())).toEqual(new Map([...first.traces].sort()));
    },
    TIMEOUT_MS,
  );

  test(
    'finds a planted bug',
    async () => {
      const planted = { mutant: 'off-by-one-at-a-leaf', untilFound: true };
      const { breaches } = await runCampaign({ from: 1, seeds: 20, ...planted });
      expect(breaches).not.toEqual([]);
    },
    TIMEOUT_MS,
  );

  test.each(mutants.map((mutant) => [mutant.name, mutant] as const))(
    'has a planted bug %s, whose fragment is in the product exactly once',
    (_name, mutant) => {
      expect(mutated(mutant)).toContain(mutant.replace);
    },
  );

  test('has at least 30 planted bugs, each with a name of its own', () => {
    expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
    expect(mutants.length).toBeGreaterThanOrEqual(30);
  });
});
