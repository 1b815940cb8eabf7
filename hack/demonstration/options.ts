import { accessSync, constants, existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';

export interface Options {
  /** Where the figures go: a file, standard output, or nowhere. */
  json: string | 'stdout' | undefined;
  /** Raw images of which copies are the machine's disks; empty: a small Linux of our own. */
  disks: string[];
  workload: string | undefined;
  seconds: number;
  keep: boolean;
  /** Such as 5m. */
  bootTimeout: string;
}

const EXPLANATION = `
The figures (JSON): ok, error, initialReplication {bytes: the size of the disks, holes too; bytesSent: of these, what held anything
and was sent; seconds}, barriers {count, freezeMsMax}, rpoSeconds (the age of the recovery point at the disaster), rtoSeconds,
recoveryPoint {lsn, time}, rootsMatch, recordAtBarrier, recordRecovered, booted, and with --keep recoveredDisks. With --disk nobody
knows what the machine should say, so booted and the records are null; with --workload the records are.

Whatever it makes is under $TMPDIR [/tmp], and gone when it ends. Exit code: 0 when the machine was recovered as promised.`;

export function parseOptions(argv: readonly string[]): Options {
  const command = new Command('hack/demo')
    .description(
      'Protects a Linux machine into a vault, loses its site, and boots it from the vault. It takes one to two minutes, and needs root.',
    )
    .option(
      '--json [file]',
      'write the figures there; without a file to standard output, and what is said meanwhile to standard error',
      writable,
    )
    .option(
      '--disk <file>',
      'use a copy of this raw image as a disk of the machine (repeatable; the first is the one that it boots from)',
      collect,
    )
    .option(
      '--workload <file>',
      'executable that writes to the machine; gets the mount point of its largest mountable partition; must not fail',
      existing,
    )
    .option('--seconds <n>', 'how long the workload runs before the disaster', positive, 20)
    .option(
      '--boot-timeout <duration>',
      'how long the recovered machine may take to come up, such as 90s or 5m',
      duration,
      '5m',
    )
    .option(
      '--keep',
      'after the recovery leave everything running, say how to look, and stay in the foreground until Ctrl-C, which removes it all',
      false,
    )
    .addHelpText('after', EXPLANATION)
    .allowExcessArguments(false)
    .parse(argv, { from: 'user' });
  const { json, disk, workload, seconds, keep, bootTimeout } = command.opts();
  return {
    ...{ json: json === true ? 'stdout' : json, disks: disk ?? [] },
    ...{ workload, seconds, keep, bootTimeout },
  };
}

function collect(file: string, before: string[] = []): string[] {
  return [...before, existing(file)];
}

function existing(file: string): string {
  const full = path.resolve(file);
  if (!existsSync(full)) throw new InvalidArgumentError(`${file} does not exist.`);
  if (statSync(full).isDirectory()) throw new InvalidArgumentError(`${file} is a directory.`);
  return full;
}

/** Found out at once, not when all is done. */
function writable(file: string): string {
  const full = path.resolve(file);
  try {
    accessSync(existsSync(full) ? full : path.dirname(full), constants.W_OK);
  } catch {
    throw new InvalidArgumentError(`${file} can't be written.`);
  }
  if (existsSync(full) && statSync(full).isDirectory())
    throw new InvalidArgumentError(`${file} is a directory.`);
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
