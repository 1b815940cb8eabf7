import fc from 'fast-check';
import { SeededRandom } from '../fakes/seededRandom.ts';
import { withLimitedMemory } from './limits.ts';
import { mutate } from './mutation.ts';
import type { FuzzTarget } from './target.ts';
import { problemWith } from './trial.ts';

/** Arbitrary bytes, good ones changed in some places, and those with their checksums made right again. */
function hostileBytes(target: FuzzTarget): fc.Arbitrary<Uint8Array> {
  const samples = target.samples();
  const changed = fc
    .tuple(fc.constantFrom(...samples), fc.constantFrom(...samples), fc.nat(), fc.boolean())
    .map(([sample, other, seed, mended]) => {
      const bytes = mutate(sample, { random: new SeededRandom(seed), other });
      if (mended) target.mend?.(bytes);
      return bytes;
    });
  return fc.oneof(fc.uint8Array({ maxLength: 300 }), { arbitrary: changed, weight: 9 });
}

/**
 * Throws when the parser does not take its good samples, or breaks a promise at any other bytes: throws something that is not its own
 * error, asks for too much memory, takes too long, or gives a value that is none.
 */
export async function standsHostileBytes(target: FuzzTarget, runs = 400): Promise<void> {
  await withLimitedMemory(async () => {
    const check = async (bytes: Uint8Array) => {
      const problem = await problemWith(target, bytes);
      if (problem !== undefined) throw new Error(`${target.name}: ${problem}`);
    };
    for (const sample of target.samples()) await check(sample);
    await fc.assert(fc.asyncProperty(hostileBytes(target), check), { numRuns: runs });
  });
}
