import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Watchdog } from './watchdog.ts';

const LONG_MS = 300_000;

let directory: string;
let pathBefore: string | undefined;
let watchdog: Watchdog | undefined;

/** Stands in for util-linux's: notes what it is asked for, and takes as long as the file `slow` says. */
const FSFREEZE = `#!/bin/sh
here=$(dirname "$0")
[ "$1" = --version ] && exit
[ "$1" = -f ] && touch "$here/begun"
[ "$1" = -f ] && [ -f "$here/slow" ] && sleep "$(cat "$here/slow")"
echo "$1 $2" >> "$here/asked"
[ "$1" = -u ] && { rm "$here/frozen" 2>/dev/null || { echo "fsfreeze: $2: unfreeze failed: Invalid argument" >&2; exit 1; }; }
[ "$1" = -f ] && [ -f "$here/frozen" ] && { echo "fsfreeze: $2: freeze failed: Device or resource busy" >&2; exit 1; }
[ "$1" = -f ] && touch "$here/frozen"
exit 0
`;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'farshore-watchdog-'));
  writeFileSync(path.join(directory, 'fsfreeze'), FSFREEZE);
  chmodSync(path.join(directory, 'fsfreeze'), 0o755);
  pathBefore = process.env.PATH;
  process.env.PATH = `${directory}:${pathBefore}`;
});

afterEach(async () => {
  process.env.PATH = pathBefore;
  watchdog?.release();
  rmSync(directory, { recursive: true, force: true });
});

/** Of the filesystem that it would freeze, so that its processes can be told from others. */
const mountPoint = () => path.join(directory, 'mounted');

async function started(): Promise<{ dog: Watchdog; group: number }> {
  watchdog = new Watchdog(mountPoint());
  expect((await watchdog.ready()).word).toBe('ready');
  const [group] = processes()
    .filter(({ pid }) => readFile(`/proc/${pid}/cmdline`).includes(mountPoint()))
    .map((process) => process.group);
  if (group === undefined) throw new Error('no watchdog runs');
  return { dog: watchdog, group };
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

const asked = () =>
  readFile(path.join(directory, 'asked'))
    .trim()
    .split('\n')
    .map((line) => line.replace(` ${mountPoint()}`, ''));

function processes(): { pid: string; state: string; group: number }[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map((pid) => {
      const [state = '', , group] = (readFile(`/proc/${pid}/stat`).split(') ')[1] ?? '').split(' ');
      return { pid, state, group: Number(group) };
    });
}

/** Whether anything of it runs, its timer included. */
const runs = (group: number) =>
  processes().some((process) => process.group === group && process.state !== 'Z');

async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 10_000; performance.now() < end; ) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never so: ${what}`);
}

describe('a watchdog', () => {
  test('leaves nothing behind once it has thawed', async () => {
    const { dog, group } = await started();
    expect((await dog.freeze({ deadlineMs: LONG_MS })).word).toBe('frozen');
    expect(runs(group)).toBe(true);
    expect(await dog.thaw()).toEqual({ word: 'thawed', detail: 'thaw' });
    expect(asked()).toEqual(['-f', '-u']);
    await until(() => !runs(group), 'all of it has ended');
  });

  test('leaves nothing behind once the machine is held, long before its deadline', async () => {
    const { dog, group } = await started();
    await dog.freeze({ deadlineMs: LONG_MS });
    expect((await dog.hold()).word).toBe('held');
    await until(() => !runs(group), 'all of it has ended');
    expect(asked()).toEqual(['-f', '-f']);
    expect(existsSync(path.join(directory, 'frozen'))).toBe(true);
  });

  test('does not hold what somebody else thawed, and says so', async () => {
    const { dog, group } = await started();
    await dog.freeze({ deadlineMs: LONG_MS });
    rmSync(path.join(directory, 'frozen'));
    expect(await dog.hold()).toEqual({ word: 'lost', detail: 'somebody else thawed it' });
    await until(() => !runs(group), 'all of it has ended');
    expect(existsSync(path.join(directory, 'frozen'))).toBe(false);
  });

  test('says that it is frozen still, and thaws it later all the same', async () => {
    const { dog } = await started();
    await dog.freeze({ deadlineMs: LONG_MS });
    expect((await dog.check()).word).toBe('frozen');
    expect(await dog.thaw()).toEqual({ word: 'thawed', detail: 'thaw' });
    expect(asked()).toEqual(['-f', '-f', '-u']);
  });

  test('says that somebody else thawed it, and leaves it so', async () => {
    const { dog } = await started();
    await dog.freeze({ deadlineMs: LONG_MS });
    rmSync(path.join(directory, 'frozen'));
    expect(await dog.check()).toEqual({ word: 'lost', detail: 'somebody else thawed it' });
    expect(existsSync(path.join(directory, 'frozen'))).toBe(false);
    expect((await dog.thaw()).word).toBe('lost');
  });

  test('thaws when its agent is gone, and ends with it', async () => {
    const { dog, group } = await started();
    await dog.freeze({ deadlineMs: LONG_MS });
    dog.release();
    await until(() => !runs(group), 'all of it has ended');
    expect(asked()).toEqual(['-f', '-u']);
  });

  test('thaws what was being frozen when its agent went, right after', async () => {
    writeFileSync(path.join(directory, 'slow'), '1');
    const { dog, group } = await started();
    const freezing = dog.freeze({ deadlineMs: LONG_MS });
    await until(() => existsSync(path.join(directory, 'begun')), 'it freezes');
    dog.release();
    await freezing;
    await until(() => !runs(group), 'all of it has ended');
    expect(asked()).toEqual(['-f', '-u']);
  });

  test('thaws at the deadline although its agent says nothing', async () => {
    const { dog, group } = await started();
    await dog.freeze({ deadlineMs: 300 });
    await until(() => asked().length === 2, 'it thawed');
    expect(await dog.thaw()).toEqual({ word: 'thawed', detail: 'late' });
    await until(() => !runs(group), 'all of it has ended');
    expect(asked()).toEqual(['-f', '-u']);
  });

  test('that never froze anything ends with its agent, and thaws nothing', async () => {
    const { dog, group } = await started();
    dog.release();
    await until(() => !runs(group), 'all of it has ended');
    expect(asked()).toEqual(['']);
  });
});
