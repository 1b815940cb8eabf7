import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';

const MODULE = path.resolve(import.meta.dirname, 'youngMemory.ts');

/** What a process of its own prints that runs this. */
function run(program: string): number {
  const args = ['--input-type=module', '--eval', program];
  return Number(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

/** Whole collections while this runs, `make(bytes)` being a new buffer. */
function wholeCollections(program: string): number {
  return run(`
    import { constants, PerformanceObserver } from 'node:perf_hooks';
    let whole = 0;
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) whole += 1;
    });
    observer.observe({ entryTypes: ['gc'] });
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const make = (bytes) => Buffer.allocUnsafeSlow(bytes);
    ${program}
    await new Promise((resolve) => setTimeout(resolve, 50));
    console.log(whole);`);
}

/** 4 GiB that are dropped at once. */
const dieYoung = (tell: string) => `
  for (let made = 0; made < 262_144; made += 1) {
    const { length } = make(16 << 10);
    ${tell}
    if (made % 64 === 0) await turn();
  }`;

/** 1 GiB that is in use for a while, 96 MiB of it together. */
const riseAndFall = (tell: string) => `
  let waiting = [];
  for (let made = 0; made < 1024; made += 1) {
    const piece = make(1 << 20);
    const { length } = piece;
    waiting.push(piece);
    ${tell}
    if (waiting.length === 96) waiting = [];
    await turn();
  }`;

const TELL = 'madeShortLived(length);';
const IMPORT = `const { madeShortLived } = await import('${MODULE}');`;

test('buffers that die young cost next to no collections of the whole heap', () => {
  const untold = wholeCollections(dieYoung(''));
  expect(untold).toBeGreaterThan(8);
  expect(wholeCollections(IMPORT + dieYoung(TELL))).toBeLessThan(untold / 4);
});

test('buffers in use that become more and fewer cost few collections of the whole heap', () => {
  const usually = wholeCollections(riseAndFall(''));
  expect(usually).toBeGreaterThan(4);
  expect(wholeCollections(IMPORT + riseAndFall(TELL))).toBeLessThan(usually / 2);
});

/** 400 MiB, 24 of them in use together, at the pace of a link, beside work on the heap. */
const AT_A_SLOW_PACE = `
  const heap = Array.from({ length: 200_000 }, (_, index) => ({ index, also: [index] }));
  let waiting = [];
  for (let made = 0; made < 400; made += 1) {
    const piece = make(1 << 20);
    const { length } = piece;
    waiting.push(piece);
    ${TELL}
    if (waiting.length === 24) waiting = [];
    for (let index = 0; index < 200; index += 1)
      heap[(made * 200 + index) % heap.length] = { index, also: [index] };
    await new Promise((resolve) => setTimeout(resolve, 8));
  }`;

test('a slow pace is no reason to collect the whole heap again and again', () => {
  expect(wholeCollections(IMPORT + AT_A_SLOW_PACE)).toBeLessThan(6);
});

test('the young generation stays small where much survives for a moment: V8 would not give it back', () => {
  const grownTo = (start: string) =>
    run(`
      import { getHeapSpaceStatistics } from 'node:v8';
      ${start}
      let kept = [];
      for (let made = 0; made < 10_000_000; made += 1) {
        kept.push({ made });
        if (kept.length === 400_000) kept = [];
      }
      console.log(getHeapSpaceStatistics().find((space) => space.space_name === 'new_space').space_size);`);
  expect(grownTo('')).toBeGreaterThan(64 << 20);
  const begun = 'globalThis.begun = Array.from({ length: 1e6 }, (_, made) => ({ made }));';
  expect(grownTo(`${begun} ${IMPORT} madeShortLived(1);`)).toBeLessThanOrEqual(64 << 20);
});

test('what keeps the collector calm takes addresses, not memory', () => {
  const grown = run(`
    const before = process.memoryUsage.rss();
    ${IMPORT}
    console.log(process.memoryUsage.rss() - before);`);
  expect(grown).toBeLessThan(32 << 20);
});
