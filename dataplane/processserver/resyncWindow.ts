/** Which resyncs wait for the policy's window, decided purely. */
import type { Assignment } from '../../vault/documents/assignments.ts';
import type { ResyncReason } from '../../vault/documents/machineStatus.ts';
import { isTimeZone, windowChanges, windowHolds } from '../../vault/documents/weeklyWindow.ts';

export type ResyncWindow = NonNullable<Assignment['policy']['resyncWindow']>;

/** The first copy is what protection begins with, and what somebody asks for is wanted now: neither ever waits. */
const MAY_WAIT: readonly ResyncReason[] = [
  'TrackingLost',
  'AfterReboot',
  'SourceReverted',
  'DiskResized',
  'VaultGap',
];

export interface WaitingResyncs {
  /** One for another reason may begin. */
  reasons: readonly ResyncReason[];
  /** When they may begin (Unix milliseconds); undefined: not before the window is another. */
  untilMs: number | undefined;
}

/**
 * Undefined when every resync may begin. A window in a time zone that this process server does not know is none: a machine without
 * recovery points is worse than load in office hours.
 */
export function waitingResyncs(
  window: ResyncWindow | undefined,
  nowMs: number,
): WaitingResyncs | undefined {
  if (window === undefined || !isTimeZone(window.timeZone) || windowHolds(window, nowMs))
    return undefined;
  const reasons = MAY_WAIT.filter((reason) => !window.urgent.includes(reason));
  return reasons.length === 0 ? undefined : { reasons, untilMs: windowChanges(window, nowMs) };
}

/** The same, asked often: the answer changes at whole minutes alone. */
export class ResyncWatch {
  #known: { window: ResyncWindow | undefined; minute: number; waiting: WaitingResyncs | undefined };

  constructor() {
    this.#known = { window: undefined, minute: Number.NaN, waiting: undefined };
  }

  waiting(window: ResyncWindow | undefined, nowMs: number): WaitingResyncs | undefined {
    const minute = Math.floor(nowMs / 60_000);
    if (this.#known.minute !== minute || this.#known.window !== window)
      this.#known = { window, minute, waiting: waitingResyncs(window, nowMs) };
    return this.#known.waiting;
  }
}
