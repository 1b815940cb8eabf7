import { expect, test } from 'vitest';
import { STEP_LEAVES, sampleAt, sampleOf, stepIntervalMs, stepsOfPass } from './sampling.ts';

const MIB = 1 << 20;
const disks = [
  { index: 0, sizeBytes: 7 * MIB },
  { index: 3, sizeBytes: 4 * MIB + 512 },
];

test('a pass reads every MiB of every disk once, and the next pass again', () => {
  const steps = stepsOfPass(disks);
  expect(steps).toBe(12);
  const pass = (from: number) =>
    Array.from({ length: steps }, (_, step) => sampleAt(disks, from + step))
      .map((sample) => `${sample?.disk}:${(sample?.firstLeaf ?? 0) / STEP_LEAVES}`)
      .sort();
  const all = [...'0123456'].map((at) => `0:${at}`).concat([...'01234'].map((at) => `3:${at}`));
  expect(pass(0)).toEqual(all.sort());
  expect(pass(steps)).toEqual(all.sort());
});

test('the first percent of a pass meets damage of any twentieth of a large disk', () => {
  const large = [{ index: 0, sizeBytes: 10_007 * MIB }];
  const places = Array.from(
    { length: 100 },
    (_, step) => (sampleAt(large, step)?.firstLeaf ?? 0) / STEP_LEAVES,
  );
  for (let part = 0; part < 20; part += 1)
    expect(places.some((place) => Math.floor((place * 20) / 10_007) === part)).toBe(true);
});

test('steps are spread over the day by the share, for the largest machine too', () => {
  const tib = [{ index: 0, sizeBytes: 2 ** 40 }];
  expect(stepIntervalMs(tib, 1)).toBeCloseTo(86_400_000 / (0.01 * 2 ** 20));
  expect(stepIntervalMs(tib, 0)).toBe(Number.POSITIVE_INFINITY);
  expect(stepIntervalMs([], 1)).toBe(Number.POSITIVE_INFINITY);
  const most = Array.from({ length: 64 }, (_, index) => ({ index, sizeBytes: 2 ** 43 }));
  const seen = new Set<string>();
  for (let step = 2 ** 40; step < 2 ** 40 + 1000; step += 1)
    seen.add(JSON.stringify(sampleAt(most, step)));
  expect(seen.size).toBe(1000);
});

test('a leaf is found again by the step that holds it', () => {
  expect(sampleOf({ disk: 2, leaf: 37 })).toEqual({ disk: 2, firstLeaf: 32 });
  expect(sampleAt([], 5)).toBeUndefined();
});
