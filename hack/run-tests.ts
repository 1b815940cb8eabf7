/**
 * Runs every check one after the other, shows each one's output, and ends with one line that counts them all:
 * a static check counts as one test, and so does each of Vitest's.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ensureKubernetes } from './kubernetes.ts';

interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

const scratch = mkdtempSync(path.join(os.tmpdir(), 'farshore-tests-'));
const total: Count = { passed: 0, failed: 0, skipped: 0 };
try {
  for (const [name, command] of [
    ['lint', ['biome', 'check', '--error-on-warnings', '.']],
    ['types', ['tsc', '--noEmit']],
    ['layers', ['node', 'hack/check-layers.ts']],
    ['CRD types', ['node', 'hack/generate-crd-types.ts', '--check']],
  ] as const)
    add(staticCheck(name, command));
  add(vitest('unit'));
  process.env.KUBEBUILDER_ASSETS = await ensureKubernetes((line) => console.log(line));
  add(vitest('integration'));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed === 0 ? 0 : 1;

function add(count: Count): void {
  total.passed += count.passed;
  total.failed += count.failed;
  total.skipped += count.skipped;
}

function staticCheck(name: string, command: readonly string[]): Count {
  console.log(`--- ${name}`);
  const { status } = spawnSync(command[0] ?? '', command.slice(1), { stdio: 'inherit' });
  return status === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
}

function vitest(project: string): Count {
  console.log(`--- ${project} tests`);
  const report = path.join(scratch, `${project}.json`);
  const run = spawnSync(
    'vitest',
    [
      'run',
      '--project',
      project,
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
    ],
    { stdio: 'inherit' },
  );
  try {
    const counted = JSON.parse(readFileSync(report, 'utf8')) as Record<string, number>;
    const failed = counted.numFailedTests ?? 0;
    // A file that could not even be loaded fails no test of its own, yet the run.
    const silent = run.status !== 0 && failed === 0 ? 1 : 0;
    return {
      passed: counted.numPassedTests ?? 0,
      failed: failed + silent,
      skipped: (counted.numPendingTests ?? 0) + (counted.numTodoTests ?? 0),
    };
  } catch {
    console.error(`${project}: no report was written`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}
