/**
 * `npm run fuzz -- --target NAME|all --seconds N [--seed S] [--keep]`: throws bytes at a parser, led by what they reach (docs/FUZZING.md). With
 * --keep, what is found stays in test/fuzz/corpus. Exit code 1 when a promise was broken.
 */
import { parseArgs } from 'node:util';
import { Coverage } from './coverage.ts';

const { values } = parseArgs({
  options: {
    target: { type: 'string', default: 'all' },
    seconds: { type: 'string', default: '30' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    keep: { type: 'boolean', default: false },
  },
});
const coverage = new Coverage();
// Not before it is looked at.
const { fuzz } = await import('./fuzzer.ts');
const { fuzzTargets } = await import('./targets.ts');
const chosen = fuzzTargets.filter(({ name }) => values.target === 'all' || name === values.target);
if (chosen.length === 0)
  throw new Error(
    `there is no target ${values.target}: ${fuzzTargets.map(({ name }) => name).join(', ')}`,
  );
let broken = 0;
for (const target of chosen) {
  const { breaches, ...counts } = await fuzz(target, {
    seconds: Number(values.seconds),
    seed: Number(values.seed),
    write: values.keep,
    coverage,
  });
  console.log(JSON.stringify({ ...counts, seed: Number(values.seed), breaches: breaches.length }));
  for (const { problem } of breaches) console.log(problem);
  broken += breaches.length;
}
process.exitCode = broken === 0 ? 0 : 1;
