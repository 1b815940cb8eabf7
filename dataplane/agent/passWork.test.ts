import { beforeEach, describe, expect, test } from 'vitest';
import type { Clock } from '../../platform/ports.ts';
import { RecordingSink } from '../../test/fakes/recordingSink.ts';
import { FakeDisk } from '../../test/fakes/sourceMachine.ts';
import { CapturedDisk } from '../capture/disk.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { PassWork } from './passWork.ts';

const MIB = 1 << 20;
const SIZE = 20 * MIB;

let atMs: number;
const clock: Clock = { now: () => atMs, monotonic: () => atMs, sleep: async () => {} };
let yielding: boolean[];
let sink: RecordingSink;
let device: FakeDisk;
let disk: CapturedDisk;
let work: PassWork;

beforeEach(() => begin(SIZE));

function begin(sizeBytes: number): void {
  atMs = 0;
  yielding = [];
  sink = new RecordingSink();
  device = new FakeDisk({ sizeBytes });
  device.bytes.fill(7);
  disk = new CapturedDisk({ index: 0, device, identity: device.identityNow });
  work = passWork();
}

function passWork(): PassWork {
  return new PassWork({
    clock,
    machine: { giveWay: (on) => yielding.push(on) },
    capture: { disks: [disk], clearReadErrors: () => {} },
  });
}

function write(range: { offset: number; length: number }): void {
  disk.dirt.dirty.addBytes(range);
}

/** While it reads, something happens once. */
async function pass(meanwhile: () => void = () => {}): Promise<void> {
  let happened = false;
  device.beforeRead = () => {
    if (!happened) meanwhile();
    happened = true;
  };
  await work.run(sink);
}

test('a pass comes when much is dirty, or a little for long', () => {
  expect(work.isDue({ dirtyBytes: 15 * MIB })).toBe(false);
  expect(work.isDue({ dirtyBytes: 16 * MIB })).toBe(true);
  atMs = 15_000;
  expect(work.isDue({ dirtyBytes: 4096 })).toBe(true);
  expect(work.isDue({ dirtyBytes: 0 })).toBe(false);
});

test('disks that are written all the time are read a quarter of it at most', async () => {
  write({ offset: 0, length: SIZE });
  await pass(() => {
    atMs += 2_000;
  });
  atMs = 7_999;
  expect(work.isDue({ dirtyBytes: 64 * MIB })).toBe(false);
  atMs = 8_000;
  expect(work.isDue({ dirtyBytes: 64 * MIB })).toBe(true);
});

test('however long a pass took, the next one does not wait longer than on a quiet disk', async () => {
  write({ offset: 0, length: SIZE });
  await pass(() => {
    atMs += 600_000;
  });
  atMs += 15_000;
  expect(work.isDue({ dirtyBytes: 64 * MIB })).toBe(true);
});

test('the disk is read in small pieces, until somebody waits for the pass', async () => {
  write({ offset: 0, length: SIZE });
  const hurriedAt = 40;
  const reads: number[] = [];
  device.beforeRead = (bytes) => {
    reads.push(bytes);
    if (reads.length === hurriedAt) work.hurry();
  };
  await work.run(sink);
  const before = reads.slice(0, hurriedAt);
  // All but one, which is to see how long large ones take.
  expect(before.filter((bytes) => bytes === 2 * LEAF_SIZE)).toHaveLength(hurriedAt - 1);
  // One may be on its way as it was.
  expect(new Set(reads.slice(hurriedAt + 1, -1))).toEqual(new Set([MIB]));
});

test('what was sent and written again waits for the barrier, which sends it', async () => {
  write({ offset: 0, length: LEAF_SIZE });
  await pass();
  write({ offset: 0, length: 4096 });
  write({ offset: 2 * LEAF_SIZE, length: 4096 });
  await pass();
  expect(sink.sent.map(({ leaf, blockMask }) => [leaf, blockMask])).toEqual([
    [0, 0xffff],
    [2, 1],
  ]);
  expect(disk.dirt.dirty.mask(0)).toBe(1);
});

test('of what went with a barrier, the next passes send again what is written again', async () => {
  write({ offset: 0, length: LEAF_SIZE });
  await pass();
  disk.dirt.barrierSent(5n);
  write({ offset: 0, length: 4096 });
  await pass();
  expect(sink.sent.map(({ leaf, blockMask }) => [leaf, blockMask])).toEqual([
    [0, 0xffff],
    [0, 1],
  ]);
});

test('a machine that writes the same blocks over and over is left alone for as long as a quiet one', async () => {
  write({ offset: 0, length: SIZE });
  await pass();
  write({ offset: 0, length: SIZE });
  await pass();
  expect(sink.sent).toHaveLength(SIZE / LEAF_SIZE);
  atMs += 14_999;
  expect(work.isDue({ dirtyBytes: SIZE })).toBe(false);
  atMs += 1;
  expect(work.isDue({ dirtyBytes: SIZE })).toBe(true);
});

/** What the last pass sent, in bytes. */
function sentBy(before: number): number {
  return (sink.sent.length - before) * LEAF_SIZE;
}

describe('where most of what passes sent is written again before the barrier', () => {
  const SAMPLE = 16 * MIB;
  const LARGE = 64 * MIB;

  beforeEach(() => begin(LARGE));

  test('they send a sample from all over, and all again once that stays as it is', async () => {
    write({ offset: 0, length: LARGE / 2 });
    await pass();
    write({ offset: 0, length: LARGE / 4 });
    work.barrierBegins();
    disk.dirt.barrierSent(5n);
    work.barrierMade();
    write({ offset: 0, length: LARGE });
    let before = sink.sent.length;
    await pass();
    expect(sentBy(before)).toBe(SAMPLE);
    expect(sink.sent.at(-1)?.leaf).toBeGreaterThan((LARGE * 0.9) / LEAF_SIZE);
    expect(work.isDue({ dirtyBytes: LARGE })).toBe(false);
    atMs += 15_000;
    before = sink.sent.length;
    await pass();
    expect(sentBy(before)).toBe(LARGE - SAMPLE);
  });

  test('they go on with samples while those are written again, too', async () => {
    write({ offset: 0, length: LARGE });
    await pass();
    write({ offset: 0, length: LARGE });
    for (let interval = 0; interval < 3; interval += 1) {
      work.barrierBegins();
      disk.dirt.barrierSent(5n);
      work.barrierMade();
      const before = sink.sent.length;
      await pass();
      expect(sentBy(before)).toBe(SAMPLE);
      write({ offset: 0, length: LARGE });
    }
  });

  test('they send no more than a sample of what is written ahead of them, either', async () => {
    write({ offset: 0, length: LARGE });
    await pass();
    write({ offset: 0, length: LARGE });
    work.barrierBegins();
    disk.dirt.barrierSent(5n);
    work.barrierMade();
    disk.dirt.dirty.clear();
    write({ offset: 0, length: SAMPLE / 2 });
    const before = sink.sent.length;
    await pass(() => write({ offset: 0, length: LARGE }));
    expect(sentBy(before)).toBe(SAMPLE);
  });
});

test('a pass leaves the processors to the machine’s programs, until somebody waits for it', async () => {
  write({ offset: 0, length: LEAF_SIZE });
  await pass(() => work.hurry());
  expect(yielding).toEqual([true, false]);
  work.hurry();
  expect(yielding).toEqual([true, false]);
});
