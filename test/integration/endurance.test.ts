/**
 * `npm run endurance` as its user runs it: interrupted in each run; whole in the long form alone (FARSHORE_EXHAUSTIVE=1: 15 minutes of
 * faults, FARSHORE_ENDURANCE_MINUTES: as many as it says), for it wants the machine for itself. FARSHORE_ENDURANCE_SEED: another seed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Report } from '../endurance/report.ts';
import { sh } from './capture/machine.ts';

const MINUTES =
  process.env.FARSHORE_ENDURANCE_MINUTES ??
  (process.env.FARSHORE_EXHAUSTIVE === '1' ? '15' : undefined);
const SEED = process.env.FARSHORE_ENDURANCE_SEED ?? '351';
const PROGRAM = path.join(import.meta.dirname, '../endurance/main.ts');
/** Beside the faults: starting, a takeover, converging, comparing. */
const BESIDES_MS = 600_000;

/** Where the run makes everything. */
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-endured-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
});

describe('an endurance run', () => {
  test('over real processes, with a takeover under load: every disk is the source’s, and nothing is left', {
    timeout: Number(MINUTES ?? 0) * 60_000 + BESIDES_MS,
  }, async ({ skip }) => {
    if (MINUTES === undefined)
      return skip('takes 4 minutes and the whole machine: FARSHORE_ENDURANCE_MINUTES=0.4');
    const json = path.join(folder, 'report.json');
    const run = start(['--minutes', MINUTES, '--seed', SEED, '--json', json]);
    const code = await run.ended;
    expect(code, run.said()).toBe(0);
    const report = JSON.parse(readFileSync(json, 'utf8')) as Report;
    expect(report).toMatchObject({ ok: true, problems: [], seed: Number(SEED) });
    expect(report.disks).toHaveLength(3);
    expect(report.disks.every(({ matches }) => matches)).toBe(true);
    expect(report.points.rootsCompared).toBeGreaterThanOrEqual(3);
    expect(report.resyncs.filter(({ explained }) => !explained)).toEqual([]);
    expect(report.takeovers.length).toBeGreaterThan(0);
    for (const { movedSeconds, epochBefore, epochAfter, resentBytes } of report.takeovers) {
      expect(movedSeconds).toBeLessThanOrEqual(60);
      expect(epochAfter).toBeGreaterThan(epochBefore);
      expect(resentBytes).toBeGreaterThan(0);
    }
    expectNothingLeft(run.said());
  });

  test('that is interrupted under load ends with a failure, and nothing is left', {
    timeout: BESIDES_MS,
  }, async () => {
    const run = start(['--minutes', '10', '--seed', SEED]);
    await run.says('initial replication');
    run.child.kill('SIGINT');
    expect(await run.ended, run.said()).toBe(1);
    expect(run.said()).toContain('ended by SIGINT');
    expectNothingLeft(run.said());
  });
});

interface Started {
  child: ChildProcess;
  ended: Promise<number | null>;
  said(): string;
  says(text: string): Promise<void>;
}

function start(args: readonly string[]): Started {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: folder },
  });
  onTestFinished(() => void child.kill('SIGTERM'));
  let said = '';
  const ended = once(child, 'close').then(([code]) => code as number | null);
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk) => {
      said += chunk;
    });
  return {
    ...{ child, ended, said: () => said },
    says: async (text) => {
      while (!said.includes(text)) {
        if (child.exitCode !== null) throw new Error(`it ended before it said ${text}: ${said}`);
        await Promise.race([once(child.stdout ?? child, 'data'), ended]);
      }
    },
  };
}

function expectNothingLeft(said: string): void {
  const label = /namespaces (\S+)-\*/.exec(said)?.[1];
  expect(label).toBeDefined();
  expect(sh(`ip netns list; ip -o link`)).not.toContain(label);
  for (const [, machineId] of said.matchAll(/is machine (\w+)/g))
    expect(existsSync(`/sys/kernel/tracing/instances/farshore-${machineId}`)).toBe(false);
  expect(sh('losetup -a')).not.toContain(folder);
  expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(folder);
  expect(processesOf(folder)).toEqual([]);
  expect(readdirSync(folder).filter((name) => name.startsWith('farshore-'))).toEqual([]);
}

/** Command lines that name it. */
function processesOf(place: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return line.includes(place) ? [line] : [];
      } catch {
        return [];
      }
    });
}
