import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { linuxHooks } from './hooks.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'farshore-hooks-'));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

function hook(name: string, script: string, mode = 0o755): void {
  writeFileSync(path.join(directory, name), `#!/bin/sh\n${script}\n`);
  chmodSync(path.join(directory, name), mode);
}
const ran = () => readFileSync(path.join(directory, '.ran'), 'utf8').trim().split('\n');
const note = (name: string) => `echo ${name} $1 >> "$(dirname "$0")/.ran"`;

describe('hooks', () => {
  test('run in the order of their names with the phase, without what is no program or a backup', async () => {
    hook('20-second', note('second'));
    hook('10-first', note('first'));
    hook('10-first~', note('backup'));
    hook('.hidden', note('hidden'));
    hook('README', note('readme'), 0o644);
    expect(await linuxHooks.run({ directory, phase: 'pre', timeoutMs: 5000 })).toEqual({
      failures: [],
    });
    expect(ran()).toEqual(['first pre', 'second pre']);
  });

  test('that fail before stop the others; after, all run', async () => {
    hook('10-bad', `${note('bad')}; echo broken >&2; exit 3`);
    hook('20-good', note('good'));
    const before = await linuxHooks.run({ directory, phase: 'pre', timeoutMs: 5000 });
    expect(before.failures).toEqual([{ hook: '10-bad', reason: 'it ended with 3: broken' }]);
    expect(ran()).toEqual(['bad pre']);
    await linuxHooks.run({ directory, phase: 'post', timeoutMs: 5000 });
    expect(ran()).toEqual(['bad pre', 'bad post', 'good post']);
  });

  test('that take too long are killed with all they started', async () => {
    hook('10-slow', 'sleep 60 & sleep 60');
    const { failures } = await linuxHooks.run({ directory, phase: 'pre', timeoutMs: 200 });
    expect(failures[0]?.reason).toContain('did not end in time (0.2 s for all');
  });

  test('share one timeout: a later one gets what the earlier ones left', async () => {
    hook('10-first', `sleep 1; ${note('first')}`);
    hook('20-second', `sleep 2; ${note('second')}`);
    const { failures } = await linuxHooks.run({ directory, phase: 'pre', timeoutMs: 2_500 });
    expect(failures.map((failure) => failure.hook)).toEqual(['20-second']);
    expect(failures[0]?.reason).toContain('2.5 s for all hooks together');
    expect(ran()).toEqual(['first pre']);
  });

  test('that come after one that used up the time still run once the barrier is over', async () => {
    hook('10-hangs', 'sleep 60');
    hook('20-releases', note('released'));
    const { failures } = await linuxHooks.run({ directory, phase: 'post', timeoutMs: 1_000 });
    expect(failures.map((failure) => failure.hook)).toEqual(['10-hangs']);
    expect(ran()).toEqual(['released post']);
  });

  test('whose directory is missing are a failure', async () => {
    const missing = path.join(directory, 'none');
    const { failures } = await linuxHooks.run({
      directory: missing,
      phase: 'pre',
      timeoutMs: 1000,
    });
    expect(failures[0]?.hook).toBe(missing);
  });
});
