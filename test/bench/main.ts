/**
 * Benchmarks: main.ts NAME [--json FILE] [--mib N] [--rounds N] [--profile DIR]
 *
 * Each compares Farshore with a named peer in the same run, on the same machine, against the same server: what counts is the ratio.
 * Needs root (loop devices).
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { benchInitial, type InitialResult } from './initial.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    mib: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '3' },
    profile: { type: 'string' },
  },
});

const [name] = positionals;
if (name !== 'initial' || positionals.length !== 1) {
  process.stderr.write(
    'usage: npm run bench -- initial [--json FILE] [--mib N] [--rounds N] [--profile DIR]\n',
  );
  process.exitCode = 64;
} else await initial();

async function initial(): Promise<void> {
  if (values.profile !== undefined) await mkdir(values.profile, { recursive: true });
  const result = await benchInitial({
    mib: wholeNumber('mib', values.mib),
    rounds: wholeNumber('rounds', values.rounds),
    profileDirectory: values.profile,
    tell: (line) => process.stdout.write(`${line}\n`),
  });
  process.stdout.write(`${summary(result)}\n`);
  if (values.json !== undefined)
    await writeFile(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
}

function summary(result: InitialResult): string {
  const { azuriteMibPerSecond, farshoreMibPerSecond, ratio, processServerPeakMib } = result;
  return [
    `azurite, serial Put Blobs  ${azuriteMibPerSecond.toFixed(1)} MiB/s`,
    `Farshore, initial copy     ${farshoreMibPerSecond.toFixed(1)} MiB/s`,
    `ratio                      ${ratio.toFixed(2)} (goal: 0.60 or more)`,
    `process server VmHWM       ${processServerPeakMib.toFixed(0)} MiB (goal: below 400)`,
  ].join('\n');
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 1 << 20) return value;
  throw new Error(`--${option} ${text}: not a whole number from 1`);
}
