/**
 * An operator that is suspended between looking and creating, while another one takes the lease, runs the failover and removes all of it:
 * it goes on in the middle of its call, and must not make what nobody would remove any more. (A disk it could not make: the copy to import is
 * gone. A network interface needs nothing.)
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ModelSite } from './modelSite.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const NAME = 'tried-test';
const PATIENCE_MS = 90_000;
const LAST_LOOK = 2;
const workplace = makeWorkplace();
let site: ModelSite;
/** What Azure does before it answers that there is no such network interface, for the so manieth time. */
let beforeAbsence: (times: number) => void = () => undefined;
const absences = new Map<string, number>();

beforeAll(async () => {
  site = await ModelSite.start(workplace, {
    armCall: async ({ operation, name, status }) => {
      if (operation !== 'GET networkInterfaces' || status !== 404) return;
      const times = (absences.get(name) ?? 0) + 1;
      absences.set(name, times);
      beforeAbsence(times);
    },
    ledgerWrite: async () => undefined,
  });
});

afterAll(async () => {
  await workplace.leave();
});

test('an operator that was suspended before it made something makes nothing after its successor has removed all', async () => {
  await site.addMachine('tried');
  await site.operator.kill();
  const first = site.startOperator({ leaderElect: true });
  const stopped = new Promise<void>((resolve) => {
    beforeAbsence = (times) => {
      // Once for the step, and once right before it is created.
      if (times !== LAST_LOOK) return;
      process.kill(first.pid, 'SIGSTOP');
      resolve();
    };
  });
  await site.createFailover({ type: 'Test', name: NAME, machine: 'tried' });
  await stopped;

  site.operator = site.startOperator({ leaderElect: true });
  await site.untilOutcome(NAME, 'FailedOver', PATIENCE_MS);
  await site.desire(NAME, 'CleanedUp');
  await site.untilOutcome(NAME, 'CleanedUp', PATIENCE_MS);
  expect(await site.madeBy(NAME)).toEqual([]);
  const created = await site.cloud.arm.control.creations();

  process.kill(first.pid, 'SIGCONT');
  const said = () => readFileSync(first.logFile, 'utf8');
  await eventually({ what: 'it says that it leads no more', timeoutMs: 30_000 }, async () =>
    /could not be renewed/.test(said()) ? true : undefined,
  );
  await first.stop();
  expect(await site.madeBy(NAME)).toEqual([]);
  expect(await site.cloud.arm.control.creations()).toEqual(created);
}, 240_000);
