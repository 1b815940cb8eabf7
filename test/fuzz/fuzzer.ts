/**
 * Fuzzing that is led by coverage: an input that reaches a block of code which none reached before is kept and changed further. V8
 * counts blocks; asking it is slow, so inputs are tried in groups, and only of a group that reached something new one by one.
 */
import { SeededRandom } from '../fakes/seededRandom.ts';
import { keep, keptInputs } from './corpus.ts';
import type { Coverage } from './coverage.ts';
import { withLimitedMemory } from './limits.ts';
import { mutate } from './mutation.ts';
import type { FuzzTarget } from './target.ts';
import { problemWith } from './trial.ts';

const GROUP = 64;

export interface FuzzResult {
  target: string;
  runs: number;
  /** Inputs from which others are made, in the end. */
  inputs: number;
  blocks: number;
  breaches: { file: boolean; problem: string }[];
}

export async function fuzz(
  target: FuzzTarget,
  options: {
    seconds: number;
    seed: number;
    /** Keep in the corpus what is found. */
    write: boolean;
    /** End after so many. */
    breachesMax?: number;
    coverage: Coverage;
  },
): Promise<FuzzResult> {
  const random = new SeededRandom(options.seed);
  const { coverage } = options;
  coverage.reset();
  const pool = [...target.samples(), ...keptInputs(target.name).map(({ bytes }) => bytes)];
  const result: FuzzResult = { target: target.name, runs: 0, inputs: 0, blocks: 0, breaches: [] };
  const problems = new Set<string>();

  const attempt = async (bytes: Uint8Array): Promise<void> => {
    result.runs += 1;
    const problem = await problemWith(target, bytes);
    if (problem === undefined) return;
    // One breach is found again and again: where it was thrown tells them apart.
    const place = problem
      .split('\n')
      .filter((line) => line.startsWith('    at '))
      .slice(0, 2)
      .join();
    if (problems.has(place)) return;
    problems.add(place);
    const file = options.write && keep(target.name, bytes, 'breach');
    result.breaches.push({ file, problem });
  };
  const make = (): Uint8Array => {
    const pick = () => pool[random.below(pool.length)] as Uint8Array;
    // What was found late leads further than what was there from the beginning.
    const late = pool[pool.length - 1 - random.below(Math.min(pool.length, 16))] as Uint8Array;
    const bytes = mutate(random.chance(0.3) ? late : pick(), { random, other: pick() });
    if (random.chance(0.6)) target.mend?.(bytes);
    return bytes;
  };

  await withLimitedMemory(async () => {
    for (const bytes of pool) await attempt(bytes);
    coverage.fresh();
    const end = performance.now() + options.seconds * 1000;
    const { breachesMax = Number.POSITIVE_INFINITY } = options;
    while (performance.now() < end && result.breaches.length < breachesMax) {
      const group = Array.from({ length: GROUP }, make);
      for (const bytes of group) await attempt(bytes);
      if (coverage.fresh({ peek: true }) === 0) continue;
      for (const bytes of group) {
        await attempt(bytes);
        if (coverage.fresh() === 0) continue;
        pool.push(bytes);
        if (options.write) keep(target.name, bytes, 'reach');
      }
    }
  });
  return { ...result, inputs: pool.length, blocks: coverage.blocks };
}
