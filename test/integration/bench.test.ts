import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { apply } from '../bench/apply.ts';
import { backup } from '../bench/backup.ts';
import { type Benchmark, type BenchOptions, Cleanup } from '../bench/benchmark.ts';
import { capture } from '../bench/capture.ts';
import { impact } from '../bench/impact.ts';
import { ingest } from '../bench/ingest.ts';
import { initial } from '../bench/initial.ts';
import { resync } from '../bench/resync.ts';
import { rpo } from '../bench/rpo.ts';
import { sh } from './capture/machine.ts';

async function measured(benchmark: Benchmark, options: Partial<BenchOptions>) {
  const lines: string[] = [];
  const cleanup = new Cleanup();
  const result = await benchmark({
    rounds: 2,
    cleanup,
    tell: (line) => lines.push(line),
    ...options,
  });
  expect(lines.length).toBeGreaterThanOrEqual(result.rounds.length);
  expect(result.rounds.length).toBeGreaterThan(0);
  for (const { label, value } of result.figures) expect(value, label).toBeGreaterThan(0);
  return { ...result, lines };
}

test('the benchmark of initial replication measures both sides in turn, within the memory that a process server may take', async () => {
  const { figures, rounds } = await measured(initial, { mib: 64 });
  expect(rounds.map((round) => (round as { first: string }).first)).toEqual([
    'azurite',
    'farshore',
  ]);
  // A small copy needs no more memory than a large one may take.
  expect(
    figures.find(({ unit, goal }) => unit === 'MiB' && goal !== undefined)?.value,
  ).toBeLessThan(400);
});

test('the benchmark of capture measures passes and traced events', async () => {
  await measured(capture, { mib: 64 });
});

test('the benchmark of apply measures sequential and scattered journals', async () => {
  await measured(apply, { mib: 16 });
});

test('the benchmark of ingest has two machines in a store that forgets', async () => {
  const { rounds } = await measured(ingest, { mib: 64, rounds: 1 });
  const [{ journalMib }] = rounds as [{ journalMib: number }];
  // Half of it is random, and the rest compresses.
  expect(journalMib).toBeGreaterThan(32);
  expect(journalMib).toBeLessThan(64);
});

test('the benchmark of resync sends the changed leaves and little else', async () => {
  const { figures } = await measured(resync, { mib: 128, rounds: 1 });
  const of = (label: string) => figures.find((figure) => figure.label === label)?.value;
  const [changed = 0, records = 0] = [of('changed leaves'), of('sent as records')];
  expect(records).toBeGreaterThanOrEqual(changed);
  // A record's header beside each leaf.
  expect(records).toBeLessThan(changed * 1.01);
  expect(of('sent in all, hashes counted')).toBeGreaterThan(records);
});

test('the benchmark of impact runs its loads with and without an agent', async () => {
  const { rounds } = await measured(impact, {
    mib: 64,
    rounds: 1,
    minutes: 2 / 60,
    barrierSeconds: 1,
  });
  expect(rounds.map((round) => (round as { agent: boolean }).agent)).toEqual([false, true]);
});

test('the benchmark of RPO sees barriers become durable under load', async () => {
  const { rounds } = await measured(rpo, { mib: 64, minutes: 6 / 60, barrierSeconds: 1 });
  const [{ durable }] = rounds as [{ durable: unknown[] }];
  expect(durable.length).toBeGreaterThan(1);
});

test('the benchmark against backup programs measures those that are installed, and names the others', async () => {
  const { rounds, lines } = await measured(backup, { mib: 64, rounds: 1 });
  const [round] = rounds as [Record<string, number | undefined>];
  for (const name of ['restic', 'rclone'])
    expect(round[name] !== undefined).toBe(
      !lines.some((line) => line.startsWith(`${name} is not installed`)),
    );
});

test('a benchmark that is interrupted leaves no process, device, mount or file behind', async () => {
  const place = mkdtempSync(path.join(tmpdir(), 'farshore-bench-'));
  try {
    const program = path.resolve(import.meta.dirname, '../bench/main.ts');
    const child = spawn(process.execPath, [program, 'rpo', '--mib', '64', '--minutes', '5'], {
      env: { ...process.env, TMPDIR: place },
      stdio: 'ignore',
    });
    const exited = once(child, 'exit');
    const loadRuns = () => globSync(path.join(place, 'farshore-capture-*/mnt-*/data')).length > 0;
    while (!loadRuns() && child.exitCode === null) await new Promise((r) => setTimeout(r, 100));
    child.kill('SIGINT');
    expect(await exited).toEqual([130, null]);
    expect(readdirSync(place)).toEqual([]);
    expect(sh('losetup --list --noheadings --output BACK-FILE')).not.toContain(place);
    expect(commandLines().filter((line) => line.includes(place))).toEqual([]);
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
});

/** Of all processes that run now. */
function commandLines(): string[] {
  return readdirSync('/proc')
    .map((entry) => `/proc/${entry}/cmdline`)
    .filter((file) => /\d/.test(file) && existsSync(file))
    .map((file) => readFileSync(file, 'utf8'));
}
