import { expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { RateLimit } from './rateLimit.ts';

test('a key gets its burst, then its rate, and never more than its burst again', async () => {
  const clock = new ManualClock();
  const limit = new RateLimit({ clock }, { burst: 3, perMinute: 6 });
  const taken = () => [1, 2, 3, 4].map(() => limit.take('a')).filter(Boolean).length;
  expect(taken()).toBe(3);
  await clock.advance(10_000);
  expect(taken()).toBe(1);
  await clock.advance(3_600_000);
  expect(taken()).toBe(3);
});

test('one key’s use takes nothing from another', () => {
  const limit = new RateLimit({ clock: new ManualClock() }, { burst: 1, perMinute: 1 });
  expect(limit.take('a')).toBe(true);
  expect(limit.take('a')).toBe(false);
  expect(limit.take('b')).toBe(true);
});
