/** The conformance suites of a source machine's ports on this machine's kernel, over loop devices. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe } from 'vitest';
import { linuxBlockDevices } from '../../platform/linux/blockDevice.ts';
import { LinuxFreezer } from '../../platform/linux/freezer.ts';
import { LinuxTracer } from '../../platform/linux/tracer.ts';
import { systemClock } from '../../platform/node/clock.ts';
import type { BlockDevice, Tracer } from '../../platform/ports.ts';
import {
  type BlockDeviceSite,
  blockDeviceConformance,
  DISK_SIZE,
} from '../conformance/blockDevice.ts';
import {
  type FreezerSite,
  filesystemFreezerConformance,
} from '../conformance/filesystemFreezer.ts';
import { type TracedDisk, type TracerSite, tracerConformance } from '../conformance/tracer.ts';
import { LoopDisk } from './capture/loopDisk.ts';
import { LoopMachine, sh } from './capture/machine.ts';

const MIB = 1 << 20;
/** Of each CPU; some hundred events fill it. */
const BUFFER_KB = 16;
const OVERRUN_WRITES = 4_000;

const clock = systemClock;
let machine: LoopMachine;
/** What a test that failed may have left, in order. */
const ends: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  await machine.cleanUp();
});

/** A filesystem, and a disk whose image is in it. */
function stacked(
  name: string,
  sizeBytes: number,
): { disk: LoopDisk; below: string; mount: string } {
  const { device: below } = machine.disk(`${name}-below`, 32 * MIB);
  const mount = machine.mount(below, { name: `${name}-below` });
  const image = path.join(mount, `${name}.img`);
  sh(`truncate -s ${sizeBytes} ${image}; sync -f ${mount}`);
  const device = sh(`losetup --direct-io=on -f --show ${image}`);
  machine.onCleanUp(() => sh(`losetup -d ${device}`));
  const disk = new LoopDisk({ device, image, below: mount });
  ends.push(() => disk.letGo());
  return { disk, below, mount };
}

describe('LinuxBlockDevice', () => {
  const opened: BlockDevice[] = [];

  blockDeviceConformance(
    async (): Promise<BlockDeviceSite> => {
      machine = new LoopMachine();
      const { disk } = stacked('disk', DISK_SIZE);
      ends.push(async () => {
        // Closed already where the test passed.
        for (const device of opened.splice(0)) await device.close().catch(() => undefined);
      });
      return {
        devices: {
          open: async (device) => {
            const made = await linuxBlockDevices.open(device);
            opened.push(made);
            return made;
          },
        },
        disk,
        missing: path.join(machine.directory, 'missing'),
        pass: (ms) => clock.sleep(ms),
        shrink: async (sizeBytes) => {
          sh(`truncate -s ${sizeBytes} ${disk.image}; losetup -c ${disk.path}`);
        },
        exchangeable: async () => {
          const image = path.join(machine.directory, 'first.img');
          const other = path.join(machine.directory, 'second.img');
          sh(`truncate -s ${MIB} ${image} ${other}`);
          // The kernel exchanges the file below a loop device that nobody writes to.
          const device = sh(`losetup --read-only -f --show ${image}`);
          machine.onCleanUp(() => sh(`losetup -d ${device}`));
          const exchange = `open($d, '<', '${device}'); open($f, '<', '${other}'); ioctl($d, 0x4c06, fileno($f)) or die "$!\\n"`;
          return {
            path: device,
            exchange: async () => void sh(`perl -e '${exchange.replaceAll("'", `'"'"'`)}'`),
          };
        },
      };
    }, // An open loop device does not go; the guest's disk does (guest.test.ts).
    { without: 'vanish' },
  );
});

describe('LinuxTracer', () => {
  tracerConformance(async (): Promise<TracerSite> => {
    machine = new LoopMachine();
    const name = `farshore-conformance-${process.pid}-${path.basename(machine.directory).slice(-6)}`;
    const instance = `/sys/kernel/tracing/instances/${name}`;
    const tracers: Tracer[] = [];
    const traced = async (diskName: string): Promise<TracedDisk> => {
      const { disk } = stacked(diskName, 16 * MIB);
      const device = await linuxBlockDevices.open(disk.path);
      ends.push(() => device.close());
      return Object.assign(disk, { device });
    };
    ends.push(async () => {
      for (const tracer of tracers) await tracer.stop({ keep: true });
      sh(
        `for n in $(seq 40); do [ -d ${instance} ] || break; rmdir ${instance} 2>/dev/null || sleep 0.1; done`,
      );
    });
    const tell = (file: string, value: string) => async () =>
      writeFileSync(path.join(instance, file), value);
    const event = 'events/block/block_rq_complete';
    return {
      disk: await traced('disk'),
      other: await traced('other'),
      tracer: () => {
        const tracer = new LinuxTracer({ name, clock, bufferKb: BUFFER_KB });
        tracers.push(tracer);
        return tracer;
      },
      pass: (ms) => clock.sleep(ms),
      tampering: {
        'turned off': tell('tracing_on', '0'),
        'the event turned off': tell(`${event}/enable`, '0'),
        'another filter': tell(`${event}/filter`, 'nr_sector > 100'),
        'smaller buffers': tell('buffer_size_kb', '4'),
      },
      overrun: async (disk) => {
        sh(
          `dd if=/dev/zero of=${disk.path} bs=512 count=${OVERRUN_WRITES} oflag=direct conv=nocreat,notrunc status=none`,
        );
      },
    };
  });
});

describe('LinuxFreezer', () => {
  filesystemFreezerConformance(async (): Promise<FreezerSite> => {
    machine = new LoopMachine();
    // In order of their names: what can't be stacked upon while it is frozen by somebody else comes last.
    const apart = machine.disk('apart', 32 * MIB);
    const apartMount = machine.mount(apart.device, { name: 'a-apart' });
    const { disk, below, mount } = stacked('upper', 16 * MIB);
    const upperMount = machine.mount(disk.path, { name: 'upper' });
    const bare = machine.disk('bare', MIB);
    const freezers: LinuxFreezer[] = [];
    ends.push(async () => {
      for (const freezer of freezers) await freezer.thaw({ mounts: [], swap: [] });
      for (const mountPoint of [mount, upperMount, apartMount])
        sh(`mountpoint -q ${mountPoint} && fsfreeze -u ${mountPoint} 2>/dev/null || true`);
    });
    const onDisk = new Map([
      [upperMount, disk.path],
      [mount, below],
      [apartMount, apart.device],
    ]);
    return {
      freezer: () => {
        const freezer = new LinuxFreezer({ clock });
        freezers.push(freezer);
        return freezer;
      },
      disks: [below, apart.device],
      // The first is thawed by others: the stack would wait for ever if its top were frozen again upon a frozen bottom.
      mountPoints: [apartMount, upperMount, mount],
      stack: [upperMount, mount],
      bareDisk: bare.device,
      pass: (ms) => clock.sleep(ms),
      now: () => clock.monotonic(),
      // What is frozen can't be frozen once more.
      isFrozen: async (mountPoint) =>
        sh(
          `mountpoint -q ${mountPoint} || exit 1; if fsfreeze -f ${mountPoint} 2>/dev/null; then fsfreeze -u ${mountPoint}; echo no; else echo yes; fi`,
        ) === 'yes',
      thawByOther: async (mountPoint) => {
        sh(`fsfreeze -u ${mountPoint}`);
      },
      refuse: async (mountPoint) => {
        if (mountPoint !== apartMount) throw new Error('the stack upon it would wait for ever');
        sh(`mountpoint -q ${mountPoint} && fsfreeze -f ${mountPoint}`);
        return async () => void sh(`fsfreeze -u ${mountPoint}`);
      },
      cache: async (mountPoint) => {
        const mark = `cached at ${mountPoint} `.repeat(16);
        writeFileSync(path.join(mountPoint, 'cached'), mark);
        return async () => directCopyOf(onDisk.get(mountPoint) ?? '').includes(mark);
      },
      frozenAgent: async ({ deadlineMs }) => {
        const child = spawn(
          process.execPath,
          [
            path.resolve(import.meta.dirname, 'capture/frozenProcess.ts'),
            String(deadlineMs),
            below,
            apart.device,
          ],
          { stdio: ['ignore', 'pipe', 'inherit'] },
        );
        ends.push(() => void child.kill('SIGKILL'));
        await once(child.stdout, 'data');
        return { kill: () => void child.kill('SIGKILL') };
      },
    };
  });
});

/** What is on the disk, not what the page cache holds for it. */
function directCopyOf(device: string): Buffer {
  const copy = path.join(machine.directory, 'copy');
  sh(`dd if=${device} of=${copy} bs=1M iflag=direct status=none`);
  return readFileSync(copy);
}
