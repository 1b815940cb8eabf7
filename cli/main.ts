#!/usr/bin/env node
import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { Command } from 'commander';
import { openVaultStores } from '../platform/azure/vaultStores.ts';
import { errorCode, errorMessage, FarshoreError } from '../platform/errors.ts';
import { systemClock } from '../platform/node/clock.ts';
import { systemRandom } from '../platform/node/random.ts';
import { decodeKeyFile } from './keyFile.ts';
import { keygen, type SecretFiles } from './keygen.ts';
import { recoverCheck } from './recoverCheck.ts';
import type { Terminal } from './terminal.ts';

const CONNECTION_STRING = 'FARSHORE_VAULT_CONNECTION_STRING';

const terminal: Terminal = {
  answer: (text) => console.log(text),
  tell: (text) => console.error(text),
};

const files: SecretFiles = {
  async createSecret(file, text) {
    // `wx`: another key must never be overwritten, not even by a race.
    const handle = await open(file, 'wx', 0o600).catch((error: unknown) => {
      if (errorCode(error) !== 'EEXIST') throw error;
      throw new FarshoreError(
        'KeyFileExists',
        `${file} exists already and was left as it is. Choose another file with --out.`,
        { cause: error },
      );
    });
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    const directory = await open(path.dirname(path.resolve(file)), 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  },
};

const program = new Command('farshore')
  .description('Disaster recovery as Kubernetes resources: what works without a cluster')
  .showHelpAfterError();

program
  .command('keygen')
  .description('make a recovery key; works offline, and prints the public string')
  .option('--out <file>', 'where the private key goes (a new file, readable by you alone)')
  .action(async (options: { out?: string }) => {
    await keygen({ clock: systemClock, random: systemRandom, files, terminal }, options);
  });

program
  .command('recover')
  .description('prove that a recovery key opens a vault')
  .requiredOption('--check', 'open the vault with the key, and leave the proof in it')
  .requiredOption('--container <name>', "the vault's container in the storage account")
  .requiredOption('--key <file>', 'the private recovery key, as `farshore keygen` wrote it')
  .option(
    '--vault <file>',
    `a file with the storage account's connection string (else in $${CONNECTION_STRING})`,
  )
  .option('--prefix <path>', "the vault's path inside the container", '')
  .option('--ca-bundle <file>', 'PEM of further authorities to trust for the storage endpoint')
  .action(
    async (options: {
      container: string;
      key: string;
      vault?: string;
      prefix: string;
      caBundle?: string;
    }) => {
      const deps = { clock: systemClock, random: systemRandom };
      const key = decodeKeyFile(options.key, await readText(options.key));
      const vault = openVaultStores(deps, {
        connectionString: await connectionString(options.vault),
        container: options.container,
        prefix: options.prefix,
        caBundle: options.caBundle && (await readText(options.caBundle)),
      });
      await recoverCheck(
        { ...deps, store: vault.objects, terminal },
        { key, location: vault.location },
      );
    },
  );

try {
  await program.parseAsync();
} catch (error) {
  console.error(`error ${errorCode(error)}: ${errorMessage(error)}`);
  process.exitCode = 1;
}

async function connectionString(file: string | undefined): Promise<string> {
  if (file !== undefined) return (await readText(file)).trim();
  const text = process.env[CONNECTION_STRING];
  if (text) return text;
  throw new FarshoreError(
    'VaultNotGiven',
    `No vault was given: put the storage account's connection string into a file for --vault, or into $${CONNECTION_STRING}. On the command line others could see it.`,
  );
}

async function readText(file: string): Promise<string> {
  return await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new FarshoreError('FileUnreadable', `${file} can't be read: ${errorMessage(cause)}.`, {
      cause,
    });
  });
}
