/**
 * A process of its own that runs a slice of the seeds, with at most one planted bug: slice.ts JSON. Told a line of JSON for each seed on
 * stdout.
 */
import { parseArgs } from 'node:util';
import { useCheapCodecs } from './cheap.ts';
import { mutantNamed } from './mutants.ts';
import { plant } from './mutate.ts';
import { quicken } from './tempo.ts';

export interface SliceOptions {
  from: number;
  /** Every so many seeds one is ours. */
  step: number;
  seeds: number;
  mutant?: string;
  /** Ends at the first breach: a planted bug is found. */
  untilFound: boolean;
}

const { positionals } = parseArgs({ allowPositionals: true });
const options = JSON.parse(positionals[0] ?? '{}') as SliceOptions;
useCheapCodecs();
quicken();
// Errors are thrown by the thousand, and nobody looks at where.
Error.stackTraceLimit = 0;
const planted = options.mutant === undefined ? undefined : plant(mutantNamed(options.mutant));
// Not before the bug is planted.
const { runSeed } = await import('./run.ts');
if (planted?.loaded() === false)
  throw new Error(`the simulation does not load the file of planted bug ${options.mutant}`);

for (let done = 0; done < options.seeds; done += 1) {
  const result = await runSeed(options.from + done * options.step);
  process.stdout.write(`${JSON.stringify(result)}\n`);
  if (options.untilFound && result.breaches.length > 0) break;
}
