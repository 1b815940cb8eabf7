import { describe } from 'vitest';
import { blockDeviceConformance, DISK_SIZE } from '../conformance/blockDevice.ts';
import { filesystemFreezerConformance } from '../conformance/filesystemFreezer.ts';
import { tracerConformance } from '../conformance/tracer.ts';
import { DrivenFakeDisk } from './drivenFakeDisk.ts';
import { ManualClock } from './manualClock.ts';
import { FakeDisk, FakeFreezer, FakeTracer, fakeBlockDevices } from './sourceMachine.ts';

const MIB = 1 << 20;
const EVENTS_MAX = 100;

describe('FakeDisk', () => {
  blockDeviceConformance(async () => {
    const device = new FakeDisk({ sizeBytes: DISK_SIZE });
    const change = (to: Partial<FakeDisk['identityNow']>) => {
      device.identityNow = { ...device.identityNow, ...to };
    };
    return {
      devices: fakeBlockDevices([device]),
      disk: new DrivenFakeDisk(device),
      missing: '/dev/missing',
      pass: async () => undefined,
      shrink: async (sizeBytes) => change({ sizeBytes }),
      exchangeable: async () => ({
        path: device.path,
        exchange: async () => change({ diskSequence: device.identityNow.diskSequence + 1n }),
      }),
      vanish: async () => {
        device.isGone = true;
      },
    };
  });
});

describe('FakeTracer', () => {
  tracerConformance(async () => {
    const devices = [1, 2].map(
      (devT) => new FakeDisk({ path: `/dev/fake${devT}`, sizeBytes: MIB, devT }),
    );
    const [disk, other] = devices.map((device) => new DrivenFakeDisk(device));
    if (disk === undefined || other === undefined) throw new Error('no disks');
    const machine = new FakeTracer(devices);
    machine.eventsMax = EVENTS_MAX;
    return {
      disk,
      other,
      tracer: () => new FakeTracer(devices),
      pass: async () => undefined,
      tampering: { 'turned off': async () => machine.turnOff() },
      overrun: async (driven) => {
        for (let count = 0; count <= EVENTS_MAX; count += 1)
          await driven.write({ offset: 0, length: 512 }, count);
      },
    };
  });
});

describe('FakeFreezer', () => {
  filesystemFreezerConformance(
    async () => {
      const clock = new ManualClock();
      const device = new FakeDisk({ sizeBytes: MIB });
      const machine = new FakeFreezer(clock);
      const freezers: FakeFreezer[] = [];
      return {
        freezer: () => {
          const freezer = new FakeFreezer(clock, machine);
          freezers.push(freezer);
          return freezer;
        },
        disks: [device.path],
        mountPoints: ['/data'],
        bareDisk: '/dev/bare',
        pass: (ms) => clock.advance(ms),
        now: () => clock.monotonic(),
        isFrozen: async () => machine.frozen,
        thawByOther: async () => machine.thawByOther(),
        refuse: async () => {
          for (const freezer of freezers) freezer.failFreeze = true;
          return async () => {
            for (const freezer of freezers) freezer.failFreeze = false;
          };
        },
        cache: async () => {
          for (const freezer of freezers) freezer.cached.push(() => device.write(0, 512, 7));
          return async () => device.bytes[0] === 7;
        },
      };
    },
    { without: ['agent'] },
  );
});
