/**
 * Runs tests that need root. Without it every one of them fails and says so, none is skipped: a hook at the beginning of a file that
 * threw would have its tests skipped, so none runs. Those at the end do, for they remove what a file made when it was loaded.
 */
import { type RunnerTestFile, type RunnerTestSuite, TestRunner } from 'vitest';

const { getSuiteHooks } = TestRunner;

export default class RootRunner extends TestRunner {
  onCollected(files: RunnerTestFile[]): void {
    if (process.getuid?.() === 0) return;
    for (const file of files) {
      forgetHooks(file);
      getSuiteHooks(file).beforeEach.push(() => {
        throw new Error(
          'This test needs root, for loop devices, mounts, kernel tracing and network namespaces. Run it with sudo.',
        );
      });
    }
  }
}

function forgetHooks(suite: RunnerTestSuite): void {
  const { beforeAll, aroundAll, beforeEach, aroundEach, afterEach, afterAll } =
    getSuiteHooks(suite);
  for (const hooks of [beforeAll, aroundAll, beforeEach, aroundEach, afterEach]) hooks.length = 0;
  for (const [index, hook] of afterAll.entries())
    afterAll[index] = async (...given) => {
      try {
        await hook(...given);
      } catch {
        // It misses what the hooks at the beginning would have made.
      }
    };
  for (const task of suite.tasks) if (task.type === 'suite') forgetHooks(task);
}
