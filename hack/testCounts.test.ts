import { expect, test } from 'vitest';
import { countsOf } from './testCounts.ts';

const file = (status: string, ...statuses: string[]) => ({
  status,
  assertionResults: statuses.map((one) => ({ status: one })),
});

test('tests that a failing hook kept from running have failed, also beside a file that failed in its own way', () => {
  const hookThrew = file('failed', 'skipped', 'skipped');
  expect(countsOf({ testResults: [hookThrew] })).toEqual({ passed: 0, failed: 2, skipped: 0 });
  const other = file('failed', 'passed', 'failed');
  expect(countsOf({ testResults: [hookThrew, other] })).toEqual({
    ...{ passed: 1, failed: 3, skipped: 0 },
  });
});

test('a file that could not be loaded is one failure', () => {
  expect(countsOf({ testResults: [file('failed'), file('passed', 'passed')] })).toEqual({
    ...{ passed: 1, failed: 1, skipped: 0 },
  });
});

test('what a file that passed leaves out on purpose is skipped, not failed', () => {
  expect(countsOf({ testResults: [file('passed', 'passed', 'skipped', 'todo')] })).toEqual({
    ...{ passed: 1, failed: 0, skipped: 2 },
  });
});
