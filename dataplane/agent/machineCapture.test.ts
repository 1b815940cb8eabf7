import { describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { FakeDisk, FakeTracer } from '../../test/fakes/sourceMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { MachineCapture } from './machineCapture.ts';
import type { SavedDisk } from './state.ts';

const specs = [{ index: 0, name: 'sda', device: '/dev/fake' }];

class AdoptedTracer extends FakeTracer {
  override async start() {
    return { adopted: true };
  }
}

function world() {
  const clock = new ManualClock();
  const device = new FakeDisk({ sizeBytes: 16 * LEAF_SIZE });
  const capture = (tracer: FakeTracer) =>
    new MachineCapture({
      clock,
      tracer,
      log: silentLogger,
      devices: { open: async () => device },
    });
  return { clock, device, capture };
}

async function passing<T>(clock: ManualClock, work: Promise<T>): Promise<T> {
  let over = false;
  const watched = work.finally(() => {
    over = true;
  });
  while (!over) await clock.advance(10);
  return await watched;
}

/** An agent that tracks, saves, takes in one more write and is killed. */
async function killed(options: { quiet: boolean }) {
  const { clock, device, capture } = world();
  const former = capture(new FakeTracer([device]));
  former.configure(specs);
  const writeBetween = device.writtenSectors.bind(device);
  if (!options.quiet)
    device.writtenSectors = async () => {
      device.write(0, 8192, 1);
      return await writeBetween();
    };
  await passing(clock, former.open());
  device.writtenSectors = writeBetween;
  const saved = former.save();
  device.write(LEAF_SIZE, 4096, 9);
  await former.tracking?.absorb();
  return { saved, clock, next: capture(new AdoptedTracer([device])) };
}

async function goOn(dead: {
  saved: SavedDisk[];
  clock: ManualClock;
  next: MachineCapture;
}): Promise<boolean> {
  if (!(await dead.next.resume(dead.saved, specs))) return false;
  for (let round = 0; round < 5; round += 1) {
    await dead.clock.advance(100);
    try {
      await dead.next.tracking?.absorb();
    } catch (error) {
      dead.next.fail(error);
      return false;
    }
  }
  return true;
}

describe('an agent that follows a killed one', () => {
  test('finds out that a write was seen and not saved', async () => {
    const dead = await killed({ quiet: true });
    expect(await goOn(dead)).toBe(false);
    expect(dead.next.loss?.reason).toBe('TrackingLost');
  });

  test('does not go on from an account that leaves room for a write that nobody remembers', async () => {
    const dead = await killed({ quiet: false });
    expect(await goOn(dead)).toBe(false);
    expect(dead.next.loss?.reason).toBe('TrackingLost');
  });

  test('sends what lies where swap was, when it was turned off while nobody looked', async () => {
    const { clock, device, capture } = world();
    const former = capture(new FakeTracer([device]));
    former.configure(specs);
    await passing(clock, former.open());
    const swap = { offset: 4 * LEAF_SIZE, length: 2 * LEAF_SIZE };
    former.disks[0]?.setZeroed([swap]);
    former.disks[0]?.dirt.dirty.clear();
    const next = capture(new AdoptedTracer([device]));
    expect(await next.resume(former.save(), specs)).toBe(true);
    const [disk] = next.disks;
    expect(disk?.zeroed).toEqual([swap]);
    disk?.setZeroed([]);
    expect([...(disk?.dirt.dirty.leaves() ?? [])].map(([leaf]) => leaf)).toEqual([4, 5]);
  });

  test('still knows a RAID’s own record from what somebody wrote', async () => {
    const { clock, device, capture } = world();
    const former = capture(new FakeTracer([device]));
    former.configure(specs);
    await passing(clock, former.open());
    former.disks[0]?.setRaidRecords([{ offset: 0, length: LEAF_SIZE }]);
    const saved = former.save();
    device.write(4096, 512, 1);
    const next = capture(new AdoptedTracer([device]));
    expect(await next.resume(saved, specs)).toBe(true);
    expect(next.tracking?.dirtyBytes).toBe(4096);
    expect(next.tracking?.foreignDirtyBytes).toBe(0);
  });
});
