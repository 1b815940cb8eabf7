import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { type Running, start, tail } from './process.ts';

let logs: string;

beforeEach(() => {
  logs = mkdtempSync(path.join(os.tmpdir(), 'farshore-process-'));
});

afterEach(() => {
  rmSync(logs, { recursive: true, force: true });
});

function shell(script: string, ...args: string[]): Running {
  return start({ name: 'it', command: ['sh', '-c', script, 'sh', ...args], logs });
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const sizeOf = (file: string) => statSync(file, { throwIfNoEntry: false })?.size ?? 0;
const WRITER = '(while :; do echo x >> "$1"; sleep 0.01; done) &';

for (const { what, script } of [
  { what: 'that runs', script: `${WRITER} wait` },
  { what: 'that has ended', script: `${WRITER} exit 0` },
])
  test(`killing a program ${what} ends what it started, too: nothing writes on`, async () => {
    const file = path.join(logs, 'written');
    const running = shell(script, file);
    await until('it writes', () => sizeOf(file) > 0);
    await running.kill();
    const then = sizeOf(file);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(sizeOf(file)).toBe(then);
  });

test('stopping lets a program end in order, and ends what it leaves', async () => {
  const [file, farewell] = [path.join(logs, 'written'), path.join(logs, 'farewell')];
  const running = shell(`${WRITER} trap 'echo bye > "$2"; exit 0' TERM; wait`, file, farewell);
  await until('it writes', () => sizeOf(file) > 0);
  await running.stop();
  expect(readFileSync(farewell, 'utf8')).toBe('bye\n');
  expect(running.failure()).toBeUndefined();
  const then = sizeOf(file);
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(sizeOf(file)).toBe(then);
});

test('a program that can not be started has failed, and its log says why', async () => {
  const running = start({ name: 'it', command: [path.join(logs, 'missing')], logs });
  await until('it failed', () => running.failure() !== undefined);
  expect(running.alive()).toBe(false);
  expect(running.failure()).toMatch(/could not be started: .*ENOENT/);
  expect(tail(running)).toMatch(/ENOENT/);
  await running.kill();
});

test('a program that ends with another code than 0 has failed; with 0 it has not', async () => {
  const bad = shell('echo no room >&2; exit 3');
  await until('it ended', () => !bad.alive());
  expect(bad.failure()).toBe('ended with exit code 3');
  expect(tail(bad)).toBe('no room');
  const good = shell('exit 0');
  await until('it ended', () => !good.alive());
  expect(good.failure()).toBeUndefined();
});

test('a program that was killed is sent nothing any more: its number may be somebody else’s by then', async () => {
  const running = shell('sleep 600');
  await running.kill();
  const signals = vi.spyOn(process, 'kill');
  onTestFinished(() => signals.mockRestore());
  await running.stop();
  await running.kill();
  expect(signals).not.toHaveBeenCalled();
});
