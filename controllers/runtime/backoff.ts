import type { Random } from '../../platform/ports.ts';

export interface BackoffOptions {
  baseMs: number;
  maxMs: number;
}

/**
 * The delay before try number `attempt` + 1 (0 after the first failure): doubling from `baseMs` to `maxMs`, of which up to
 * half is left to chance, so that many who failed together do not come back together.
 */
export function backoffMs(attempt: number, options: BackoffOptions, random: Random): number {
  const whole = Math.min(options.maxMs, options.baseMs * 2 ** Math.min(attempt, 40));
  return Math.round(whole * (1 - fraction(random) / 2));
}

/** Between 0 and 1, from the port. */
export function fraction(random: Random): number {
  const bytes = random.bytes(4);
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0) / 2 ** 32;
}
