/**
 * Planted bugs: small changes to product behaviour, each of which the simulation must find. They live in planted/ alone; test/sim/mutate.ts puts
 * one of them in as modules are loaded. A fragment that is not in its file exactly once is an error: fix the entry with the product.
 */
import type { Mutant } from './mutant.ts';
import { cacheMutants } from './planted/cache.ts';
import { captureMutants } from './planted/capture.ts';
import { lastBarrierMutants } from './planted/lastBarriers.ts';
import { leafHashMutants } from './planted/leafHashes.ts';
import { replicaMutants } from './planted/replicas.ts';
import { writerMutants } from './planted/writers.ts';

export const mutants: readonly Mutant[] = [
  ...cacheMutants,
  ...writerMutants,
  ...leafHashMutants,
  ...captureMutants,
  ...lastBarrierMutants,
  ...replicaMutants,
];

export function mutantNamed(name: string): Mutant {
  const mutant = mutants.find((one) => one.name === name);
  if (mutant === undefined) throw new Error(`there is no planted bug ${name}`);
  return mutant;
}
