/** What every benchmark takes and gives. */

export interface BenchOptions {
  /** Size of what is measured; each benchmark has its own default. */
  mib?: number;
  rounds: number;
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
    const once = async () => {
      if (this.#left.delete(once)) await remove();
    };
    this.#left.add(once);
    return once;
  }

  /** Removes what is left, last made first. */
  async all(): Promise<void> {
    for (const remove of [...this.#left].reverse()) await remove();
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
