/**
 * How long the kernel's buffers may be left alone. Every look at them takes a processor from the machine's programs, however little is
 * in them: so they are looked at as seldom as they can be without one filling up.
 */
const MIN_MS = 10;
export const POLL_MAX_MS = 160;
/** While anything comes, at the longest, for each MiB of one CPU's buffer: smaller ones fill sooner when much begins to come. */
const BUSY_MS_PER_MIB = 20;
/** Of one CPU's buffer. What comes would have to grow sixteenfold from one look to the next to be lost. */
const MUCH = 1 / 16;
const LITTLE = MUCH / 4;

/** `filled`: the share of its buffer, of so many bytes, that the busiest CPU had filled after `afterMs`. In milliseconds. */
export function nextPollMs(last: { afterMs: number; filled: number; bufferBytes: number }): number {
  const { afterMs, filled, bufferBytes } = last;
  const mib = bufferBytes / (1 << 20);
  const max = filled === 0 ? POLL_MAX_MS : Math.min(POLL_MAX_MS, BUSY_MS_PER_MIB * mib);
  const next = filled > MUCH ? (afterMs * MUCH) / filled : filled < LITTLE ? afterMs * 2 : afterMs;
  return Math.max(MIN_MS, Math.floor(Math.min(next, max)));
}
