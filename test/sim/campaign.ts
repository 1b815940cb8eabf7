/** Many seeds over several processes. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { RunResult } from './run.ts';
import type { SliceOptions } from './slice.ts';

/** A core each. */
export const PROCESSES = 2;
/** Short-lived garbage dies young, and each process keeps to its core. */
const FLAGS = ['--single-threaded-gc', '--max-semi-space-size=64'];
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
  /** By default PROCESSES. */
  processes?: number;
  onResult?: (result: RunResult) => void;
}): Promise<CampaignResult> {
  const { from, seeds, mutant, untilFound = false, processes: count = PROCESSES } = options;
  const { onResult } = options;
  const total: CampaignResult = {
    seeds: 0,
    events: 0,
    faults: {},
    points: 0,
    breaches: [],
    traces: new Map(),
  };
  const stop = new AbortController();
  const processes = Array.from({ length: Math.min(count, seeds) }, (_, index) =>
    runSlice(
      {
        from: from + index,
        step: count,
        seeds: Math.ceil((seeds - index) / count),
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

/**
 * The first seed at which a planted bug shows; undefined when none does. A seed that breaches without the bug, too, proves nothing and is
 * passed over.
 */
export async function findPlanted(options: {
  mutant: string;
  from: number;
  seeds: number;
}): Promise<SeedBreach | undefined> {
  const { mutant, from, seeds } = options;
  const alone = { processes: 1, untilFound: true };
  const end = from + seeds;
  for (let next = from; next < end; ) {
    const { breaches } = await runCampaign({ from: next, seeds: end - next, mutant, ...alone });
    const [breach] = breaches;
    if (breach === undefined) return undefined;
    const without = await runCampaign({ from: breach.seed, seeds: 1, ...alone });
    if (without.breaches.length === 0) return breach;
    next = breach.seed + 1;
  }
  return undefined;
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
    const child = spawn(process.execPath, [...FLAGS, slice, JSON.stringify(options)], {
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
