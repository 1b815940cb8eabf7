/**
 * Benchmarks: main.ts NAME [--json FILE] [--mib N] [--rounds N] [--minutes N] [--profile DIR]
 *
 * Each compares Farshore with a named peer in the same run, on the same machine, against the same server: what counts is the ratio.
 * What each measures is at the top of its file. Needs root (loop devices).
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { apply } from './apply.ts';
import { backup } from './backup.ts';
import {
  type Benchmark,
  type BenchOptions,
  type BenchResult,
  Cleanup,
  isGood,
} from './benchmark.ts';
import { capture } from './capture.ts';
import { impact } from './impact.ts';
import { ingest } from './ingest.ts';
import { initial } from './initial.ts';
import { resync } from './resync.ts';
import { rpo } from './rpo.ts';

const EXIT_INTERRUPTED = 130;

const benchmarks: Record<string, Benchmark> = {
  apply,
  backup,
  capture,
  impact,
  ingest,
  initial,
  resync,
  rpo,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    mib: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    minutes: { type: 'string' },
    profile: { type: 'string' },
  },
});

const [name = ''] = positionals;
const benchmark = benchmarks[name];
if (benchmark === undefined || positionals.length !== 1) {
  const names = Object.keys(benchmarks).join(' | ');
  process.stderr.write(
    `usage: npm run bench -- ${names} [--json FILE] [--mib N] [--rounds N] [--minutes N] [--profile DIR]\n`,
  );
  process.exitCode = 64;
} else await run(benchmark);

async function run(chosen: Benchmark): Promise<void> {
  if (values.profile !== undefined) await mkdir(values.profile, { recursive: true });
  const cleanup = new Cleanup();
  let interrupted: Promise<never> | undefined;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      interrupted ??= cleanup.all().finally(() => process.exit(EXIT_INTERRUPTED)) as Promise<never>;
    });
  const options: BenchOptions = {
    cleanup,
    rounds: wholeNumber('rounds', values.rounds),
    tell: (line) => process.stdout.write(`${line}\n`),
    ...(values.mib === undefined ? {} : { mib: wholeNumber('mib', values.mib) }),
    ...(values.minutes === undefined ? {} : { minutes: minutesOf(values.minutes) }),
    ...(values.profile === undefined ? {} : { profileDirectory: values.profile }),
  };
  let result: BenchResult;
  try {
    result = await chosen(options);
  } catch (error) {
    // What was pulled from under the benchmark makes it fail; that is no failure of its own.
    await interrupted;
    await cleanup.all();
    throw error;
  }
  await interrupted;
  for (const line of summary(result)) options.tell(line);
  if (values.json !== undefined)
    await writeFile(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
}

function summary(result: BenchResult): string[] {
  return result.figures.map((figure) => {
    const { label, value, unit, goal } = figure;
    const text = `${label.padEnd(34)} ${value.toFixed(unit === '' ? 2 : 1)}${unit === '' ? '' : ` ${unit}`}`;
    if (goal === undefined) return text;
    const bound = 'least' in goal ? `${goal.least} or more` : `at most ${goal.most}`;
    return `${text} (goal: ${bound}; ${isGood(figure) ? 'met' : 'NOT met'})`;
  });
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 1 << 20) return value;
  throw new Error(`--${option} ${text}: not a whole number from 1`);
}

function minutesOf(text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 24 * 60) return value;
  throw new Error(`--minutes ${text}: not a number of minutes, up to a day`);
}
