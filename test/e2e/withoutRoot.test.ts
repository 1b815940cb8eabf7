/** What somebody sees who runs the tests without being root. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { countsOf } from '../../hack/testCounts.ts';
import { makeWorkplace } from './workplace.ts';

const root = path.resolve(import.meta.dirname, '../..');
const workplace = makeWorkplace();

afterAll(async () => {
  await workplace.leave();
});

test('tests that need root fail without it and say so: none is skipped, and none counts as passed', () => {
  const report = path.join(workplace.folder, 'report.json');
  // In a user namespace without a mapping we are nobody, and can read the tree all the same.
  const vitest = ['vitest', 'run', 'test/integration/machines.test.ts', 'test/e2e/planned.test.ts'];
  const output = ['--reporter=json', `--outputFile.json=${report}`];
  const { status, stderr } = spawnSync('unshare', ['--user', ...vitest, ...output], {
    ...{ cwd: root, encoding: 'utf8' },
    // Which of its files it wants to run is its own, not ours.
    env: { ...process.env, VITEST: undefined },
  });
  expect(status, stderr).toBe(1);
  const said = JSON.parse(readFileSync(report, 'utf8'));
  expect(said.testResults).toHaveLength(2);
  const count = countsOf(said);
  expect(count).toEqual({ passed: 0, failed: said.numTotalTests, skipped: 0 });
  expect(count.failed).toBeGreaterThan(2);
  for (const file of said.testResults) {
    expect(file.message).toBe('');
    for (const one of file.assertionResults) {
      expect(one.status).toBe('failed');
      expect(one.failureMessages[0]).toMatch(/needs root.*Run it with sudo/);
    }
  }
}, 120_000);
