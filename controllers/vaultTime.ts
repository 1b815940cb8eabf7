/** Other machines' clocks, held against the vault's: all that RPO and silence are counted by. */

/** Silence after which a process server is taken for dead: twelve of its 5-second heartbeats. */
export const HEARTBEAT_LIMIT_MS = 60_000;

/** HTTP's Date has whole seconds and answers take time: an offset of less than 2 s is noise. */
export function significantOffset(offsetMs: number): number {
  return Math.abs(offsetMs) < 2000 ? 0 : offsetMs;
}

/** Whole seconds; never negative, whatever the clocks say. */
export function rpoSeconds(times: { vaultNowMs: number; durableMs: number }): number {
  return Math.max(0, Math.floor((times.vaultNowMs - times.durableMs) / 1000));
}
