import { readdirSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { SeededRandom } from '../fakes/seededRandom.ts';
import { corpusFolder, keptInputs } from './corpus.ts';
import { Coverage } from './coverage.ts';
import { fuzz } from './fuzzer.ts';
import { withLimitedMemory } from './limits.ts';
import { mutate } from './mutation.ts';
import { fuzzTargets } from './targets.ts';
import { problemWith } from './trial.ts';

describe.each(fuzzTargets.map((target) => [target.name, target] as const))(
  'what the fuzzer found of %s',
  (_name, target) => {
    test('is taken as it should be', async () => {
      await withLimitedMemory(async () => {
        for (const { name, bytes } of keptInputs(target.name))
          expect({ name, problem: await problemWith(target, bytes) }).toEqual({
            name,
            problem: undefined,
          });
      });
    });
  },
);

test('nothing is kept of a target that is gone, and not too much of the others', () => {
  const names = readdirSync(corpusFolder);
  expect(fuzzTargets.map(({ name }) => name)).toEqual(expect.arrayContaining(names));
  const sizes = names.flatMap((name) => keptInputs(name).map(({ bytes }) => bytes.length));
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(200 << 10);
});

describe('the fuzzer', () => {
  const coverage = new Coverage(/corpus\.test\.ts/);
  afterAll(() => coverage.stop());

  /** Breaks only for bytes that pass four comparisons, one after the other. */
  const deep = {
    name: 'deep',
    samples: () => [new Uint8Array(8)],
    run: (bytes: Uint8Array) => {
      let passed = 0;
      if (bytes[0] === 0x46) passed += 1;
      if (passed === 1 && bytes[1] === 0x55) passed += 1;
      if (passed === 2 && bytes[2] === 0x5a) passed += 1;
      if (passed === 3 && bytes[3] === 0x5a) throw new Error('reached');
    },
  };

  test('is led by what its inputs reach: it gets through four comparisons in a row', async () => {
    const options = { seconds: 30, seed: 1, write: false, coverage, breachesMax: 1 };
    const { breaches } = await fuzz(deep, options);
    expect(breaches).toHaveLength(1);
  }, 60_000);

  test('finds a parser that asks for as much memory as it is told', async () => {
    const greedy = {
      ...deep,
      run: (bytes: Uint8Array) => void new Uint8Array(((bytes[0] ?? 0) << 24) >>> 0),
    };
    const options = { seconds: 10, seed: 1, write: false, coverage, breachesMax: 1 };
    const { breaches } = await fuzz(greedy, options);
    expect(breaches[0]?.problem).toContain('bytes are asked for in one piece');
  });

  test('changes never grow without end, and are the same for the same seed', () => {
    const random = new SeededRandom(1);
    let bytes: Uint8Array = new Uint8Array(100);
    for (let i = 0; i < 5_000; i++) bytes = mutate(bytes, { random, other: bytes });
    expect(bytes.length).toBeLessThanOrEqual(64 << 10);
    const changed = (seed: number) =>
      mutate(new Uint8Array(50), { random: new SeededRandom(seed), other: new Uint8Array(9) });
    expect(changed(7)).toEqual(changed(7));
  });
});
