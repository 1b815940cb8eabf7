/** hack/demo with disks and a workload that it has never seen: --disk, --workload, --keep. */
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DemonstrationRun } from './demonstrationRun.ts';
import {
  checkFilesystem,
  examineDatabase,
  lastDurableRow,
  makeDatabaseWorkload,
  makeGptDisk,
  makeUnevenDisk,
  partitionOf,
} from './foreignDisks.ts';
import { makeWorkplace, type Workplace } from './workplace.ts';

let workplace: Workplace;

beforeEach(() => {
  workplace = makeWorkplace();
});

afterEach(async () => {
  await workplace.leave();
});

const inWorkplace = (name: string) => path.join(workplace.folder, name);

test('disks of others come back with a consistent database and clean filesystems, stay with --keep, and Ctrl-C then leaves nothing', async () => {
  const uneven = makeUnevenDisk(inWorkplace('uneven.img'));
  const gpt = makeGptDisk(inWorkplace('gpt.img'));
  const file = inWorkplace('report.json');
  const run = new DemonstrationRun(workplace, [
    ...['--disk', uneven, '--disk', gpt],
    ...['--workload', makeDatabaseWorkload(inWorkplace('orders'))],
    ...['--seconds', '3', '--keep', '--json', file],
  ]);
  await run.saying(/Ctrl-C ends it and removes everything/, 400_000);

  const report = JSON.parse(readFileSync(file, 'utf8'));
  const anyNumber = expect.any(Number);
  expect(report).toEqual({
    ok: true,
    initialReplication: {
      bytes: statSync(uneven).size + statSync(gpt).size,
      bytesSent: anyNumber,
      seconds: anyNumber,
    },
    barriers: { count: anyNumber, freezeMsMax: anyNumber },
    rpoSeconds: anyNumber,
    rtoSeconds: anyNumber,
    recoveryPoint: { lsn: expect.stringMatching(/^\d+$/), time: expect.stringMatching(/Z$/) },
    rootsMatch: true,
    ...{ recordAtBarrier: null, recordRecovered: null, booted: null },
    recoveredDisks: [expect.any(String), expect.any(String)],
  });
  expect(report.initialReplication.bytesSent).toBeGreaterThan(0);
  expect(report.initialReplication.bytesSent).toBeLessThan(report.initialReplication.bytes / 2);
  expect(report.barriers.count).toBeGreaterThan(0);

  const [first, second] = report.recoveredDisks as [string, string];
  checkFilesystem(first);
  const filesystem = partitionOf(second, inWorkplace('recovered.ext4'));
  checkFilesystem(filesystem);
  const { integrity, last } = examineDatabase(filesystem, inWorkplace('database'));
  const log = path.join(run.folder ?? '', 'logs/workload.log');
  const promised = lastDurableRow(log, Date.parse(report.recoveryPoint.time));
  expect(integrity).toBe('ok');
  expect(promised).toBeGreaterThan(0);
  expect(last).toBeGreaterThanOrEqual(promised);

  // What it says how to look with works as it stands, in a shell that knows nothing else.
  const [variable = '', command = ''] = /export KUBECONFIG=.*\n.*kubectl get .*/
    .exec(run.said)?.[0]
    .split('\n') ?? ['', ''];
  const seen = execFileSync('sh', ['-c', `${variable}; ${command.replace(/^.* s {2}/, '')}`], {
    // Where kubectl keeps what it discovered.
    env: { HOME: workplace.folder },
    encoding: 'utf8',
  });
  expect(seen).toMatch(/protectedvm\S*\/shop/);

  run.interrupt();
  expect(await run.ended, run.said).toBe(0);
  expect(run.leftovers()).toEqual([]);
}, 500_000);

test('a workload that fails fails the demonstration, which says what the workload said', async () => {
  const workload = inWorkplace('failing');
  writeFileSync(workload, '#!/bin/sh\necho no such shop >&2\nexit 3\n', { mode: 0o755 });
  const run = new DemonstrationRun(workplace, [
    ...['--disk', makeUnevenDisk(inWorkplace('uneven.img'))],
    ...['--workload', workload, '--seconds', '2', '--json'],
  ]);
  expect(await run.ended, run.said).toBe(1);
  // Without a file the figures, and nothing else, are on standard output.
  const report = JSON.parse(run.stdout);
  expect(report.ok).toBe(false);
  expect(report.error).toMatch(/the workload ended with exit code 3; it said:\nno such shop/);
  expect(run.stderr).toMatch(/FAILED: the workload ended with exit code 3/);
  expect(run.leftovers()).toEqual([]);
}, 240_000);

test.each([
  {
    what: 'an empty image',
    args: () => {
      writeFileSync(inWorkplace('empty.img'), '');
      return ['--disk', inWorkplace('empty.img')];
    },
    says: /empty\.img is empty/,
  },
  {
    what: 'more disks than any size takes',
    args: () => {
      const disk = makeUnevenDisk(inWorkplace('disk.img'));
      return Array.from({ length: 34 }, () => ['--disk', disk]).flat();
    },
    says: /34 disks are more than any size of machine here takes: 33 at most/,
  },
  {
    what: 'a workload that is not executable',
    args: () => {
      writeFileSync(inWorkplace('notes'), 'remember the milk\n', { mode: 0o644 });
      return ['--workload', inWorkplace('notes')];
    },
    says: /notes is not executable/,
  },
])('$what is refused at once, with the reason in the report', async ({ args, says }) => {
  const file = inWorkplace('report.json');
  const run = new DemonstrationRun(workplace, [...args(), '--json', file]);
  expect(await run.ended, run.said).toBe(1);
  expect(run.said).not.toMatch(/starting a Kubernetes/);
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
    ok: false,
    error: expect.stringMatching(says),
  });
  expect(run.leftovers()).toEqual([]);
});
