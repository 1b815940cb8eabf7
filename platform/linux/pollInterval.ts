/**
 * How long the kernel's buffers may be left alone. Every look at them takes a processor from the machine's programs, however little is
 * in them: so they are looked at as seldom as they can be without one filling up.
 */
const MIN_MS = 10;
export const POLL_MAX_MS = 160;
/** Of one CPU's buffer. What comes would have to grow sixteenfold from one look to the next to be lost. */
const MUCH = 1 / 16;
const LITTLE = MUCH / 4;

/** `filled`: the share of its buffer that the busiest CPU had filled after `afterMs`. In milliseconds. */
export function nextPollMs({ afterMs, filled }: { afterMs: number; filled: number }): number {
  if (filled > MUCH) return Math.max(MIN_MS, Math.floor((afterMs * MUCH) / filled));
  return filled < LITTLE ? Math.min(afterMs * 2, POLL_MAX_MS) : afterMs;
}
