import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { FAULTS } from './deck.ts';

export interface Options {
  minutes: number;
  seed: number;
  /** Names of faults: no others are struck. */
  faults: readonly string[];
  json: string | undefined;
  /** Where the processes' logs stay. */
  logs: string | undefined;
}

const EXPLANATION = `
Faults are struck in an order and for times that the seed decides; real processes and their timing are not replayed by it.
Exit code: 0 when every disk compared equal, every resync is explained by a fault, and machines moved in time.
docs/ENDURANCE.md says what the figures mean.`;

export function parseOptions(argv: readonly string[]): Options {
  const command = new Command('npm run endurance --')
    .description(
      'Real agents, process servers, applier and operator under faults, and at the end every disk compared. Needs root.',
    )
    .requiredOption('--minutes <n>', 'how long faults are struck', positive)
    .option('--seed <n>', 'decides which faults; a random one is said', whole)
    .option('--faults <names>', 'strike these alone, separated by commas', names)
    .option('--json <file>', 'write the figures there', (file) => path.resolve(file))
    .option('--logs <folder>', 'keep the logs of all processes there', (folder) =>
      path.resolve(folder),
    )
    .addHelpText('after', EXPLANATION)
    .allowExcessArguments(false)
    .parse(argv, { from: 'user' });
  const { minutes, seed, faults, json, logs } = command.opts();
  return {
    ...{ minutes, seed: seed ?? Math.floor(Math.random() * 2 ** 31) },
    ...{ faults: faults ?? FAULTS, json, logs },
  };
}

function names(text: string): string[] {
  const wanted = text.split(',');
  const unknown = wanted.find((name) => !FAULTS.includes(name));
  if (unknown !== undefined)
    throw new InvalidArgumentError(`There is no fault ${unknown}; there are ${FAULTS.join(', ')}.`);
  return wanted;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('A positive number of minutes.');
  return value;
}

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError('A whole number from 0.');
  return value;
}
