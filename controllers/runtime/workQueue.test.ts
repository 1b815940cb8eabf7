import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { WorkQueue } from './workQueue.ts';

function make() {
  const clock = new ManualClock();
  const queue = new WorkQueue(
    { clock, random: new SeededRandom(1) },
    { backoff: { baseMs: 100, maxMs: 1_000 } },
  );
  return { clock, queue };
}

/** The next key if there is one now. */
async function take(queue: WorkQueue): Promise<string | undefined> {
  return queue.depth === 0 ? undefined : await queue.get();
}

describe('WorkQueue', () => {
  it('hands keys out in order, each once however often it was added', async () => {
    const { queue } = make();
    for (const key of ['a', 'b', 'a', 'a']) queue.add(key);
    expect([await take(queue), await take(queue), await take(queue)]).toEqual([
      'a',
      'b',
      undefined,
    ]);
  });

  it('never gives a key to two workers, and gives it again when it was added during its work', async () => {
    const { queue } = make();
    queue.add('a');
    expect(await take(queue)).toBe('a');
    queue.add('a');
    queue.add('a');
    expect(await take(queue)).toBeUndefined();
    queue.done('a');
    expect(await take(queue)).toBe('a');
    queue.done('a');
    expect(await take(queue)).toBeUndefined();
  });

  it('wakes a worker that waits', async () => {
    const { queue } = make();
    const next = queue.get();
    queue.add('a');
    expect(await next).toBe('a');
  });

  it('adds a key when its time has come, and of several times at the earliest', async () => {
    const { clock, queue } = make();
    queue.addAfter('late', 500);
    queue.addAfter('a', 300);
    queue.addAfter('a', 100);
    queue.addAfter('a', 400);
    await clock.advance(99);
    expect(queue.depth).toBe(0);
    await clock.advance(1);
    expect(await take(queue)).toBe('a');
    queue.done('a');
    await clock.advance(300);
    expect(queue.depth).toBe(0);
    await clock.advance(100);
    expect(await take(queue)).toBe('late');
    expect(queue.delayed).toBe(0);
  });

  it('does not lose the later of two keys when the earlier one replaces its alarm', async () => {
    const { clock, queue } = make();
    queue.addAfter('b', 200);
    queue.addAfter('a', 100);
    await clock.advance(200);
    expect([await take(queue), await take(queue)]).toEqual(['a', 'b']);
  });

  it('makes a failing key wait longer each time, up to the limit, until it is forgotten', () => {
    const { queue } = make();
    const delays = Array.from({ length: 6 }, () => queue.addRateLimited('a'));
    delays.forEach((delay, attempt) => {
      const whole = Math.min(1_000, 100 * 2 ** attempt);
      expect(delay).toBeGreaterThanOrEqual(whole / 2);
      expect(delay).toBeLessThanOrEqual(whole);
    });
    expect(queue.failures('a')).toBe(6);
    queue.forget('a');
    expect(queue.addRateLimited('a')).toBeLessThanOrEqual(100);
  });

  it('releases every waiting worker at shutdown, and hands out nothing any more', async () => {
    const { clock, queue } = make();
    const waiting = [queue.get(), queue.get()];
    queue.addAfter('later', 10);
    queue.shutDown();
    expect(await Promise.all(waiting)).toEqual([undefined, undefined]);
    queue.add('a');
    await clock.advance(100);
    expect(await queue.get()).toBeUndefined();
    expect(clock.sleeping).toBe(0);
  });
});
