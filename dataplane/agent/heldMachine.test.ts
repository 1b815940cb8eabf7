import { beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { FakeDisk, FakeFreezer, FakeTracer } from '../../test/fakes/sourceMachine.ts';
import { CapturedDisk } from '../capture/disk.ts';
import { Tracking } from '../capture/tracking.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { HeldMachine } from './heldMachine.ts';
import { QuietLog } from './quietLog.ts';

const final = { failover: 'move', powerOff: false };

let device: FakeDisk;
let freezer: FakeFreezer;
let held: HeldMachine;
let tracking: Tracking | undefined;
let wanted: { failover: string; powerOff: boolean } | undefined;
let errors: string[];
let powerOffs: number;
let refusesPowerOff: boolean;
let clock: ManualClock;

beforeEach(async () => {
  clock = new ManualClock();
  powerOffs = 0;
  refusesPowerOff = false;
  device = new FakeDisk({ sizeBytes: 16 * LEAF_SIZE });
  freezer = new FakeFreezer(clock);
  const disk = new CapturedDisk({ index: 0, device, identity: await device.identity() });
  disk.setRaidRecords([{ offset: 0, length: 2 * LEAF_SIZE }]);
  wanted = final;
  errors = [];
  const ours = new Tracking({ tracer: new FakeTracer([device]), clock, disks: [disk] });
  held = new HeldMachine({
    freezer,
    machine: {
      facts: async () => ({ hostname: 'db1', kernel: 'test', bootId: 'boot' }),
      disks: async () => [],
      powerOff: async () => {
        powerOffs += 1;
        if (refusesPowerOff) throw new Error('refused');
      },
      giveWay: () => undefined,
    },
    clock,
    quietLog: new QuietLog(silentLogger),
    log: silentLogger,
    tracking: () => tracking,
    wanted: () => wanted,
    save: async () => true,
    report: async () => undefined,
    setError: (code) => {
      errors.push(code);
    },
    clearError: (code) => {
      errors = errors.filter((one) => one !== code);
    },
  });
  tracking = ours;
  await ours.absorb();
  freezer.frozen = true;
});

describe('a machine with a software RAID that is held frozen', () => {
  test('is vouched for although the kernel notes its RAID as clean, before and after it is held', async () => {
    device.write(4096, 512, 1);
    await held.aboutToHold(final, ['/data']);
    await held.hold();
    device.write(LEAF_SIZE, 4096, 2);
    await held.tend();
    expect(held.claim).toEqual({ failover: 'move', poweredOff: false });
    expect(freezer.frozen).toBe(true);
  });

  test('is let go when anything beside the RAID’s records is written', async () => {
    await held.aboutToHold(final, ['/data']);
    await held.hold();
    device.write(2 * LEAF_SIZE - 4096, 8192, 3);
    await held.tend();
    expect(held.claim).toBeUndefined();
    expect(freezer.frozen).toBe(false);
  });

  test('is not held at all when that was written before', async () => {
    device.write(5 * LEAF_SIZE, 4096, 3);
    await expect(held.aboutToHold(final, ['/data'])).rejects.toMatchObject({
      code: 'WrittenWhileFrozen',
    });
  });
});

test('a machine that nobody can vouch for any more stays frozen until its failover ends, and says so', async () => {
  await held.aboutToHold(final, ['/data']);
  await held.hold();
  tracking = undefined;
  await held.tend();
  await held.tend();
  expect(held.claim).toBeUndefined();
  expect(freezer.frozen).toBe(true);
  expect(errors).toEqual(['HeldUnproven']);
  wanted = undefined;
  await held.tend();
  expect(freezer.frozen).toBe(false);
  expect(errors).toEqual([]);
});

test('a machine that can not be turned off stays frozen, and that is tried again', async () => {
  wanted = { failover: 'move', powerOff: true };
  refusesPowerOff = true;
  await held.aboutToHold(wanted, ['/data']);
  await held.hold();
  const tend = async () => {
    const tended = held.tend();
    await clock.advance(1_000);
    await tended;
  };
  await tend();
  expect(held.claim).toEqual({ failover: 'move', poweredOff: false });
  expect(errors).toEqual(['PowerOffFailed']);
  await tend();
  expect(powerOffs).toBe(1);
  refusesPowerOff = false;
  await clock.advance(60_000);
  await tend();
  expect(powerOffs).toBe(2);
  expect(held.claim).toEqual({ failover: 'move', poweredOff: true });
  expect(freezer.frozen).toBe(true);
});
