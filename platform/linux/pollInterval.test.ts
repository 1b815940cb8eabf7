import { describe, expect, test } from 'vitest';
import { nextPollMs, POLL_MAX_MS } from './pollInterval.ts';

const LARGE = 8 << 20;

/** Where it ends while the busiest CPU's buffer fills at this share a second. */
function settled(sharePerSecond: number, from = POLL_MAX_MS, bufferBytes = LARGE): number {
  let ms = from;
  for (let poll = 0; poll < 20; poll += 1)
    ms = nextPollMs({
      afterMs: ms,
      filled: Math.min(1, (sharePerSecond * ms) / 1000),
      bufferBytes,
    });
  return ms;
}

describe("the kernel's trace buffers", () => {
  test('are looked at seldom while little comes, as 35,000 writes a second into 8 MiB do', () => {
    expect(settled(0)).toBe(POLL_MAX_MS);
    expect(settled((35_000 * 72) / (8 << 20))).toBe(POLL_MAX_MS);
  });

  test('are looked at before a sixteenth of them is full, however fast they fill', () => {
    for (const rate of [0.5, 1, 2, 4, 6]) {
      const ms = settled(rate);
      expect((rate * ms) / 1000).toBeLessThanOrEqual(1 / 16);
    }
    expect(settled(1000)).toBe(10);
  });

  test('that were found full are looked at again at once', () => {
    expect(nextPollMs({ afterMs: POLL_MAX_MS, filled: 1, bufferBytes: LARGE })).toBe(10);
  });

  test('that are small, as each is among many CPUs, are looked at more often while anything comes', () => {
    expect(settled(0.01, POLL_MAX_MS, 1 << 20)).toBe(20);
    expect(settled(0, POLL_MAX_MS, 1 << 20)).toBe(POLL_MAX_MS);
  });

  test('are looked at seldom again when the burst is over', () => {
    expect(settled(0.01, 10)).toBe(POLL_MAX_MS);
  });
});
