import { describe, expect, test } from 'vitest';
import { CreditPool, type CreditWindow } from './creditPool.ts';

const MIB = 1 << 20;
const BUDGET = 80 * MIB;

/** An agent that always uses all of its credit: half of it becomes free at a time. */
function use(window: CreditWindow, rounds: number): void {
  for (let round = 0; round < rounds; round += 1)
    window.freed(Math.floor(window.bytes / 2), { tight: true });
}

describe('credit', () => {
  test.each([1, 12, 50, 200, 350])(
    'of %i agents that all send as fast as they can stays within one budget',
    (count) => {
      const pool = new CreditPool({ machines: () => count });
      const windows = Array.from({ length: count }, () => pool.open());
      for (let round = 0; round < 20; round += 1) for (const window of windows) use(window, 1);
      expect(pool.bytes).toBeLessThanOrEqual(BUDGET);
      const sizes = windows.map(({ bytes }) => bytes);
      for (const window of windows) expect(window.bytes).toBeGreaterThanOrEqual(window.least);
      // Those that came first have not taken what there is to lend for themselves.
      expect(Math.max(...sizes) / Math.min(...sizes)).toBeLessThan(3);
    },
  );

  test('that nobody else needs makes the one that sends fast; it comes back when others do', () => {
    const pool = new CreditPool({ machines: () => 200 });
    const windows = Array.from({ length: 200 }, () => pool.open());
    const [first, ...others] = windows as [CreditWindow, ...CreditWindow[]];
    use(first, 50);
    expect(first.bytes).toBe(8 * MIB);
    for (let round = 0; round < 30; round += 1) for (const other of others) use(other, 1);
    use(first, 50);
    expect(first.bytes).toBeLessThan(2 * MIB);
    expect(pool.bytes).toBeLessThanOrEqual(BUDGET);
  });

  test('is not lent to an agent that leaves some unused', () => {
    const pool = new CreditPool({ machines: () => 10 });
    const window = pool.open();
    for (let round = 0; round < 10; round += 1) window.freed(1000, { tight: false });
    expect(window.bytes).toBe(window.first);
  });

  test('shrinks to half of the first window at most when the list grows: an agent can always send a batch', () => {
    let machines = 1;
    const pool = new CreditPool({ machines: () => machines });
    const window = pool.open();
    machines = 2000;
    // Each batch as long as it can be.
    for (let round = 0; round < 40; round += 1)
      window.freed(Math.min(window.bytes, window.least), { tight: true });
    expect(window.bytes).toBeGreaterThanOrEqual(window.least);
    const late = pool.open();
    expect(late.first).toBe(160 << 10);
  });

  test('of a session that ended is free again', () => {
    const pool = new CreditPool({ machines: () => 1 });
    const window = pool.open();
    use(window, 10);
    window.close();
    expect(pool.bytes).toBe(0);
  });
});
