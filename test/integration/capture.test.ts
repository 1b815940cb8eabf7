import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { linuxBlockDevices } from '../../platform/linux/blockDevice.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { attach, detach } from '../machines/loopDevice.ts';
import { LoopMachine, sh } from './capture/machine.ts';
import { Rig } from './capture/rig.ts';
import { workloads } from './capture/workloads.ts';

const MIB = 1 << 20;
/** Long enough to copy the frozen disk for comparison. */
const LONG_DEADLINE_MS = 60_000;

let machine: LoopMachine;
let rig: Rig | undefined;

afterEach(async () => {
  await machine.stopWorkload();
  await rig?.close();
  rig = undefined;
  await machine.cleanUp();
});

function newRig(options: { bufferKb?: number } = {}): Rig {
  machine = new LoopMachine();
  rig = new Rig(machine, options);
  return rig;
}

/** A barrier, and a copy of the disks as they were while frozen. */
async function barrierWithSnapshot(made: Rig, devices: readonly string[]): Promise<string[]> {
  const snapshots = devices.map((device) =>
    path.join(machine.directory, `frozen-${path.basename(device)}`),
  );
  let taken = false;
  await made.barrier({
    deadlineMs: LONG_DEADLINE_MS,
    whileFrozen: () => {
      if (taken) return;
      taken = true;
      for (const [index, device] of devices.entries())
        sh(`dd if=${device} of=${snapshots[index]} bs=4M iflag=direct conv=sparse status=none`);
    },
  });
  made.sink.sync();
  return snapshots;
}

function expectSame(made: Rig, device: string, snapshot: string): void {
  sh(`cmp ${made.targets.get(device)} ${snapshot}`);
}

describe('a barrier is the disk byte for byte', () => {
  for (const filesystem of ['ext4', 'xfs'])
    for (const [name, commands] of Object.entries(workloads))
      test(`on ${filesystem} under ${name}`, async () => {
        const made = newRig();
        const { device } = machine.disk('disk', 320 * MIB);
        const mount = machine.mount(device, { filesystem, mountOptions: 'discard' });
        await made.open([device]);
        for (const command of commands(mount)) machine.run(command);
        await made.resync({ assumeZero: true });
        for (let round = 0; round < 4; round += 1) {
          await systemClock.sleep(400);
          const [snapshot = ''] = await barrierWithSnapshot(made, [device]);
          expectSame(made, device, snapshot);
        }
        expect(made.sink.wrongHashes()).toEqual([]);
        expect(made.pumpError).toBeUndefined();
      });

  test('of several disks at the same moment', async () => {
    const made = newRig();
    const first = machine.disk('first', 192 * MIB);
    const second = machine.disk('second', 320 * MIB);
    const mounts = [
      machine.mount(first.device),
      machine.mount(second.device, { filesystem: 'xfs' }),
    ];
    await made.open([first.device, second.device]);
    machine.run(
      `i=0; while :; do i=$((i+1)); echo $i > ${mounts[0]}/n.tmp; sync ${mounts[0]}/n.tmp; mv ${mounts[0]}/n.tmp ${mounts[0]}/n; sync -f ${mounts[0]}; echo $i > ${mounts[1]}/n.tmp; sync ${mounts[1]}/n.tmp; mv ${mounts[1]}/n.tmp ${mounts[1]}/n; sync -f ${mounts[1]}; done`,
    );
    await made.resync({ assumeZero: true });
    await systemClock.sleep(500);
    const snapshots = await barrierWithSnapshot(made, [first.device, second.device]);
    expectSame(made, first.device, snapshots[0] ?? '');
    expectSame(made, second.device, snapshots[1] ?? '');
  });
});

test('a disk that is no whole number of leaves is captured to its last byte', async () => {
  const made = newRig();
  const { device } = machine.disk('odd', 33 * MIB + 3 * 4096 + 512);
  sh(`dd if=/dev/urandom of=${device} bs=1M count=33 oflag=direct status=none`);
  sh(`dd if=/dev/urandom of=${device} bs=512 seek=67584 count=25 oflag=direct status=none`);
  await made.open([device]);
  await made.resync({ assumeZero: true });
  const [snapshot = ''] = await barrierWithSnapshot(made, [device]);
  expectSame(made, device, snapshot);
  sh(`dd if=/dev/urandom of=${device} bs=512 seek=67608 count=1 oflag=direct status=none`);
  const [after = ''] = await barrierWithSnapshot(made, [device]);
  expectSame(made, device, after);
});

test('a resync of the same disk asks for every leaf and sends none', async () => {
  const made = newRig();
  const { device } = machine.disk('same', 64 * MIB);
  sh(`dd if=/dev/urandom of=${device} bs=1M count=20 seek=7 oflag=direct status=none`);
  await made.open([device]);
  const first = await made.resync({ assumeZero: true });
  expect(first.progress.bytesSent).toBeGreaterThan(20 * MIB);
  expect(made.sink.leavesAsked).toBe(0);
  const second = await made.resync({ assumeZero: false });
  expect(second.progress.bytesSent).toBe(0);
  expect(made.sink.leavesAsked).toBe(1024);
});

test('the body of swap is zero in the copy, its header is kept, and swapping does not void a barrier', async () => {
  const made = newRig();
  const { device } = machine.disk('swap', 128 * MIB);
  sh(`dd if=/dev/urandom of=${device} bs=1M count=128 oflag=direct status=none`);
  sh(`mkswap ${device} >/dev/null`);
  sh(`swapon ${device}`);
  machine.onCleanUp(() => sh(`swapoff ${device} 2>/dev/null || true`));
  await made.open([device]);
  await made.resync({ assumeZero: true });
  await made.barrier();
  made.sink.sync();
  const target = made.targets.get(device) ?? '';
  sh(`cmp -n 4096 ${device} ${target}`);
  expect(sh(`tail -c +4097 ${target} | tr -d '\\0' | wc -c`)).toBe('0');
  sh(`swapoff ${device}`);
  const [snapshot = ''] = await barrierWithSnapshot(made, [device]);
  expectSame(made, device, snapshot);
});

describe('lost tracking is never silence', () => {
  test('one write while tracing is off, under load', async () => {
    const made = newRig();
    const { device } = machine.disk('blind', 192 * MIB);
    const mount = machine.mount(device);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    machine.run(
      `fio --thread --name=w --directory=${mount} --size=16m --rw=randwrite --bs=4k --ioengine=psync --direct=1 --time_based --runtime=100 --rate_iops=400`,
    );
    await made.barrier();
    sh(
      `echo 0 > ${made.instance}/tracing_on; dd if=/dev/urandom of=${mount}/unseen bs=4k count=1 oflag=direct status=none; echo 1 > ${made.instance}/tracing_on`,
    );
    await expect(made.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });

  test('one write while the event is disabled, on a quiet disk', async () => {
    const made = newRig();
    const { device } = machine.disk('blind', 64 * MIB);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    const event = `${made.instance}/events/block/block_rq_complete/enable`;
    sh(
      `echo 0 > ${event}; dd if=/dev/urandom of=${device} bs=512 count=1 seek=99 oflag=direct status=none; echo 1 > ${event}`,
    );
    await expect(made.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });

  test('a changed filter, before anything was missed', async () => {
    const made = newRig();
    const { device } = machine.disk('filter', 64 * MIB);
    await made.open([device]);
    sh(`echo 'nr_sector > 100' > ${made.instance}/events/block/block_rq_complete/filter`);
    await expect(made.tracking.verify()).rejects.toMatchObject({ code: 'TrackingLost' });
  });

  test("an overrun of the kernel's buffer while the agent does not run", async () => {
    const made = newRig({ bufferKb: 16 });
    const { device } = machine.disk('overrun', 64 * MIB);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    // The reader is stopped as a dying agent stops it; the kernel goes on.
    await made.tracking.absorb({ last: true });
    sh(
      `fio --name=o --filename=${device} --size=32m --rw=randwrite --bs=4k --ioengine=psync --direct=1 --output=/dev/null`,
    );
    await expect(made.barrier()).rejects.toMatchObject({ code: 'TrackingLost' });
  });

  test('another disk behind the same name', async () => {
    const made = newRig();
    const { device } = machine.disk('other', 64 * MIB);
    await made.open([device]);
    sh(`truncate -s 96M ${path.join(machine.directory, 'other.img')}; losetup -c ${device}`);
    await expect(made.tracking.verify()).rejects.toThrow(/resized from 67108864 to 100663296/);
  });
});

describe('the scrub', () => {
  test('finds a write that went past the block layer, which neither the trace nor the sectors show', async () => {
    const made = newRig();
    const { device, image } = machine.disk('behind', 48 * MIB + 4096);
    sh(`dd if=/dev/urandom of=${device} bs=1M count=20 seek=7 oflag=direct status=none`);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    await made.barrier();
    expect(await made.scrub()).toMatchObject({ leavesCompared: 769, leavesPassedOver: 0 });
    sh(`dd if=/dev/urandom of=${image} bs=512 seek=50000 count=1 conv=notrunc,fsync status=none`);
    const { uncertainSectors } = await made.tracking.settle({ patienceMs: 3_000 });
    expect({ uncertainSectors, dirtyBytes: made.tracking.dirtyBytes }).toEqual({
      uncertainSectors: 0,
      dirtyBytes: 0,
    });
    await made.barrier();
    await expect(made.scrub()).rejects.toMatchObject({
      code: 'TrackingLost',
      message: expect.stringContaining(
        `leaf 390 of ${device} (disk 0, bytes 25559040 to 25624575)`,
      ),
    });
    const mended = await made.resync({ assumeZero: false });
    expect(mended.progress.bytesSent).toBeGreaterThan(0);
    const [snapshot = ''] = await barrierWithSnapshot(made, [device]);
    expectSame(made, device, snapshot);
  });

  test('takes no write of a busy machine for a lost one', async () => {
    const made = newRig();
    const { device } = machine.disk('busy', 96 * MIB);
    const mount = machine.mount(device, { mountOptions: 'discard' });
    await made.open([device]);
    await made.resync({ assumeZero: true });
    machine.run(
      `fio --thread --name=w --directory=${mount} --size=48m --rw=randwrite --bs=4k --ioengine=psync --direct=1 --time_based --runtime=100 --rate_iops=300`,
    );
    machine.run(
      `i=0; while :; do i=$((i+1)); cp /bin/bash ${mount}/f$((i%3)); sync ${mount}/f$((i%3)); rm -f ${mount}/f$(((i+1)%3)); sleep 0.05; done`,
    );
    const asked = made.sink.leavesAsked;
    for (let round = 0; round < 6; round += 1) {
      // What was sent before the first is known to be in the vault after the second.
      await made.barrier();
      await made.barrier();
      const until = performance.now() + 1_500;
      while (performance.now() < until) await made.scrub(() => performance.now() >= until);
    }
    expect(made.sink.leavesAsked - asked).toBeGreaterThan(1_536);
  });
});

describe('a barrier that says nothing is void', () => {
  test('when something writes past the frozen filesystem', async () => {
    const made = newRig();
    const { device } = machine.disk('raw', 96 * MIB);
    const mount = machine.mount(device);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    sh(`cp /bin/true ${mount}/something`);
    const disk = made.tracking.disks[0]?.device;
    if (disk === undefined) throw new Error('no disk');
    const read = disk.read.bind(disk);
    let written = false;
    // Little is dirty, so that the first read is one while frozen.
    disk.read = async (into, offset) => {
      if (!written)
        sh(`dd if=/dev/urandom of=${device} bs=4k seek=20000 count=1 oflag=direct status=none`);
      written = true;
      return await read(into, offset);
    };
    await expect(made.barrier()).rejects.toMatchObject({
      code: 'WrittenWhileFrozen',
      message: expect.stringContaining('4096 bytes at 81920000 of /dev/loop'),
    });
    const [snapshot = ''] = await barrierWithSnapshot(made, [device]);
    expectSame(made, device, snapshot);
  });

  test('when somebody else thaws', async () => {
    const made = newRig();
    const { device } = machine.disk('thaw', 96 * MIB);
    const mount = machine.mount(device);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    let once = false;
    const barrier = made.barrier({
      whileFrozen: () => {
        if (!once) sh(`fsfreeze -u ${mount}`);
        once = true;
      },
    });
    await expect(barrier).rejects.toMatchObject({ code: 'ThawedEarly' });
  });

  test('when the agent is late: writers go on at the deadline', async () => {
    const made = newRig();
    const { device } = machine.disk('late', 96 * MIB);
    const mount = machine.mount(device);
    await made.open([device]);
    await made.resync({ assumeZero: true });
    const barrier = made.barrier({
      deadlineMs: 500,
      whileFrozen: () => void sh(`sleep 0.7; echo late > ${mount}/written`),
    });
    await expect(barrier).rejects.toMatchObject({ code: 'ThawedEarly' });
    expect(made.tracking.dirtyBytes).toBeGreaterThanOrEqual(0);
    await made.barrier();
  });
});

test('a disk with data that nothing can freeze is refused, with whose it is', async () => {
  machine = new LoopMachine();
  const image = path.join(machine.directory, 'asm.img');
  sh(`truncate -s 8M ${image}; printf 'label: gpt\\nstart=2048,size=4096\\n' | sfdisk -q ${image}`);
  const loop = await attach(image);
  const { device, partitions } = loop;
  try {
    await (await linuxBlockDevices.open(device)).close();
    sh(`printf ORCLDISKDATA1 | dd of=${partitions[0]} bs=1 seek=32 conv=nocreat,fsync status=none`);
    await expect(linuxBlockDevices.open(device)).rejects.toMatchObject({
      code: 'DiskUnsupported',
      message: expect.stringMatching(/its partition loop\d+p1 holds data of Oracle ASM/),
    });
  } finally {
    await detach(loop);
  }
});

test('stacked filesystems are frozen from the top and thawed from the bottom', async () => {
  const made = newRig();
  const lower = machine.disk('lower', 256 * MIB);
  const lowerMount = machine.mount(lower.device);
  sh(`truncate -s 96M ${lowerMount}/upper.img`);
  const upper = sh(`losetup --direct-io=on -f --show ${lowerMount}/upper.img`);
  machine.onCleanUp(() => sh(`losetup -d ${upper}`));
  const upperMount = machine.mount(upper, { name: 'upper' });
  await made.open([lower.device]);
  await made.resync({ assumeZero: true });
  machine.run(
    `while :; do cp /bin/bash ${upperMount}/x; sync ${upperMount}/x; cp /bin/bash ${lowerMount}/y; done`,
  );
  const plan = await made.freezer.plan([lower.device]);
  expect(plan.mounts.map((mount) => mount.mountPoint)).toEqual([upperMount, lowerMount]);
  for (let round = 0; round < 3; round += 1) {
    const [snapshot = ''] = await barrierWithSnapshot(made, [lower.device]);
    expectSame(made, lower.device, snapshot);
  }
});
