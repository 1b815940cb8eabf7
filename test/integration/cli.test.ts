import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  ensureVaultContainer,
  openVaultStores,
  type VaultStores,
} from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { Catalog } from '../../vault/catalog.ts';
import { createDataKey, generateBoxKey, type Recipient } from '../../vault/keys.ts';
import { readRecoveryCheck, verifyRecoveryCheck } from '../../vault/recoveryCheck.ts';
import { decodeRecoveryKey, decodeRecoveryRecipient } from '../../vault/recoveryKey.ts';
import { generateSigningKey } from '../../vault/signing.ts';
import { createVault, vaultRecipients } from '../../vault/vault.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';

const MAIN = path.resolve(import.meta.dirname, '../../cli/main.ts');
const deps = { clock: systemClock, random: systemRandom };
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'farshore-cli-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function farshore(args: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: directory,
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const code = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await code, out, err };
}

async function keygen(name = 'recovery.key') {
  const { code, out } = await farshore(['keygen', '--out', name]);
  expect(code).toBe(0);
  return { file: path.join(directory, name), publicString: out.trim() };
}

describe('farshore keygen', () => {
  test('writes the private key for its owner alone, and prints its public string alone', async () => {
    const { file, publicString } = await keygen();
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const line =
      readFileSync(file, 'utf8')
        .split('\n')
        .find((one) => one.startsWith('farshore-')) ?? '';
    expect(decodeRecoveryKey(line).publicString).toBe(publicString);
    expect(decodeRecoveryRecipient(publicString).id).toBe(decodeRecoveryKey(line).box.id);
  });

  test('never overwrites a file, and prints no key that was not stored', async () => {
    const { file } = await keygen();
    const before = readFileSync(file, 'utf8');
    const again = await farshore(['keygen', '--out', file]);
    expect(again).toMatchObject({ code: 1, out: '' });
    expect(again.err).toMatch(/KeyFileExists/);
    expect(readFileSync(file, 'utf8')).toBe(before);
    expect(await farshore(['keygen', '--out', 'none/such/file'])).toMatchObject({
      code: 1,
      out: '',
    });
  });

  test('names the file by the key when no name is given', async () => {
    const { code, out } = await farshore(['keygen']);
    expect(code).toBe(0);
    const { id } = decodeRecoveryRecipient(out.trim());
    expect(statSync(path.join(directory, `farshore-recovery-${id}.key`)).size).toBeGreaterThan(0);
  });
});

describe('farshore recover --check', () => {
  let azurite: Azurite;
  let stores: VaultStores;
  let keys = 0;

  beforeAll(async () => {
    azurite = await startAzurite();
    await ensureVaultContainer(deps, access('any'));
  });
  afterAll(() => azurite?.stop());

  const access = (prefix: string) => ({
    connectionString: azurite.connectionString,
    container: 'vault',
    prefix,
  });
  const check = (
    args: string[],
    env = { FARSHORE_VAULT_CONNECTION_STRING: azurite.connectionString },
  ) => farshore(['recover', '--check', '--container', 'vault', ...args], env);

  async function vaultFor(publicString: string) {
    keys += 1;
    const prefix = `site-${keys}`;
    stores = openVaultStores(deps, access(prefix));
    const { vault } = await createVault(
      { ...deps, store: stores.objects },
      {
        installationId: '1'.repeat(32),
        vaultKey: generateBoxKey(systemRandom),
        controllerKey: generateSigningKey(systemRandom),
        recoveryRecipients: [publicString],
      },
    );
    return { prefix, vault: vault.document };
  }

  async function addMachine(vaultId: string, machineId: string, recipients: readonly Recipient[]) {
    await new Catalog({ store: stores.objects }).create({
      machineId,
      name: `vm-${machineId.slice(0, 2)}`,
      namespace: 'shop',
      createdAt: 1,
      writerEpoch: 1,
      disks: [],
      dataKey: createDataKey({ random: systemRandom, vaultId, machineId, recipients }).sealed,
      activeSide: 'Source',
      policy: { name: 'gold', retentionSeconds: 60 },
      target: {},
    });
  }

  test('leaves the proof in the vault once everything opened', async () => {
    const { file, publicString } = await keygen();
    const { prefix, vault } = await vaultFor(publicString);
    await addMachine(vault.vaultId, 'aa'.repeat(16), vaultRecipients(vault));
    const connection = path.join(directory, 'connection');
    writeFileSync(connection, `${azurite.connectionString}\n`);
    const result = await check(
      ['--prefix', prefix, '--key', file, '--vault', connection],
      {} as never,
    );
    expect(result).toMatchObject({ code: 0, err: '' });
    expect(result.out).toMatch(/opens vault .* data keys of 1 machines/);
    const verdict = verifyRecoveryCheck(vault, await readRecoveryCheck(stores.objects));
    expect(verdict).toMatchObject({ verified: true });
  });

  test('a key of another vault is told so, and proves nothing', async () => {
    const { publicString } = await keygen('right.key');
    const { file } = await keygen('wrong.key');
    const { prefix } = await vaultFor(publicString);
    const result = await check(['--prefix', prefix, '--key', file]);
    expect(result).toMatchObject({ code: 1, out: '' });
    expect(result.err).toMatch(/^error RecoveryKeyUnknown: .*recoveryRecipients/);
    expect(await readRecoveryCheck(stores.objects)).toBeUndefined();
  });

  test('a machine whose data key is not sealed for it is named, and nothing is confirmed', async () => {
    const { file, publicString } = await keygen();
    const { prefix, vault } = await vaultFor(publicString);
    await addMachine(vault.vaultId, 'aa'.repeat(16), vaultRecipients(vault));
    await addMachine(vault.vaultId, 'bb'.repeat(16), vaultRecipients(vault).slice(0, 1));
    const result = await check(['--prefix', prefix, '--key', file]);
    expect(result.err).toMatch(/^error RecoveryIncomplete: .*1 of 2 machines: shop\/vm-bb/);
    expect(await readRecoveryCheck(stores.objects)).toBeUndefined();
  });

  test('each thing that can be wrong is said, and no secret with it', async () => {
    const { file, publicString } = await keygen();
    const { prefix } = await vaultFor(publicString);
    const typo = path.join(directory, 'typo.key');
    const secret =
      readFileSync(file, 'utf8')
        .split('\n')
        .find((one) => one.startsWith('farshore-')) ?? '';
    writeFileSync(
      typo,
      secret.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a')),
    );
    const wrongKey = azurite.connectionString.replace(/AccountKey=[^;]+/, 'AccountKey=AAAA');
    const env = (connectionString: string) => ({
      FARSHORE_VAULT_CONNECTION_STRING: connectionString,
    });
    const cases: [string, ReturnType<typeof farshore>][] = [
      ['KeyStringInvalid', check(['--prefix', prefix, '--key', typo])],
      ['FileUnreadable', check(['--prefix', prefix, '--key', 'none.key'])],
      ['VaultMissing', check(['--prefix', 'elsewhere', '--key', file])],
      ['VaultRefusedKey', check(['--prefix', prefix, '--key', file], env(wrongKey))],
      ['VaultNotGiven', check(['--prefix', prefix, '--key', file], env(''))],
      ['VaultAccessInvalid', check(['--prefix', prefix, '--key', file], env('x'))],
    ];
    for (const [code, running] of cases) {
      const result = await running;
      expect(result.err).toMatch(new RegExp(`^error ${code}: `));
      expect(result).toMatchObject({ code: 1, out: '' });
      expect(result.err).not.toContain(secret.slice(-30));
      expect(result.err).not.toContain(azurite.accountKey);
    }
    await stores.objects.put('vault.json', new TextEncoder().encode('{"formatVersion":2}'));
    const newer = await check(['--prefix', prefix, '--key', file]);
    expect(newer.err).toMatch(/^error VaultFormatTooNew: .*version 2.*up to 1/);
  });
});
