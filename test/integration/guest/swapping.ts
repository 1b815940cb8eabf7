/**
 * A process in the guest that uses more memory than it may have: the kernel swaps it out and in, a little at a time, whether or not
 * filesystems are frozen.
 */
import type { GuestMachine } from '../../machines/guestMachine.ts';

/** Prints how many pages the kernel has swapped out since the machine started. */
export const SWAPPED_OUT = "sed -n 's/^pswpout //p' /proc/vmstat";
/** While this is there, the watchdog's fsfreeze notes `frozen PAGES` and `thaw PAGES` in it: swapped out when all was frozen, and after. */
export const FREEZES = '/run/freezes.log';

/** It keeps the last 16 MB of what it reads, and may have 6 MiB. */
const START = `set -e
mountpoint=/sys/fs/cgroup
mount -t cgroup2 cgroup $mountpoint
echo +memory >$mountpoint/cgroup.subtree_control
mkdir $mountpoint/hungry
echo 6M >$mountpoint/hungry/memory.max
{ head -c 8000000 /dev/urandom; while :; do head -c 100000 /dev/urandom; sleep 0.3; done; } |
  ( echo 0 >$mountpoint/hungry/cgroup.procs; exec tail -c 16000000 >/dev/null ) &
until [ "$(${SWAPPED_OUT})" -gt 0 ]; do sleep 0.2; done
`;

export class HungryProcess {
  readonly #guest: GuestMachine;

  private constructor(guest: GuestMachine) {
    this.#guest = guest;
  }

  /** Resolves once something of it is swapped out. */
  static async start(guest: GuestMachine): Promise<HungryProcess> {
    await guest.run(START);
    return new HungryProcess(guest);
  }

  async startNotes(): Promise<void> {
    await this.#guest.run(`: >${FREEZES}`);
  }

  /** By freeze that began and ended since the notes were started: pages that were swapped out in it. */
  async stopNotes(): Promise<number[]> {
    const log = await this.#guest.run(`cat ${FREEZES}; rm ${FREEZES}`);
    return [...log.matchAll(/^frozen (\d+)\nthaw (\d+)$/gm)].map(
      ([, before, after]) => Number(after) - Number(before),
    );
  }

  /** Resolves once more is swapped out than there was. */
  async swapsOn(): Promise<void> {
    await this.#guest.run(
      `before=$(${SWAPPED_OUT}); until [ "$(${SWAPPED_OUT})" -gt "$before" ]; do sleep 0.1; done`,
    );
  }
}
