import { expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { RecordingSink } from '../../test/fakes/recordingSink.ts';
import { FakeDisk } from '../../test/fakes/sourceMachine.ts';
import { watchReads } from '../../test/fakes/watchedReads.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { CapturedDisk } from './disk.ts';
import { Resync } from './resync.ts';

/** A group, another, and a part of one that ends within a leaf. */
const SIZE = 259 * LEAF_SIZE + 4096;

test('a resync reads each leaf once, in small pieces: where a disk serves one request at a time, its programs wait for ours', async () => {
  const device = new FakeDisk({ sizeBytes: SIZE });
  device.bytes.fill(7);
  const disk = new CapturedDisk({ index: 0, device, identity: device.identityNow });
  const reads = watchReads(device);
  const resync = resyncOf(disk);
  const sink = new RecordingSink();
  await resync.run({ sink, clock: new ManualClock(), checkpoint: async () => undefined });
  expect(sink.sent.map(({ leaf }) => leaf)).toEqual(Array.from({ length: 260 }, (_, leaf) => leaf));
  expect(reads.sizes.reduce((sum, bytes) => sum + bytes, 0)).toBe(SIZE);
  // All but two, which are to see how long large ones take.
  expect(reads.sizes.filter((bytes) => bytes > 2 * LEAF_SIZE)).toHaveLength(2);
  expect(reads.atOnce).toBe(2);
});

test('a resync reads no further on a disk that can not be read', async () => {
  const device = new FakeDisk({ sizeBytes: SIZE });
  const disk = new CapturedDisk({ index: 0, device, identity: device.identityNow });
  let reads = 0;
  device.beforeRead = () => {
    reads += 1;
    if (reads === 5) device.readError = new Error('unreadable');
  };
  const resync = resyncOf(disk);
  const failing = resync.run({
    sink: new RecordingSink(),
    clock: new ManualClock(),
    checkpoint: async () => undefined,
  });
  await expect(failing).rejects.toThrow('unreadable');
  expect(reads).toBeLessThanOrEqual(6);
});

function resyncOf(disk: CapturedDisk): Resync {
  return new Resync({
    disks: [disk],
    progress: {
      reason: 'Initial',
      startedMs: 0,
      beginLsn: 0n,
      assumeZero: true,
      cursors: new Map(),
      bytesSent: 0,
    },
  });
}
