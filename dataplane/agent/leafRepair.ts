/** Leaves that the vault lost: sent again, whole, as if they had just been written. */
import type { Clock, Logger } from '../../platform/ports.ts';
import type { CapturedDisk } from '../capture/disk.ts';
import type { Configuration } from '../wire/messages.ts';

/**
 * Asked for until the applier has seen them, which takes a minute or two; longer than that, something came between (a resync that took
 * them for known), and they are sent once more.
 */
const AGAIN_MS = 600_000;

export class LeafRepair {
  readonly #deps: { clock: Clock; log: Logger };
  #wanted: { text: string; markedMs: number } | undefined;

  constructor(deps: { clock: Clock; log: Logger }) {
    this.#deps = deps;
  }

  /** Marks what is asked for dirty, when it was not of late. Nothing may be comparing these disks. */
  mark(disks: readonly CapturedDisk[], configuration: Configuration | undefined): void {
    const { repair = [] } = configuration ?? {};
    if (repair.length === 0) {
      this.#wanted = undefined;
      return;
    }
    const { clock, log } = this.#deps;
    const text = JSON.stringify(repair);
    const nowMs = clock.monotonic();
    const { markedMs = Number.NEGATIVE_INFINITY } = this.#wanted ?? {};
    if (this.#wanted?.text === text && nowMs - markedMs < AGAIN_MS) return;
    this.#wanted = { text, markedMs: nowMs };
    for (const { disk: index, leaf } of repair) {
      const disk = disks.find((one) => one.index === index);
      if (disk !== undefined && leaf < disk.leafCount)
        disk.dirt.dirty.add(leaf, disk.dirt.dirty.wholeMask(leaf));
    }
    log.warn(
      { code: 'ChecksumMismatch', leaves: repair.length },
      'The vault lost leaves of this machine; they are sent again',
    );
  }
}
