/**
 * Runs every check, shows each one's output, and ends with one line that counts them all:
 * a static check counts as one test, and so does each of Vitest's.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { stepAside } from '../test/fixtures/stepAside.ts';
import { ensureKubernetes } from './kubernetes.ts';
import { type Count, countsOf, type TestReport } from './testCounts.ts';

const PROCESSES = [
  ...['operator', 'cli'],
  ...['dataplane/agent', 'dataplane/applier', 'dataplane/processserver'],
];

const scratch = mkdtempSync(path.join(os.tmpdir(), 'farshore-tests-'));
const total: Count = { passed: 0, failed: 0, skipped: 0 };
try {
  const checks = [
    staticCheck('lint', ['biome', 'check', '--error-on-warnings', '.']),
    staticCheck('types', ['tsc', '--noEmit']),
    staticCheck('layers', ['node', 'hack/check-layers.ts']),
    staticCheck('CRD types', ['node', 'hack/generate-crd-types.ts', '--check']),
  ];
  for (const check of checks) add(await check);
  compileOnce();
  // `npm run sim` runs any number.
  process.env.FARSHORE_SIM_SEEDS ??= '200';
  add(await vitest('unit', { show: 'live' }));
  process.env.KUBEBUILDER_ASSETS = await ensureKubernetes({ say: (line) => console.log(line) });
  // They wait much, for servers, boots and barriers: side by side they take little longer than the longest. What has no real deadlines
  // takes the time that is left.
  const lanes = [['servers', 'bench'], ['e2e'], ['guest', 'devices'], ['thorough']].map(
    async (projects) => {
      for (const project of projects)
        add(
          await vitest(project, {
            show: project === 'devices' ? 'live' : 'after',
            aside: project === 'thorough',
          }),
        );
    },
  );
  await Promise.all(lanes);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed === 0 ? 0 : 1;

/**
 * The tests start our processes hundreds of times and kill most of them, which then leave nothing compiled. So each is compiled once
 * here, for all of them: to start, they take a third to a half less of the processor then. That they end with a usage error does not matter.
 */
function compileOnce(): void {
  process.env.NODE_COMPILE_CACHE = path.join(scratch, 'compiled');
  for (const folder of PROCESSES)
    spawnSync('node', [`${folder}/main.ts`, '--help'], { stdio: 'ignore' });
}

function add(count: Count): void {
  total.passed += count.passed;
  total.failed += count.failed;
  total.skipped += count.skipped;
}

/** Its output comes in one piece. */
async function staticCheck(name: string, command: readonly string[]): Promise<Count> {
  const output = path.join(scratch, `${name}.log`);
  const stream = openSync(output, 'w');
  const child = spawn(command[0] ?? '', command.slice(1), { stdio: ['ignore', stream, stream] });
  const status = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  closeSync(stream);
  console.log(`--- ${name}\n${readFileSync(output, 'utf8')}`);
  return status === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
}

/**
 * One project's tests. Output that comes `after` is shown in one piece, so that two projects do not mix theirs. `aside`: they take only
 * the time that nobody else wants.
 */
async function vitest(
  project: string,
  options: { show: 'live' | 'after'; aside?: boolean },
): Promise<Count> {
  const { show, aside = false } = options;
  const report = path.join(scratch, `${project}.json`);
  const output = path.join(scratch, `${project}.log`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const stream = show === 'live' ? 'inherit' : openSync(output, 'w');
  if (show === 'live') console.log(`--- ${project} tests`);
  const child = spawn('vitest', ['run', '--project', project, ...reporters], {
    stdio: ['ignore', stream, stream],
    detached: aside,
  });
  if (aside && child.pid !== undefined) {
    endWithUs(child.pid);
    try {
      stepAside(child.pid);
    } catch (error) {
      console.log(`${project} tests share the processors with the others: ${error}`);
    }
  }
  const status = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  if (typeof stream === 'number') {
    closeSync(stream);
    console.log(`--- ${project} tests\n${readFileSync(output, 'utf8')}`);
  }
  return counted(report, { project, status });
}

/** A process group of its own is not reached by what ends ours. */
function endWithUs(group: number): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      try {
        process.kill(-group, 'SIGTERM');
      } catch {
        // It has ended.
      }
      process.exit(1);
    });
}

function counted(report: string, run: { project: string; status: number | null }): Count {
  try {
    const count = countsOf(JSON.parse(readFileSync(report, 'utf8')) as TestReport);
    // An error outside of every test and file fails the run all the same.
    const silent = run.status !== 0 && count.failed === 0 ? 1 : 0;
    return { ...count, failed: count.failed + silent };
  } catch {
    console.error(`${run.project}: no report was written`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}
