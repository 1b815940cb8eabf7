/** What a Vitest report counts. */

export interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

/** The part of Vitest's JSON report that is read. */
export interface TestReport {
  testResults: {
    status: string;
    /** Statuses: passed, failed, and those of tests that did not run. */
    assertionResults: { status: string }[];
  }[];
}

/**
 * Vitest calls a test skipped when a hook before it threw, and knows no test of a file that it could not load. In a file that failed,
 * whatever did not run has failed.
 */
export function countsOf(report: TestReport): Count {
  const total: Count = { passed: 0, failed: 0, skipped: 0 };
  for (const file of report.testResults) {
    const statuses = file.assertionResults.map((test) => test.status);
    const passed = statuses.filter((status) => status === 'passed').length;
    const failed = statuses.filter((status) => status === 'failed').length;
    const unrun = statuses.length - passed - failed;
    const hasFailed = file.status === 'failed';
    total.passed += passed;
    total.failed += hasFailed ? Math.max(1, failed + unrun) : failed;
    total.skipped += hasFailed ? 0 : unrun;
  }
  return total;
}
