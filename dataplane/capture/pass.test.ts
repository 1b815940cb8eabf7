import { expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { RecordingSink } from '../../test/fakes/recordingSink.ts';
import { FakeDisk } from '../../test/fakes/sourceMachine.ts';
import { watchReads } from '../../test/fakes/watchedReads.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { CapturedDisk } from './disk.ts';
import { runPass } from './pass.ts';

const LEAVES = 100;
const SIZE = LEAVES * LEAF_SIZE;

function rig() {
  const device = new FakeDisk({ sizeBytes: SIZE });
  device.bytes.fill(7);
  const disk = new CapturedDisk({ index: 0, device, identity: device.identityNow });
  disk.dirt.dirty.addBytes({ offset: 0, length: SIZE });
  return { device, disk };
}

test.for([
  { gently: false, atOnce: 3 },
  { gently: true, atOnce: 2 },
])(
  'a pass has $atOnce reads under way where the machine’s programs come first: $gently',
  async ({ gently, atOnce }) => {
    const { device, disk } = rig();
    const reads = watchReads(device);
    const sink = new RecordingSink();
    await runPass([disk], { sink, clock: new ManualClock(), gently: () => gently });
    expect(sink.sent.map(({ leaf }) => leaf)).toEqual(
      Array.from({ length: LEAVES }, (_, leaf) => leaf),
    );
    expect(sink.sent.every(({ blocks }) => blocks.every((byte) => byte === 7))).toBe(true);
    expect(reads.atOnce).toBe(atOnce);
  },
);

test.for([1, 2, 3, 4, 5, 6, 7])(
  'whatever was under way when read %i failed is dirty again, and no read goes on',
  async (failing) => {
    const { device, disk } = rig();
    const slow = watchReads(device, 50);
    const read = device.read;
    let reads = 0;
    device.read = async (into, offset) => {
      reads += 1;
      if (reads === failing) throw new Error('unreadable');
      return await read(into, offset);
    };
    const sink = new RecordingSink();
    const pass = runPass([disk], { sink, clock: new ManualClock() });
    await expect(pass).rejects.toThrow('unreadable');
    expect(slow.inFlight).toBe(0);
    const sent = new Set(sink.sent.map(({ leaf }) => leaf));
    for (let leaf = 0; leaf < LEAVES; leaf += 1)
      expect(disk.dirt.dirty.mask(leaf), `leaf ${leaf}`).toBe(sent.has(leaf) ? 0 : 0xffff);
  },
);
