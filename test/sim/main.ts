/**
 * The simulation: npm run sim -- [--seeds N] [--from S] [--mutant NAME,…|all] [--processes N] [--json FILE] [--show]
 *
 * Runs seeds S to S + N - 1 and prints what they breach. With --mutant, plants these bugs (or each) one at a time and says how many seeds
 * it takes to find them. --show prints what the processes of a single seed log. Exit codes: 0 as it should be, 1 a breach or a planted bug
 * that was not found, 64 wrong usage.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { type CampaignResult, findPlanted, PROCESSES, runCampaign } from './campaign.ts';
import { useCheapCodecs } from './cheap.ts';
import type { Mutant } from './mutant.ts';
import { mutants } from './mutants.ts';
import { quicken } from './tempo.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    mutant: { type: 'string' },
    processes: { type: 'string', default: String(PROCESSES) },
    json: { type: 'string' },
    show: { type: 'boolean', default: false },
  },
});
const from = wholeNumber('from', values.from);
const seeds = wholeNumber('seeds', values.seeds);
const processes = wholeNumber('processes', values.processes);
const wanted = values.mutant?.split(',') ?? [];
const chosen = mutants.filter(({ name }) => values.mutant === 'all' || wanted.includes(name));

if (values.mutant !== undefined && chosen.length < wanted.length)
  usage(`there is no planted bug ${values.mutant}; there are ${mutants.map(nameOf).join(', ')}`);
else if (values.show) await show();
else if (values.mutant === undefined) await campaign();
else await findAll();

async function campaign(): Promise<void> {
  const startedMs = performance.now();
  const result = await runCampaign({
    from,
    seeds,
    processes,
    onResult: ({ seed, breaches }) => {
      for (const { invariant, at, detail } of breaches.slice(0, 1))
        tell(
          `seed ${seed} breaches "${invariant}" at ${at} ms: ${detail}\n  replay: npm run sim -- --from ${seed} --seeds 1 --show`,
        );
    },
  });
  const { events, faults, points, breaches } = result;
  const struck = Object.values(faults).reduce((sum, count) => sum + count, 0);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  tell(
    `${result.seeds} seeds, ${events} events, ${struck} faults, ${points} recovery points compared, ${breaches.length} breaches, ${seconds} s`,
  );
  if (breaches.length > 0) process.exitCode = 1;
  await save({ seeds: result.seeds, events, faults, breaches: breaches.map(shortly) });
}

async function findAll(): Promise<void> {
  const results = new Map<string, { name: string; found: boolean; seeds: number }>();
  const waiting = [...chosen];
  const startedMs = performance.now();
  const work = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { name } = next;
      const breach = await findPlanted({ mutant: name, from, seeds });
      const needed = breach === undefined ? seeds : breach.seed - from + 1;
      results.set(name, { name, found: breach !== undefined, seeds: needed });
      tell(
        breach === undefined
          ? `${name}: NOT FOUND in ${seeds} seeds`
          : `${name}: found after ${needed} seeds (seed ${breach.seed}: "${breach.invariant}", ${breach.detail.slice(0, 160)})`,
      );
    }
  };
  await Promise.all(Array.from({ length: processes }, work));
  const found = chosen.flatMap(({ name }) => results.get(name) ?? []);
  const missed = found.filter((one) => !one.found).length;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  tell(`${found.length - missed} of ${found.length} planted bugs found, ${seconds} s`);
  if (missed > 0) process.exitCode = 1;
  await save({ mutants: found });
}

async function show(): Promise<void> {
  useCheapCodecs();
  quicken();
  const [mutant] = chosen;
  if (mutant !== undefined) (await import('./mutate.ts')).plant(mutant);
  const { runSeed } = await import('./run.ts');
  const { breaches, trace, ms, events } = await runSeed(from, { print: tell });
  for (const { invariant, at, detail } of breaches)
    tell(`breach of "${invariant}" at ${at} ms: ${detail}`);
  tell(`seed ${from}: ${events} events in ${ms} ms, trace ${trace}`);
  if (breaches.length > 0) process.exitCode = 1;
}

function shortly({ seed, invariant, at }: CampaignResult['breaches'][number]) {
  return { seed, invariant, at };
}

function nameOf({ name }: Mutant): string {
  return name;
}

async function save(document: object): Promise<void> {
  if (values.json !== undefined)
    await writeFile(values.json, `${JSON.stringify(document, undefined, 2)}\n`);
}

function tell(line: string): void {
  process.stdout.write(`${line}\n`);
}

function wholeNumber(name: string, text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  usage(`--${name} is ${JSON.stringify(text)}, which is no whole number`);
  return process.exit();
}

function usage(problem: string): void {
  process.stderr.write(
    `${problem}\nusage: npm run sim -- [--seeds N] [--from S] [--mutant NAME,…|all] [--processes N] [--json FILE] [--show]\n`,
  );
  process.exitCode = 64;
}
