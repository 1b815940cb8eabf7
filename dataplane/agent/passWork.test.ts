import { expect, test } from 'vitest';
import type { Clock } from '../../platform/ports.ts';
import type { RecordSink } from '../capture/sink.ts';
import { PassWork } from './passWork.ts';

const MIB = 1 << 20;
const sink = {} as RecordSink;

/** Passes during which happens what one says, at times that one sets. */
function passes(during: (time: { atMs: number }) => void = () => {}) {
  const yielding: boolean[] = [];
  const time = { atMs: 0 };
  const clock: Clock = {
    now: () => time.atMs,
    monotonic: () => time.atMs,
    sleep: async () => {},
  };
  const work: PassWork = new PassWork({
    clock,
    machine: { giveWay: (on) => yielding.push(on) },
    capture: {
      get disks() {
        during(time);
        return [];
      },
      clearReadErrors: () => {},
    },
  });
  return { work, yielding, time };
}

test('a pass comes when much is dirty, or a little for long', () => {
  const { work, time } = passes();
  expect(work.isDue({ dirtyBytes: 15 * MIB })).toBe(false);
  expect(work.isDue({ dirtyBytes: 16 * MIB })).toBe(true);
  time.atMs = 15_000;
  expect(work.isDue({ dirtyBytes: 4096 })).toBe(true);
  expect(work.isDue({ dirtyBytes: 0 })).toBe(false);
});

test('disks that are written all the time are read a quarter of it at most', async () => {
  const { work, time } = passes((passing) => {
    passing.atMs += 2_000;
  });
  await work.run(sink);
  time.atMs = 7_999;
  expect(work.isDue({ dirtyBytes: 64 * MIB })).toBe(false);
  time.atMs = 8_000;
  expect(work.isDue({ dirtyBytes: 64 * MIB })).toBe(true);
});

test('however long a pass took, the next one does not wait longer than on a quiet disk', async () => {
  const { work, time } = passes((passing) => {
    passing.atMs += 600_000;
  });
  await work.run(sink);
  time.atMs += 15_000;
  expect(work.isDue({ dirtyBytes: 64 * MIB })).toBe(true);
});

test('a pass leaves the processors to the machine’s programs, until somebody waits for it', async () => {
  const { work, yielding } = passes(() => work.hurry());
  await work.run(sink);
  expect(yielding).toEqual([true, false]);
  work.hurry();
  expect(yielding).toEqual([true, false]);
});
