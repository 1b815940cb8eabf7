/** What every benchmark takes and gives. */
import { execFileSync } from 'node:child_process';

export interface BenchOptions {
  /** Size of what is measured; each benchmark has its own default. */
  mib?: number;
  rounds: number;
  /** How long a load runs, where one does. Fractions are fine. */
  minutes?: number;
  /** Between barriers, where that is not the benchmark's own: for tests, which can't wait. */
  barrierSeconds?: number;
  /** CPU profiles of the processes under test go there, where a benchmark has such. */
  profileDirectory?: string;
  tell: (line: string) => void;
  cleanup: Cleanup;
}

/** Devices, servers and processes of a benchmark: removed when it is done with them, or when it is interrupted. */
export class Cleanup {
  readonly #left = new Set<() => Promise<void>>();

  /** Returns what to call when done; it runs once. */
  add(remove: () => Promise<void>): () => Promise<void> {
    // It stays until it is through, so that whoever cleans up all waits for what is being removed already.
    let removing: Promise<void> | undefined;
    const once = () => {
      removing ??= remove().finally(() => this.#left.delete(once));
      return removing;
    };
    this.#left.add(once);
    return once;
  }

  /** Removes what is left, last made first, and also what is made meanwhile. One that can't be removed keeps none of the others. */
  async all(): Promise<void> {
    const problems: unknown[] = [];
    for (let last = this.#last(); last !== undefined; last = this.#last())
      await last().catch((problem: unknown) => problems.push(problem));
    if (problems.length > 0) throw new AggregateError(problems, 'not everything was cleaned up');
  }

  #last(): (() => Promise<void>) | undefined {
    return [...this.#left].at(-1);
  }
}

export interface Figure {
  label: string;
  value: number;
  /** Empty for a ratio. */
  unit: string;
  goal?: { least: number } | { most: number };
}

export interface BenchResult {
  figures: readonly Figure[];
  /** Everything that was measured, round by round. */
  rounds: readonly unknown[];
}

export type Benchmark = (options: BenchOptions) => Promise<BenchResult>;

export function isGood({ value, goal }: Figure): boolean {
  if (goal === undefined) return true;
  return 'least' in goal ? value >= goal.least : value <= goal.most;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[middle]];
  return (low + high) / 2;
}

/** Seconds that it took, and what it gave. */
export async function timed<T>(act: () => Promise<T>): Promise<{ seconds: number; result: T }> {
  const started = performance.now();
  const result = await act();
  return { seconds: (performance.now() - started) / 1000, result };
}

/** Of values in ascending order: the least that `share` of them do not exceed. */
export function percentile(ascending: readonly number[], share: number): number {
  const place = Math.max(0, Math.ceil(ascending.length * share) - 1);
  return ascending[place] ?? Number.NaN;
}

/** What was written before is on the disk, so that it is not waited for by what is measured now. */
export async function settled<T>(measure: () => Promise<T>): Promise<T> {
  execFileSync('sync');
  return await measure();
}
