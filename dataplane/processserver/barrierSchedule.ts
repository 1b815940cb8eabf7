/**
 * When a machine is asked for which barrier. Pure: the session feeds it what happened, in monotonic milliseconds.
 *
 * Intervals run from one question to the next, so that a barrier that takes long in the making makes no point older than that; but then
 * the machine rests, half as long as it took, and no longer than the interval. A barrier that was voided is tried again soon, later and later, up to the interval; an
 * application barrier that fails never keeps crash-consistent ones from going on.
 */
export interface BarrierPolicy {
  crashConsistentSeconds: number;
  /** 0: off. */
  appConsistentSeconds: number;
}

export interface BarrierHistory {
  /** When the last barrier of any kind that was acknowledged was asked for; undefined: none since the last resync. */
  lastBarrierMs: number | undefined;
  lastAppMs: number | undefined;
  /** Making the last one kept the machine busy: it is left alone until then, unless for its final barrier. */
  restUntilMs: number;
  /** Voided since the last one that was not. */
  voidedInRow: number;
  appVoidedInRow: number;
  notBeforeMs: number;
  appNotBeforeMs: number;
}

export interface BarrierSituation {
  nowMs: number;
  policy: BarrierPolicy;
  /** One was asked for and is neither acknowledged nor voided. */
  pending: boolean;
  paused: boolean;
  /** A resync is required or running: no barrier could become a point. */
  resync: boolean;
  final: 'NotWanted' | 'Wanted' | 'Done';
}

export type BarrierDecision = { ask: 'Nothing' } | { ask: 'Crash' | 'App'; final: boolean };

const RETRY_FIRST_MS = 2_000;
const RETRY_MAX_MS = 60_000;
const REST_SHARE = 0.5;
const APP_RETRY_FIRST_MS = 60_000;
const APP_RETRY_MAX_MS = 3_600_000;
const NOTHING: BarrierDecision = { ask: 'Nothing' };

export const noBarriers: BarrierHistory = {
  lastBarrierMs: undefined,
  lastAppMs: undefined,
  restUntilMs: 0,
  voidedInRow: 0,
  appVoidedInRow: 0,
  notBeforeMs: 0,
  appNotBeforeMs: 0,
};

export function decideBarrier(
  history: BarrierHistory,
  situation: BarrierSituation,
): BarrierDecision {
  const { nowMs, policy } = situation;
  if (situation.pending || situation.paused || situation.resync || situation.final === 'Done')
    return NOTHING;
  if (nowMs < history.notBeforeMs) return NOTHING;
  if (situation.final === 'Wanted') return { ask: 'Crash', final: true };
  if (nowMs < history.restUntilMs) return NOTHING;
  if (history.lastBarrierMs === undefined) return { ask: 'Crash', final: false };
  if (appIsDue(history, situation)) return { ask: 'App', final: false };
  if (nowMs - history.lastBarrierMs >= intervalMs(policy)) return { ask: 'Crash', final: false };
  return NOTHING;
}

export function afterBarrier(
  history: BarrierHistory,
  done: { askedMs: number; nowMs: number; consistency: 'Crash' | 'App'; policy: BarrierPolicy },
): BarrierHistory {
  const { askedMs, nowMs } = done;
  const restMs = Math.min((nowMs - askedMs) * REST_SHARE, intervalMs(done.policy));
  const isApp = done.consistency === 'App';
  return {
    lastBarrierMs: askedMs,
    lastAppMs: isApp ? askedMs : history.lastAppMs,
    restUntilMs: nowMs + restMs,
    voidedInRow: 0,
    appVoidedInRow: isApp ? 0 : history.appVoidedInRow,
    notBeforeMs: 0,
    appNotBeforeMs: isApp ? 0 : history.appNotBeforeMs,
  };
}

export function afterVoided(
  history: BarrierHistory,
  voided: { nowMs: number; consistency: 'Crash' | 'App'; policy: BarrierPolicy },
): BarrierHistory {
  if (voided.consistency === 'App')
    return {
      ...history,
      appVoidedInRow: history.appVoidedInRow + 1,
      appNotBeforeMs:
        voided.nowMs +
        backoff(history.appVoidedInRow, { first: APP_RETRY_FIRST_MS, max: APP_RETRY_MAX_MS }),
    };
  const max = Math.max(RETRY_FIRST_MS, Math.min(RETRY_MAX_MS, intervalMs(voided.policy)));
  return {
    ...history,
    voidedInRow: history.voidedInRow + 1,
    notBeforeMs: voided.nowMs + backoff(history.voidedInRow, { first: RETRY_FIRST_MS, max }),
  };
}

/** A resync begins: what was consistent before it says nothing about after, so its end is followed by a barrier at once. */
export function afterResyncBegan(history: BarrierHistory): BarrierHistory {
  return { ...history, lastBarrierMs: undefined, restUntilMs: 0, voidedInRow: 0, notBeforeMs: 0 };
}

function appIsDue(history: BarrierHistory, situation: BarrierSituation): boolean {
  const intervalMs = situation.policy.appConsistentSeconds * 1000;
  if (intervalMs === 0 || situation.nowMs < history.appNotBeforeMs) return false;
  return history.lastAppMs === undefined || situation.nowMs - history.lastAppMs >= intervalMs;
}

function intervalMs({ crashConsistentSeconds }: BarrierPolicy): number {
  return crashConsistentSeconds * 1000;
}

function backoff(failures: number, limits: { first: number; max: number }): number {
  return Math.min(limits.max, limits.first * 2 ** Math.min(failures, 20));
}
