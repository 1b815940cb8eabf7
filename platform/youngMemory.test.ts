import { constants, PerformanceObserver } from 'node:perf_hooks';
import { expect, test } from 'vitest';
import { madeShortLived } from './youngMemory.ts';

const PIECE = 16 << 10;
const TOTAL = 512 << 20;

/** Whole collections while so many bytes of buffers are made and dropped at once. */
async function wholeCollections(note: (bytes: number) => void): Promise<number> {
  let whole = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as unknown as { detail: { kind: number } }).detail;
      if (kind === constants.NODE_PERFORMANCE_GC_MAJOR) whole += 1;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  for (let made = 0; made < TOTAL; made += PIECE) {
    const buffer = Buffer.allocUnsafeSlow(PIECE);
    note(buffer.length);
    if (made % (1 << 20) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  observer.disconnect();
  return whole;
}

/** Of three tries: this process collects for reasons of its own, too. */
async function fewestCollections(note: (bytes: number) => void): Promise<number> {
  let fewest = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 3; tries += 1)
    fewest = Math.min(fewest, await wholeCollections(note));
  return fewest;
}

test('buffers that die young cost no collection of the whole heap', async () => {
  const untold = await fewestCollections(() => undefined);
  expect(untold).toBeGreaterThan(2);
  expect(await fewestCollections(madeShortLived)).toBeLessThan(untold / 2);
});
