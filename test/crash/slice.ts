/** A process of its own that explores a slice of the workloads, with at most one planted bug: slice.ts JSON. Tells what it found as JSON. */
import { plant } from '../sim/mutate.ts';
import type { Exploration } from './exploration.ts';
import { cacheMutantNamed } from './mutants.ts';

export interface CrashSlice {
  index: number;
  of: number;
  operations: number;
  secondDeathsUpTo: number;
  breaches: number;
  mutant?: string;
}
export type SliceResult = Exploration & { cpuSeconds: number };

const options = JSON.parse(process.argv[2] ?? '{}') as CrashSlice;
const planted = options.mutant === undefined ? undefined : plant(cacheMutantNamed(options.mutant));
// Not before the bug is planted.
const { Explorer } = await import('./exploration.ts');
if (planted?.loaded() === false)
  throw new Error(`the journal does not load the file of planted bug ${options.mutant}`);
const result = await new Explorer(options, options).explore();
const { user, system } = process.cpuUsage();
process.stdout.write(JSON.stringify({ ...result, cpuSeconds: (user + system) / 1e6 }));
