import { expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { RecordingSink } from '../../test/fakes/recordingSink.ts';
import { FakeDisk } from '../../test/fakes/sourceMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { CapturedDisk } from './disk.ts';
import { Resync } from './resync.ts';

/** A group, another, and a part of one that ends within a leaf. */
const SIZE = 259 * LEAF_SIZE + 4096;

test('a resync reads each leaf once, in small pieces: where a disk serves one request at a time, its programs wait for ours', async () => {
  const device = new FakeDisk({ sizeBytes: SIZE });
  device.bytes.fill(7);
  const disk = new CapturedDisk({ index: 0, device, identity: device.identityNow });
  const reads: number[] = [];
  let inFlight = 0;
  let atOnce = 0;
  const read = device.read.bind(device);
  device.read = async (into, offset) => {
    reads.push(into.length);
    inFlight += 1;
    atOnce = Math.max(atOnce, inFlight);
    await Promise.resolve();
    inFlight -= 1;
    return await read(into, offset);
  };
  const resync = new Resync({
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
  const sink = new RecordingSink();
  await resync.run({ sink, clock: new ManualClock(), checkpoint: async () => undefined });
  expect(sink.sent.map(({ leaf }) => leaf)).toEqual(Array.from({ length: 260 }, (_, leaf) => leaf));
  expect(reads.reduce((sum, bytes) => sum + bytes, 0)).toBe(SIZE);
  expect(Math.max(...reads)).toBe(2 * LEAF_SIZE);
  expect(atOnce).toBe(2);
});
