import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';

export interface Options {
  /** Where the figures are written. */
  json: string | undefined;
  /** Raw images of which copies are the machine's disks; empty: a small Linux of our own. */
  disks: string[];
  workload: string | undefined;
  seconds: number;
  keep: boolean;
  /** Such as 5m. */
  bootTimeout: string;
}

export function parseOptions(argv: readonly string[]): Options {
  const command = new Command('hack/demo')
    .description(
      'Protects a Linux machine into a vault, loses its site, and boots it from the vault.',
    )
    .option('--json <file>', 'write the figures there', (file) => path.resolve(file))
    .option(
      '--disk <file>',
      'use a copy of this raw image as a disk of the machine (repeatable)',
      collect,
      [],
    )
    .option(
      '--workload <file>',
      'executable that writes to the machine; gets the mount point of its largest mountable partition',
      existing,
    )
    .option('--seconds <n>', 'how long the workload runs before the disaster', positive, 20)
    .option(
      '--boot-timeout <duration>',
      'how long the recovered machine may take to come up, such as 90s or 5m',
      duration,
      '5m',
    )
    .option('--keep', 'leave everything running and say how to look', false)
    .allowExcessArguments(false)
    .parse(argv, { from: 'user' });
  const { json, disk, workload, seconds, keep, bootTimeout } = command.opts();
  return { json, disks: disk, workload, seconds, keep, bootTimeout };
}

function collect(file: string, before: string[]): string[] {
  return [...before, existing(file)];
}

function existing(file: string): string {
  const full = path.resolve(file);
  if (!existsSync(full)) throw new InvalidArgumentError(`${file} does not exist.`);
  return full;
}

function duration(text: string): string {
  if (!/^[1-9][0-9]{0,3}[sm]$/.test(text))
    throw new InvalidArgumentError('A number of seconds or minutes, such as 90s or 5m.');
  return text;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('A positive number of seconds.');
  return value;
}
