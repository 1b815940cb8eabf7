import { describe } from 'vitest';
import { blockDeviceConformance, DISK_SIZE } from '../conformance/blockDevice.ts';
import { filesystemFreezerConformance } from '../conformance/filesystemFreezer.ts';
import { type TracedDisk, tracerConformance } from '../conformance/tracer.ts';
import { DrivenMachine } from './drivenMachine.ts';
import { blockDevicesFor } from './sourceDisk.ts';

const MIB = 1 << 20;
const BUFFER_EVENTS = 50;

describe('SourceDisk', () => {
  blockDeviceConformance(
    async () => {
      const machine = new DrivenMachine({ diskSizes: [DISK_SIZE], bufferEvents: BUFFER_EVENTS });
      const devices = blockDevicesFor(machine.kernel.disks, machine.life());
      const driven = machine.disk(0);
      const { disk } = driven;
      return {
        devices: { open: async (path) => machine.driven(await devices.open(path)) },
        disk: driven,
        missing: '/dev/missing',
        pass: (ms) => machine.pass(ms),
        shrink: async (sizeBytes) => {
          disk.identity = { ...disk.identity, sizeBytes };
        },
        exchangeable: async () => ({
          path: disk.path,
          exchange: async () => {
            const diskSequence = disk.identity.diskSequence + 1n;
            disk.identity = { ...disk.identity, diskSequence };
          },
        }),
      };
    },
    { without: 'vanish' },
  );
});

describe('Trace', () => {
  tracerConformance(async () => {
    const machine = new DrivenMachine({ diskSizes: [MIB, MIB], bufferEvents: BUFFER_EVENTS });
    const { trace } = machine.kernel;
    const traced = (index: number): TracedDisk => {
      const driven = machine.disk(index);
      return Object.assign(driven, { device: machine.driven(driven.disk.openFor(machine.life())) });
    };
    return {
      disk: traced(0),
      other: traced(1),
      tracer: () => machine.driven(trace.tracerFor(machine.life())),
      pass: (ms) => machine.pass(ms),
      tampering: { 'turned off': async () => void trace.turnOff() },
      overrun: async (disk) => {
        for (let count = 0; count < 4 * BUFFER_EVENTS; count += 1)
          await disk.write({ offset: 0, length: 512 }, count);
      },
    };
  });
});

describe('Kernel', () => {
  filesystemFreezerConformance(
    async () => {
      const machine = new DrivenMachine({ diskSizes: [MIB, MIB], bufferEvents: BUFFER_EVENTS });
      const { kernel } = machine;
      const [disk, bare] = kernel.disks.map(({ path }) => path);
      return {
        freezer: () => machine.driven(kernel.freezerFor(machine.life())),
        disks: [disk ?? ''],
        mountPoints: ['/data'],
        bareDisk: bare ?? '',
        pass: (ms) => machine.pass(ms),
        now: () => machine.time.nowMs,
        isFrozen: async () => kernel.isFrozen,
        thawByOther: async () => kernel.thawByOther(),
        refuse: async () => {
          kernel.freezeFailRate = 1;
          return async () => {
            kernel.freezeFailRate = 0;
          };
        },
        frozenAgent: async ({ deadlineMs }) => {
          const life = machine.life();
          const freezer = machine.driven(kernel.freezerFor(life));
          await freezer.freeze(await freezer.plan([disk ?? '']), { deadlineMs });
          return { kill: () => life.kill() };
        },
      };
    },
    { without: ['cache'] },
  );
});
