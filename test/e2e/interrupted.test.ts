/** Ctrl-C in a terminal: a signal to every process of the foreground's group. Whatever hack/demo is at, nothing of it stays. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DemonstrationRun } from './demonstrationRun.ts';
import { makeWorkplace, type Workplace } from './workplace.ts';

let workplace: Workplace;

beforeEach(() => {
  workplace = makeWorkplace();
});

afterEach(async () => {
  await workplace.leave();
});

test.each([
  { phase: 'while its servers start', at: /starting a Kubernetes API server/ },
  { phase: 'during the initial replication', at: /WaitingForAgent|Degraded|Protected|Replicating/ },
  { phase: 'during the failover', at: /ImportDisks +(Running|Done)/ },
])(
  'Ctrl-C $phase leaves no process, tracing instance, loop device, mount or file',
  async ({ at }) => {
    const run = new DemonstrationRun(workplace, ['--seconds', '1']);
    await run.saying(at, 240_000);
    run.interrupt();

    expect(await run.ended, run.said).toBe(1);
    expect(run.said).toMatch(/FAILED: ended by SIGINT\n.*everything that was started is gone/);
    expect(run.leftovers()).toEqual([]);
  },
  400_000,
);

test('hack/demo killed without warning is undone by what it leaves behind', async () => {
  const run = new DemonstrationRun(workplace, ['--seconds', '1']);
  await run.saying(/starting a Kubernetes API server/, 60_000);
  run.killForeground();
  await run.ended;
  expect(run.said).toMatch(/FAILED: ended by SIGTERM\n.*everything that was started is gone/);
  expect(run.leftovers()).toEqual([]);
}, 120_000);

test('whoever stops listening (`| head`) keeps nothing from being undone', async () => {
  const notes = path.join(workplace.folder, 'notes');
  writeFileSync(notes, '', { mode: 0o644 });
  const run = new DemonstrationRun(workplace, ['--workload', notes]);
  run.stopListening();
  expect(await run.ended).toBe(1);
  expect(run.leftovers()).toEqual([]);
}, 60_000);
