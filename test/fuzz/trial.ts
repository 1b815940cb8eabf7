import type { FuzzTarget } from './target.ts';

/** No input of some KiB takes a parser so long. */
const TIME_MAX_MS = 5_000;

/** What is wrong with how a parser takes these bytes; undefined when nothing is. */
export async function problemWith(
  target: FuzzTarget,
  bytes: Uint8Array,
): Promise<string | undefined> {
  const started = performance.now();
  try {
    // A copy: whoever keeps a view must not see the next input.
    await target.run(bytes.slice());
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const ms = performance.now() - started;
  return ms > TIME_MAX_MS ? `it takes ${Math.round(ms)} ms` : undefined;
}
