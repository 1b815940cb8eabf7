import { expect, test } from 'vitest';
import { systemClock } from '../../platform/node/clock.ts';
import { ManualClock } from './manualClock.ts';
import { SeededRandom } from './seededRandom.ts';

test('sleepers wake in order of time, and what they do next happens before the next wakes', async () => {
  const clock = new ManualClock(1000);
  const woken: string[] = [];
  const sleep = async (name: string, ms: number) => {
    await clock.sleep(ms);
    woken.push(`${name}@${clock.now()}`);
    if (name === 'a') await sleep('a2', 5);
  };
  const all = [sleep('b', 20), sleep('a', 10), sleep('c', 20)];
  await clock.advance(100);
  await Promise.all(all);
  expect(woken).toEqual(['a@1010', 'a2@1015', 'b@1020', 'c@1020']);
  expect([clock.now(), clock.monotonic(), clock.sleeping]).toEqual([1100, 100, 0]);
});

test('an aborted sleep rejects with the reason, on both clocks', async () => {
  for (const clock of [new ManualClock(), systemClock]) {
    const controller = new AbortController();
    const slept = clock.sleep(60_000, controller.signal);
    const reason = new Error('stop');
    controller.abort(reason);
    await expect(slept).rejects.toBe(reason);
    await expect(clock.sleep(1, controller.signal)).rejects.toBe(reason);
  }
});

test('the wall clock can jump without the monotonic one', () => {
  const clock = new ManualClock(5000);
  clock.jumpWallClock(-3000);
  expect([clock.now(), clock.monotonic()]).toEqual([2000, 0]);
});

test('a seed gives the same bytes again, another gives others, and all values occur', () => {
  expect(new SeededRandom(1).bytes(33)).toEqual(new SeededRandom(1).bytes(33));
  expect(new SeededRandom(1).bytes(33)).not.toEqual(new SeededRandom(2).bytes(33));
  expect(new Set(new SeededRandom(3).bytes(5000)).size).toBe(256);
  const random = new SeededRandom(4);
  expect(new Set(Array.from({ length: 200 }, () => random.below(6)))).toEqual(
    new Set([0, 1, 2, 3, 4, 5]),
  );
});
