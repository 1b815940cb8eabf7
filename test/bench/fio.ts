import type { Cleanup } from './benchmark.ts';
import { runProgram } from './program.ts';

/** Completion latencies of one direction, milliseconds. */
export interface Latencies {
  p50: number;
  p99: number;
}

export interface FioResult {
  /** Reads and writes together. */
  iops: number;
  /** Undefined when there were none. */
  read: Latencies | undefined;
  write: Latencies | undefined;
}

interface FioDirection {
  iops: number;
  total_ios: number;
  clat_ns: { percentile?: Record<string, number> };
}

/** Runs fio beside what the benchmark started (one job; `options` are its own, without the dashes) and returns what it measured. */
export async function runFio(
  options: Record<string, string | number>,
  context: { cleanup: Cleanup },
): Promise<FioResult> {
  const args = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  // Jobs that are processes begin a session of their own each, and would outlive us.
  const printed = await runProgram('fio', ['--thread', '--output-format=json', ...args], {
    ...context,
    // As two services of one machine, so that the agent's lower priority counts.
    session: 'ours',
  });
  const { jobs } = JSON.parse(printed) as { jobs: { read: FioDirection; write: FioDirection }[] };
  const [job] = jobs;
  if (job === undefined) throw new Error(`fio ran no job: ${printed.slice(0, 500)}`);
  return {
    iops: job.read.iops + job.write.iops,
    read: latencies(job.read),
    write: latencies(job.write),
  };
}

function latencies({ total_ios, clat_ns }: FioDirection): Latencies | undefined {
  if (total_ios === 0) return undefined;
  const at = (percentile: string) => (clat_ns.percentile?.[percentile] ?? Number.NaN) / 1e6;
  return { p50: at('50.000000'), p99: at('99.000000') };
}
