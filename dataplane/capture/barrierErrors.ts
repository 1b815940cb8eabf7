import { FarshoreError } from '../../platform/errors.ts';

export type BarrierVoidCode =
  /** More is dirty than can be read while frozen: writes are faster than the link. */
  | 'BehindTheLink'
  /** The page cache holds more than drains in a quarter of the deadline. */
  | 'TooMuchToSync'
  /** A pre-hook failed: no application-consistent point. */
  | 'HookFailed'
  /** A filesystem could not be synced or frozen. */
  | 'FreezeFailed'
  /** Somebody else thawed a filesystem, or the watchdog did because the deadline passed. */
  | 'ThawedEarly'
  /** Something wrote to a disk past the frozen filesystems. */
  | 'WrittenWhileFrozen'
  /** The disk never came to rest, so that its accounts could not be compared. */
  | 'NotQuiet'
  /** The process server gave it up before the machine was ready, and asks for another. */
  | 'NotAsked'
  /** A planned failover's last barrier was not uploaded before its deadline. */
  | 'FinalTimedOut'
  /** The planned failover was cancelled before its last barrier counted. */
  | 'FinalCancelled'
  /** A disk can't be read, or tracking was lost. */
  | 'CaptureFailed';

/** This barrier says nothing; everything it would have carried stays dirty, and another one is tried later. */
export class BarrierVoidError extends FarshoreError {
  declare readonly code: BarrierVoidCode;

  constructor(code: BarrierVoidCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
