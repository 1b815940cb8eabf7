/** An exploration over several processes. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import type { CrashSlice, SliceResult } from './slice.ts';

const PROCESSES = 2;
const slice = path.join(import.meta.dirname, 'slice.ts');
const run = promisify(execFile);

/**
 * All crashes of all workloads of up to so many operations, until one is not survived. Where slices meet, a moment may be counted twice;
 * a slice that is ended because another one has found something counts for nothing.
 */
export async function exploreCrashes(
  options: Omit<CrashSlice, 'index' | 'of' | 'breaches'> & { breaches?: number },
): Promise<SliceResult> {
  const found = new AbortController();
  const { signal } = found;
  const slices = Array.from({ length: PROCESSES }, async (_, index) => {
    const asked: CrashSlice = { breaches: 1, ...options, index, of: PROCESSES };
    try {
      const { stdout } = await run(process.execPath, [slice, JSON.stringify(asked)], { signal });
      const result = JSON.parse(stdout) as SliceResult;
      if (result.breaches.length >= asked.breaches) found.abort();
      return [result];
    } catch (error) {
      if (signal.aborted) return [];
      throw error;
    }
  });
  return (await Promise.all(slices)).flat().reduce((a, b) => ({
    workloads: a.workloads + b.workloads,
    deaths: a.deaths + b.deaths,
    secondDeaths: a.secondDeaths + b.secondDeaths,
    recoveries: a.recoveries + b.recoveries,
    breaches: [...a.breaches, ...b.breaches],
    cpuSeconds: Math.round(a.cpuSeconds + b.cpuSeconds),
  }));
}
