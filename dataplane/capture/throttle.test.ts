import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { FakeDisk } from '../../test/fakes/sourceMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { CapturedDisk } from './disk.ts';
import { runPass } from './pass.ts';
import type { RecordSink } from './sink.ts';
import { ReadThrottle } from './throttle.ts';

let clock: ManualClock;
let running: boolean;

beforeEach(() => {
  clock = new ManualClock();
  running = true;
  void (async () => {
    while (running) await clock.advance(1);
  })();
});

afterEach(() => {
  running = false;
});

describe('our reads', () => {
  /** How much of the time the disk was left to others, while it takes so long for a read of ours. */
  async function pausedShare(throttle: ReadThrottle, read: { takesMs: number; count: number }) {
    const started = clock.monotonic();
    for (let done = 0; done < read.count; done += 1)
      await throttle.time(1 << 20, () => clock.sleep(read.takesMs));
    const tookMs = clock.monotonic() - started;
    return (tookMs - read.takesMs * read.count) / tookMs;
  }

  test('slow down while the disk is slow, and go at full speed again when it has recovered', async () => {
    const throttle = new ReadThrottle(clock);
    expect(await pausedShare(throttle, { takesMs: 10, count: 20 })).toBe(0);
    expect(await pausedShare(throttle, { takesMs: 200, count: 10 })).toBeCloseTo(0.5);
    expect(await pausedShare(throttle, { takesMs: 10, count: 20 })).toBe(0);
  });

  test('are not held back on a disk that always was so slow, nor for little', async () => {
    const slow = new ReadThrottle(clock);
    expect(await pausedShare(slow, { takesMs: 200, count: 20 })).toBe(0);
    const fast = new ReadThrottle(clock);
    expect(await pausedShare(fast, { takesMs: 1, count: 20 })).toBe(0);
    expect(await pausedShare(fast, { takesMs: 30, count: 20 })).toBe(0);
  });

  test('take a disk that stays slow for normal in the end', async () => {
    const throttle = new ReadThrottle(clock);
    await pausedShare(throttle, { takesMs: 10, count: 5 });
    expect(await pausedShare(throttle, { takesMs: 100, count: 10 })).toBeCloseTo(0.5);
    await pausedShare(throttle, { takesMs: 100, count: 60 });
    expect(await pausedShare(throttle, { takesMs: 100, count: 10 })).toBe(0);
  });

  test('never pause for more than half a second at a time', async () => {
    const throttle = new ReadThrottle(clock);
    await pausedShare(throttle, { takesMs: 10, count: 5 });
    const started = clock.monotonic();
    await throttle.time(1 << 20, () => clock.sleep(5_000));
    expect(clock.monotonic() - started).toBe(5_500);
  });

  test('are compared with others of about their size, and small ones are held back sooner', async () => {
    const throttle = new ReadThrottle(clock);
    const timed = async (bytes: number, takesMs: number) =>
      (await throttle.measure(bytes, () => clock.sleep(takesMs))).pauseMs;
    expect(await timed(128 << 10, 2)).toBe(0);
    expect(await timed(1 << 20, 60)).toBe(0);
    expect(await timed(128 << 10, 30)).toBe(30);
    expect(await timed(1 << 20, 100)).toBe(0);
  });

  /** What the disk is read in, once it is known how long it takes for so many bytes. */
  async function settledBytes(takesMs: (bytes: number) => number): Promise<number> {
    const throttle = new ReadThrottle(clock);
    for (let reads = 0; reads < 10; reads += 1) {
      const bytes = throttle.gentleBytes;
      await throttle.time(bytes, () => clock.sleep(takesMs(bytes)));
    }
    return throttle.gentleBytes;
  }

  test('are small beside programs where a megabyte keeps the disk busy for longer, and large where it takes hardly longer', async () => {
    const KIB = 1024;
    expect(await settledBytes((bytes) => bytes / (128 * KIB))).toBe(128 * KIB);
    expect(await settledBytes((bytes) => 10 + bytes / (256 * KIB))).toBe(1024 * KIB);
  });

  test('are small again once a disk that took as long for little has become another', async () => {
    const throttle = new ReadThrottle(clock);
    let takesMs = (bytes: number) => 10 + bytes / (256 << 10);
    const read = async () => {
      const bytes = throttle.gentleBytes;
      await throttle.time(bytes, () => clock.sleep(takesMs(bytes)));
    };
    for (let reads = 0; reads < 10; reads += 1) await read();
    takesMs = (bytes) => bytes / (16 << 10);
    for (let reads = 0; reads < 100; reads += 1) await read();
    expect(throttle.gentleBytes).toBe(128 << 10);
  });
});

test('a pass beside programs that come first is held back on a disk that became slow before it began', async () => {
  const device = new FakeDisk({ sizeBytes: 64 * LEAF_SIZE });
  let takesMs = 5;
  const read = device.read.bind(device);
  device.read = async (into, offset) => {
    await clock.sleep(takesMs);
    return await read(into, offset);
  };
  const disk = new CapturedDisk({ index: 0, device, identity: await device.identity() });
  const sink: RecordSink = {
    nextLsn: 1n,
    batchBytes: 1 << 20,
    send: async () => undefined,
    ask: async () => new Uint8Array(),
  };
  const pass = async () => {
    for (let leaf = 0; leaf < 64; leaf += 8)
      disk.dirt.dirty.addBytes({ offset: leaf * LEAF_SIZE, length: 4096 });
    const started = clock.monotonic();
    await runPass([disk], { sink, clock, gently: () => true });
    return clock.monotonic() - started;
  };
  await pass();
  takesMs = 100;
  const reads = 8;
  // One read overlaps the one before, so without pauses it is about half of all reads.
  expect(await pass()).toBeGreaterThanOrEqual(takesMs * reads);
});
