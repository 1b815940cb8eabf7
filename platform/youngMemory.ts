/**
 * Gives short-lived buffers back before V8 notices how many there are, and has it go over its whole heap seldom.
 *
 * A buffer's bytes lie outside of V8's heap, its object inside is small: thousands of dead buffers do not fill the young generation.
 * Looking at the young generation alone frees them in about a millisecond. But by its usual rule V8 goes over the whole heap, some 0.1 s
 * of CPU, whenever there are 64 MiB more of buffers, dead or in use, than at some time since it last did: a hundred times a GiB where what
 * is in use rises and falls. So a process that is small has it weigh them together with the heap, against a limit that grows with what is
 * in use; the ballast counts as in use and keeps that limit high. Nobody writes to it, so it is no memory but a range of addresses. How far
 * the limit grows V8 has depend on the process's pace, down to a tenth for a slow one, which then collects every fraction of a second: here
 * it becomes four times as high, as V8 allows a fast one. In a large process the usual rules waste less.
 */
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const COLLECT_EVERY_BYTES = 32 << 20;
/** Of resident memory. */
const LARGE_BYTES = 320 << 20;
const BALLAST_BYTES = 64 << 20;
/**
 * Of both halves of the young generation, which V8 lets grow to 128 MiB where much survives it for a moment, and never gives back. It has
 * been collected long before that is full.
 */
const YOUNG_BYTES_MAX = 32 << 20;
/** Of V8 13; names that it does not know are passed over. */
const WEIGHED_TOGETHER = [
  '--external-memory-accounted-in-global-limit',
  '--heap-growing-percent=300',
];
const WEIGHED_APART = [
  '--no-external-memory-accounted-in-global-limit',
  '--heap-growing-percent=0',
];

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as (options: { type: 'minor' }) => void;
setFlagsFromString('--no-expose-gc');
/** Exported, so that it stays. */
export const ballast = new ArrayBuffer(BALLAST_BYTES);

/** The first buffer is as good as full: what the start left is looked at before much comes. */
let bytesMade = COLLECT_EVERY_BYTES;
let weighedTogether = false;
let youngIsLarge = false;

/** Buffers of so many bytes were made that nobody needs for long. */
export function madeShortLived(bytes: number): void {
  bytesMade += bytes;
  if (bytesMade < COLLECT_EVERY_BYTES) return;
  bytesMade = 0;
  collect({ type: 'minor' });
  keepYoungSmall();
  const small = process.memoryUsage.rss() < LARGE_BYTES;
  if (small === weighedTogether) return;
  weighedTogether = small;
  for (const flag of small ? WEIGHED_TOGETHER : WEIGHED_APART) setFlagsFromString(flag);
}

function keepYoungSmall(): void {
  if (youngIsLarge) return;
  const young = getHeapSpaceStatistics().find((space) => space.space_name === 'new_space');
  if ((young?.space_size ?? 0) < YOUNG_BYTES_MAX) return;
  youngIsLarge = true;
  setFlagsFromString('--semi-space-growth-factor=1');
}
