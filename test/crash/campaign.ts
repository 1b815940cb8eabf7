/** An exploration over several processes. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import type { CrashSlice, SliceResult } from './slice.ts';

const PROCESSES = 2;
const slice = path.join(import.meta.dirname, 'slice.ts');
const run = promisify(execFile);

/** All crashes of all workloads of up to so many operations. Where slices meet, a moment may be counted twice. */
export async function exploreCrashes(
  options: Omit<CrashSlice, 'index' | 'of' | 'breaches'> & { breaches?: number },
): Promise<SliceResult> {
  const slices = Array.from({ length: PROCESSES }, async (_, index) => {
    const asked: CrashSlice = { breaches: 1, ...options, index, of: PROCESSES };
    const { stdout } = await run(process.execPath, [slice, JSON.stringify(asked)]);
    return JSON.parse(stdout) as SliceResult;
  });
  return (await Promise.all(slices)).reduce((a, b) => ({
    workloads: a.workloads + b.workloads,
    deaths: a.deaths + b.deaths,
    secondDeaths: a.secondDeaths + b.secondDeaths,
    recoveries: a.recoveries + b.recoveries,
    breaches: [...a.breaches, ...b.breaches],
    cpuSeconds: Math.round(a.cpuSeconds + b.cpuSeconds),
  }));
}
