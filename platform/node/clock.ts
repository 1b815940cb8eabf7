import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../ports.ts';

/** setTimeout's largest delay; a longer sleep is made of several. */
const DELAY_MAX_MS = 2 ** 31 - 1;

/** The machine's clocks. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    let left = Math.max(0, ms);
    do {
      const part = Math.min(left, DELAY_MAX_MS);
      try {
        await delay(part, undefined, signal === undefined ? {} : { signal });
      } catch (error) {
        throw signal?.aborted ? signal.reason : error;
      }
      left -= part;
    } while (left > 0);
  },
};
