import { errorCode } from './errors.ts';
import type { Clock, Logger } from './ports.ts';
import { isStoreError } from './storeErrors.ts';

const WAIT_FIRST_MS = 1_000;
const WAIT_LONGEST_MS = 30_000;

/**
 * Repeats what failed for a transient reason of a store, for as long as it takes; says so when it begins. Rejects with any other
 * error, or the signal's reason.
 */
export async function patiently<T>(
  deps: { clock: Clock; logger: Logger },
  signal: AbortSignal,
  action: () => Promise<T>,
): Promise<T> {
  for (let failures = 0; ; failures += 1) {
    try {
      return await action();
    } catch (error) {
      signal.throwIfAborted();
      if (!isStoreError(error) || !error.transient) throw error;
      if (failures === 0)
        deps.logger.warn(
          { code: errorCode(error), error },
          'The vault does not answer; trying again until it does',
        );
      const waitMs = WAIT_FIRST_MS * 2 ** Math.min(failures, 5);
      await deps.clock.sleep(Math.min(WAIT_LONGEST_MS, waitMs), signal);
    }
  }
}
