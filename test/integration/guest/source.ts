/** The guest as a source machine: its disks and what lies on them, its agent, and what happens in it while something is frozen. */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { buildGuestImage, GUEST_SWAP } from '../../machines/guestImage.ts';
import { type GuestDisk, GuestMachine } from '../../machines/guestMachine.ts';
import { CREATE_MIRROR, USE_MIRROR } from './mirror.ts';
import { MACHINE, type WantedDisk, type World } from './world.ts';
import { onAndOn } from './writing.ts';

/** By name: what the guest calls the disk, and how it is plugged in. The root disk is there besides. */
const DISKS = {
  fat: { index: 1, device: '/dev/vdb', bus: 'virtio', sizeMiB: 48 },
  stack: { index: 2, device: '/dev/vdc', bus: 'virtio', sizeMiB: 128 },
  fast: { index: 3, device: '/dev/nvme0n1', bus: 'nvme', sizeMiB: 128 },
  spare: { index: 4, device: '/dev/sda', bus: 'scsi', sizeMiB: 48 },
  left: { index: 6, device: '/dev/vdd', bus: 'virtio', sizeMiB: 40 },
  right: { index: 7, device: '/dev/vde', bus: 'virtio', sizeMiB: 40 },
} as const;
export type DataDisk = keyof typeof DISKS;
const NAMES = Object.keys(DISKS) as DataDisk[];
/** Of those that the machine begins with. The mirror's two come later, in the place of the spare. */
const FIRST: readonly DataDisk[] = ['fat', 'stack', 'fast', 'spare'];

/** Twice the agent's default: under emulation, a program takes half a second to start. */
export const FREEZE_DEADLINE_SECONDS = 4;

/**
 * Runs before the real one's place in the path: after a freeze it does what the test has put into /run/after-freeze. The root is the
 * last to be frozen and the first to be thawed.
 */
const FREEZE_WITH_HOOK = `#!/bin/dash
/usr/sbin/fsfreeze "$@"
status=$?
if [ "$1" = -f ] && [ $status = 0 ] && [ -f /run/after-freeze ] && [ "$2" = "$(cat /run/after-freeze-of)" ]; then
  mv /run/after-freeze /run/after-freeze.sh
  dash /run/after-freeze.sh >/run/after-freeze.log 2>&1
fi
exit $status
`;

/** fat: a filesystem that can't be frozen. stack: ext4 on a mapped device, and in it a file with an ext4. fast: discards. */
const PREPARE = `set -e
export DM_DISABLE_UDEV=1
mkdosfs /dev/vdb >/dev/null
dmsetup create stack --table "0 $(($(blockdev --getsz /dev/vdc) - 2048)) linear /dev/vdc 2048"
mkfs.ext4 -q -F /dev/mapper/stack
mkfs.ext4 -q -F /dev/nvme0n1
mkfs.ext4 -q -F /dev/sda
`;

const MOUNT = `set -e
export DM_DISABLE_UDEV=1
mkdir -p /run/mnt/fat /run/mnt/stack /run/mnt/inner /run/mnt/fast /run/mnt/spare
mount -t vfat /dev/vdb /run/mnt/fat
[ -e /dev/mapper/stack ] || dmsetup create stack --table "0 $(($(blockdev --getsz /dev/vdc) - 2048)) linear /dev/vdc 2048"
mount -t ext4 /dev/mapper/stack /run/mnt/stack
[ -e /run/mnt/stack/inner.img ] || { truncate -s 48M /run/mnt/stack/inner.img; mkfs.ext4 -q -F /run/mnt/stack/inner.img; }
mount -t ext4 "$(losetup -f --show /run/mnt/stack/inner.img)" /run/mnt/inner
mount -t ext4 -o discard /dev/nvme0n1 /run/mnt/fast
[ -b /dev/sda ] && mount -t ext4 /dev/sda /run/mnt/spare
sync
`;

/** Writes to the root filesystem, slowly enough for an emulated machine. */
const ROOT_WORKLOAD = onAndOn('put(">>", "/var/workload", "$i\\n", 1); pause(0.2);');

/** And to all others but FAT. */
const WORKLOAD = `
${onAndOn(`
  put(">", "/run/mnt/stack/n", "$i\\n");
  put(">", "/run/mnt/inner/f" . $i % 20, noise(20000), 1);
  pause(0.3);
`)}
${onAndOn(`
  put(">", "/run/mnt/fast/f" . $i % 30, noise(70000));
  unlink("/run/mnt/fast/f" . ($i + 13) % 30);
  syncfs("/run/mnt/fast");
  system("fstrim", "/run/mnt/fast") if $i % 20 == 0;
  pause(0.3);
`)}
`;

/** Rewrites a file on the root filesystem without pause and notes when it was done. */
const PROBE = `${onAndOn(`
  put(">", "/var/probe", "x\\n");
  open(my $f, "<", "/proc/uptime");
  put(">>", "/run/probe.log", (split(" ", <$f>))[0] . "\\n");
  pause(0.02);
`)} echo $! >/run/probe.pid`;

export class Source {
  readonly disks: Map<string, string>;
  readonly #world: World;
  #guest: GuestMachine | undefined;

  private constructor(world: World, disks: Map<string, string>) {
    this.#world = world;
    this.disks = disks;
  }

  /** Boots it, with filesystems on all disks and the workload running. */
  static async create(world: World): Promise<Source> {
    const disks = new Map([['root', path.join(world.directory, 'root.raw')]]);
    await buildGuestImage(disks.get('root') ?? '', { passphrase: world.passphrase });
    leaveSwapped(disks.get('root') ?? '');
    for (const name of NAMES) {
      const file = path.join(world.directory, `${name}.raw`);
      execFileSync('truncate', ['-s', `${DISKS[name].sizeMiB}M`, file]);
      disks.set(name, file);
    }
    const source = new Source(world, disks);
    try {
      await source.boot(FIRST);
      await source.guest.run(PREPARE);
      await source.begin();
      return source;
    } catch (error) {
      await source.off();
      throw error;
    }
  }

  get guest(): GuestMachine {
    if (this.#guest === undefined) throw new Error('the machine is off');
    return this.#guest;
  }

  async boot(plugged: readonly DataDisk[]): Promise<void> {
    this.#guest = await GuestMachine.boot({
      directory: this.#world.directory,
      root: this.disks.get('root') ?? '',
      disks: plugged.map(
        (id): GuestDisk => ({ id, path: this.disks.get(id) ?? '', bus: DISKS[id].bus }),
      ),
    });
  }

  /** Mounts the data disks and starts workload and agent. */
  async begin(): Promise<void> {
    await this.guest.run(MOUNT);
    await this.guest.run(WORKLOAD);
    await this.#beginAtRoot();
  }

  /** The same, with the mirror made anew besides. */
  async beginWithMirror(): Promise<void> {
    await this.guest.run(CREATE_MIRROR);
    await this.guest.run(USE_MIRROR);
    await this.begin();
  }

  /** The same, with the mirror as it is and nothing else. */
  async beginWithMirrorAlone(): Promise<void> {
    await this.guest.run(USE_MIRROR);
    await this.#beginAtRoot();
  }

  /** The agent's log is on the filesystem that it freezes. */
  async #beginAtRoot(): Promise<void> {
    await this.guest.run(`${ROOT_WORKLOAD}
mkdir -p /run/with-hook
cat >/run/with-hook/fsfreeze <<'END'
${FREEZE_WITH_HOOK}
END
chmod +x /run/with-hook/fsfreeze
cd /
export PATH=/run/with-hook:$PATH
node /opt/farshore/main.mjs --name ${MACHINE} --process-server 10.0.2.2:${await this.#world.port()} \\
  --passphrase-file /opt/farshore/passphrase --log-level debug --freeze-deadline ${FREEZE_DEADLINE_SECONDS * 1000} >>/var/log/agent.log 2>&1 &
echo $! >/run/agent.pid`);
  }

  wanted(...names: (DataDisk | 'root')[]): WantedDisk[] {
    return names.map((name) =>
      name === 'root'
        ? { index: 0, name, device: '/dev/vda' }
        : { index: DISKS[name].index, name, device: DISKS[name].device },
    );
  }

  /** Runs once, in the watchdog, right after this filesystem is frozen and before the agent hears of it. */
  async afterFreezeOf(mountPoint: string, script: string): Promise<void> {
    await this.guest.run(`rm -f /run/after-freeze.sh /run/after-freeze.log
echo ${mountPoint} >/run/after-freeze-of
cat >/run/after-freeze.new <<'END'
${script}
END
mv /run/after-freeze.new /run/after-freeze`);
  }

  async startProbe(): Promise<void> {
    await this.guest.run(`rm -f /run/probe.log; ${PROBE}`);
  }

  /** The longest that a write to the root filesystem waited since the probe was started, in seconds. */
  async stopProbe(): Promise<number> {
    // A wait that has just ended is noted by the write that comes after it.
    const log = await this.guest.run('sleep 1; kill $(cat /run/probe.pid); cat /run/probe.log');
    const times = log.split('\n').map(Number);
    return Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? time)));
  }

  async agentLog(): Promise<string> {
    return await this.guest.run('tail -n 40 /var/log/agent.log');
  }

  async off(): Promise<void> {
    await this.#guest?.kill();
    this.#guest = undefined;
  }
}

/** As if something had been swapped out before: nobody is to copy that. */
function leaveSwapped(disk: string): void {
  const seek = String((GUEST_SWAP.offset + 8192) / 4096);
  const to = [`of=${disk}`, 'bs=4096', 'count=256', `seek=${seek}`, 'conv=notrunc', 'status=none'];
  execFileSync('dd', ['if=/dev/urandom', ...to]);
}
