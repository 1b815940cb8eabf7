/**
 * Which part of a replica is verified next, and when. Pure.
 *
 * A step reads one MiB of a disk's body: sixteen leaves, whose hashes share one page of the leaf table. Steps go over all disks in an
 * order that visits each MiB once a pass and is spread evenly over the disks from its first steps on, so that damage of a large part
 * is met within a day, and of a single leaf within 100 days divided by the share. Only a counter has to be remembered.
 */
import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import { BODY_UNIT, paddedSize } from './merkle.ts';
import { LEAF_SIZE } from './record.ts';

/** Percent of the leaves: each leaf is read once in 100 days. */
export const DEFAULT_SHARE_PER_DAY = 1;
export const STEP_BYTES = BODY_UNIT;
export const STEP_LEAVES = STEP_BYTES / LEAF_SIZE;
const DAY_MS = 86_400_000;
const GOLDEN = (Math.sqrt(5) - 1) / 2;

export interface SampledDisk {
  index: number;
  sizeBytes: number;
}

/** A piece of one disk; `firstLeaf` is a multiple of STEP_LEAVES. */
export interface Sample {
  disk: number;
  firstLeaf: number;
}

/** How many steps visit everything once; 0 without disks. */
export function stepsOfPass(disks: readonly SampledDisk[]): number {
  return disks.reduce((sum, { sizeBytes }) => sum + paddedSize(sizeBytes) / STEP_BYTES, 0);
}

/** Where step number `step` reads; undefined without disks. Other sizes make it another order, which does no harm. */
export function sampleAt(disks: readonly SampledDisk[], step: number): Sample | undefined {
  const steps = stepsOfPass(disks);
  if (steps === 0) return undefined;
  let place = Number((BigInt(step) * BigInt(strideOf(steps))) % BigInt(steps));
  for (const { index, sizeBytes } of disks) {
    const own = paddedSize(sizeBytes) / STEP_BYTES;
    if (place < own) return { disk: index, firstLeaf: place * STEP_LEAVES };
    place -= own;
  }
  return undefined;
}

/** Milliseconds between two steps, so that this share (percent) is read in a day. Infinity: never. */
export function stepIntervalMs(disks: readonly SampledDisk[], sharePerDay: number): number {
  return DAY_MS / ((stepsOfPass(disks) * sharePerDay) / 100);
}

/** The step that holds a leaf. */
export function sampleOf({ disk, leaf }: DamagedLeaf): Sample {
  return { disk, firstLeaf: Math.floor(leaf / STEP_LEAVES) * STEP_LEAVES };
}

/** Multiples of it, modulo `steps`, lie far apart and meet every number once. */
function strideOf(steps: number): number {
  let stride = Math.max(1, Math.round(steps * GOLDEN));
  while (commonDivisor(stride, steps) !== 1) stride += 1;
  return stride;
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}
