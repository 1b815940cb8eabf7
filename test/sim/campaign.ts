/** Many seeds over several processes. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { RunResult } from './run.ts';
import type { SliceOptions } from './slice.ts';

const PROCESSES = 2;
const slice = path.join(import.meta.dirname, 'slice.ts');

export interface SeedBreach {
  seed: number;
  invariant: string;
  /** Virtual milliseconds since the run began. */
  at: number;
  detail: string;
}

export interface CampaignResult {
  seeds: number;
  events: number;
  faults: Record<string, number>;
  points: number;
  breaches: SeedBreach[];
  /** Seed → what it did, hashed. */
  traces: Map<number, string>;
}

/** Runs seeds `from` to `from + seeds - 1`. */
export async function runCampaign(options: {
  from: number;
  seeds: number;
  mutant?: string;
  untilFound?: boolean;
  onResult?: (result: RunResult) => void;
}): Promise<CampaignResult> {
  const { from, seeds, mutant, untilFound = false, onResult } = options;
  const total: CampaignResult = {
    seeds: 0,
    events: 0,
    faults: {},
    points: 0,
    breaches: [],
    traces: new Map(),
  };
  const stop = new AbortController();
  const processes = Array.from({ length: Math.min(PROCESSES, seeds) }, (_, index) =>
    runSlice(
      {
        from: from + index,
        step: PROCESSES,
        seeds: Math.ceil((seeds - index) / PROCESSES),
        untilFound,
        ...(mutant === undefined ? {} : { mutant }),
      },
      stop.signal,
      (result) => {
        add(total, result);
        onResult?.(result);
        if (untilFound && result.breaches.length > 0) stop.abort();
      },
    ),
  );
  await Promise.all(processes);
  total.breaches.sort((a, b) => a.seed - b.seed);
  return total;
}

function add(total: CampaignResult, result: RunResult): void {
  total.seeds += 1;
  total.events += result.events;
  total.points += result.points;
  total.traces.set(result.seed, result.trace);
  for (const [kind, count] of Object.entries(result.faults))
    total.faults[kind] = (total.faults[kind] ?? 0) + count;
  // What follows the first is its consequence.
  const [first] = result.breaches;
  if (first !== undefined) total.breaches.push({ seed: result.seed, ...first });
}

function runSlice(
  options: SliceOptions,
  signal: AbortSignal,
  onResult: (result: RunResult) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [slice, JSON.stringify(options)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const end = () => child.kill('SIGKILL');
    signal.addEventListener('abort', end, { once: true });
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (!signal.aborted) onResult(JSON.parse(line) as RunResult);
    });
    child.once('error', reject);
    child.once('close', (code) => {
      signal.removeEventListener('abort', end);
      if (code === 0 || signal.aborted) resolve();
      else reject(new Error(`the process of a slice ended with code ${code}`));
    });
  });
}
