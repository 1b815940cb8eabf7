/** Waiting for what must come true, unless the run is ended meanwhile. */
export class Patience {
  readonly signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.signal = signal;
  }

  /** Rejects with the signal's reason. */
  async pause(ms: number): Promise<void> {
    this.signal.throwIfAborted();
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.signal.removeEventListener('abort', end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.signal.addEventListener('abort', end);
    });
    this.signal.throwIfAborted();
  }

  /** Looks four times a second until there is something. Rejects after `withinMs`, with what the last look threw. */
  async until<T>(
    what: string,
    withinMs: number,
    look: () => Promise<T | undefined> | T | undefined,
  ): Promise<T> {
    const deadline = performance.now() + withinMs;
    let problem: unknown;
    while (performance.now() < deadline) {
      try {
        const found = await look();
        if (found !== undefined) return found;
        problem = undefined;
      } catch (error) {
        problem = error;
      }
      await this.pause(250);
    }
    const why = problem instanceof Error ? `: ${problem.message}` : '';
    throw new Error(`${what}: not within ${withinMs / 1000} s${why}`, { cause: problem });
  }
}
