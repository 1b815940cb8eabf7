import { Session } from 'node:inspector';
import path from 'node:path';

const root = new URL(`file://${path.resolve(import.meta.dirname, '../..')}/`).href;
/** What is looked at: the product, not the tests. */
const PRODUCT = new RegExp(`^${root}(dataplane|platform|vault|recovery)/`);

interface Range {
  startOffset: number;
  endOffset: number;
  count: number;
}

interface ScriptCoverage {
  url: string;
  functions: { ranges: Range[] }[];
}

/** Of a function that ran: its blocks that ran in no call yet, and those that did in the end. */
interface FunctionBlocks {
  missed: Map<string, Range>;
  reached: Set<string>;
}

/**
 * Which blocks of the product's code ran, as V8 counts them. V8 tells of a function's blocks those whose count is not that of what is
 * around them: so a block is reached when it was told of with a count of 0, and is not any more.
 *
 * What was compiled before has no counts for blocks: begin before the code is run for the first time.
 */
export class Coverage {
  readonly #session = new Session();
  #functions = new Map<string, FunctionBlocks>();
  readonly #looksAt: RegExp;

  /** `looksAt`: addresses of the scripts that count. */
  constructor(looksAt: RegExp = PRODUCT) {
    this.#looksAt = looksAt;
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** Functions that ran, and blocks that were reached later than their function. */
  get blocks(): number {
    let blocks = this.#functions.size;
    for (const { reached } of this.#functions.values()) blocks += reached.size;
    return blocks;
  }

  /** Nothing ran yet. */
  reset(): void {
    this.#functions = new Map();
    this.fresh({ peek: true });
  }

  /** How many functions and blocks ran since the last call that never had before. Remembered, unless `peek`. */
  fresh(options: { peek?: boolean } = {}): number {
    let fresh = 0;
    // Answers arrive before `post` returns: the session is of this thread.
    this.#session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error !== null) throw error;
      for (const { url, functions } of answer.result as ScriptCoverage[])
        if (this.#looksAt.test(url))
          for (const { ranges } of functions) fresh += this.#count(url, ranges, options);
    });
    return fresh;
  }

  stop(): void {
    this.#session.disconnect();
  }

  #count(url: string, ranges: readonly Range[], options: { peek?: boolean }): number {
    const [whole] = ranges;
    if (whole === undefined || whole.count === 0) return 0;
    const missed = new Map(
      ranges.filter(({ count }) => count === 0).map((range) => [nameOf(range), range]),
    );
    const name = `${url}:${nameOf(whole)}`;
    const known = this.#functions.get(name);
    if (known === undefined) {
      if (options.peek !== true) this.#functions.set(name, { missed, reached: new Set() });
      return 1;
    }
    let fresh = 0;
    for (const [block, range] of known.missed) {
      if ([...missed.values()].some((other) => contains(other, range))) continue;
      fresh += 1;
      if (options.peek === true) continue;
      known.missed.delete(block);
      known.reached.add(block);
    }
    if (options.peek !== true)
      for (const [block, range] of missed)
        if (!known.reached.has(block)) known.missed.set(block, range);
    return fresh;
  }
}

function nameOf({ startOffset, endOffset }: Range): string {
  return `${startOffset}-${endOffset}`;
}

function contains(outer: Range, inner: Range): boolean {
  return outer.startOffset <= inner.startOffset && outer.endOffset >= inner.endOffset;
}
