/**
 * Gives short-lived buffers back before V8 notices how many there are, and has it go over its whole heap seldom.
 *
 * A buffer's bytes lie outside of V8's heap, its object inside is small: thousands of dead buffers do not fill the young generation.
 * Looking at the young generation alone frees them in about a millisecond. But by its usual rule V8 goes over the whole heap, some 0.1 s
 * of CPU, whenever there are 64 MiB more of buffers, dead or in use, than at some time since it last did: a hundred times a GiB where what
 * is in use rises and falls. So a process that is small has it weigh them together with the heap, against a limit that grows with what is
 * in use; the ballast counts as in use and keeps that limit high. Nobody writes to it, so it is no memory but a range of addresses. In a
 * large process the usual rule wastes less.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const COLLECT_EVERY_BYTES = 32 << 20;
/** Of resident memory. */
const LARGE_BYTES = 320 << 20;
const BALLAST_BYTES = 64 << 20;
/** Of V8 13; names that it does not know are passed over. */
const WEIGHED_TOGETHER = '--external-memory-accounted-in-global-limit';
const WEIGHED_APART = '--no-external-memory-accounted-in-global-limit';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as (options: { type: 'minor' }) => void;
setFlagsFromString('--no-expose-gc');
/** Exported, so that it stays. */
export const ballast = new ArrayBuffer(BALLAST_BYTES);

let bytesMade = 0;
let weighedTogether = false;

/** Buffers of so many bytes were made that nobody needs for long. */
export function madeShortLived(bytes: number): void {
  bytesMade += bytes;
  if (bytesMade < COLLECT_EVERY_BYTES) return;
  bytesMade = 0;
  collect({ type: 'minor' });
  const small = process.memoryUsage.rss() < LARGE_BYTES;
  if (small === weighedTogether) return;
  weighedTogether = small;
  setFlagsFromString(small ? WEIGHED_TOGETHER : WEIGHED_APART);
}
