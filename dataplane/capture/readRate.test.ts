import { expect, test } from 'vitest';
import type { Clock } from '../../platform/ports.ts';
import { ReadRate } from './readRate.ts';

const MIB = 1 << 20;

/** A disk that is read at so many MiB a second. */
function disk() {
  let atMs = 0;
  const clock: Clock = { now: () => atMs, monotonic: () => atMs, sleep: async () => {} };
  const reading = (mibPerSecond: number) => async () => {
    atMs += (16 / mibPerSecond) * 1000;
    return { bytes: 16 * MIB };
  };
  return { rate: new ReadRate(clock), reading };
}

test('a disk that is slow beside its programs is not taken for slow while they are frozen', async () => {
  const { rate, reading } = disk();
  for (let time = 0; time < 10; time += 1) await rate.measure(reading(200));
  for (let time = 0; time < 20; time += 1) await rate.probe(reading(10));
  expect(rate.estimateMs(200 * MIB)).toBeLessThan(1_010);
});

test('a disk that is fast even beside its programs is fast while they are frozen', async () => {
  const { rate, reading } = disk();
  await rate.probe(reading(800));
  expect(rate.estimateMs(800 * MIB)).toBeCloseTo(1_000);
  await rate.probe(reading(10));
  expect(rate.estimateMs(100 * MIB)).toBeGreaterThan(900);
});
