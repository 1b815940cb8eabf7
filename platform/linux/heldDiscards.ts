/**
 * Discards of drivers that take several ranges at once (NVMe, virtio).
 *
 * The kernel reports the completion of such a discard as one range that starts at the first of them: wrong. So the ranges are taken
 * from `block_bio_queue`, when they were asked for; the disk changes at some moment between that and their completion. Until as much
 * was completed as had been asked for, every drain reports the held ranges again, and once more after.
 */
export interface Range {
  sector: number;
  sectorCount: number;
}

const RANGES_MAX = 1 << 18;

export class HeldDiscards {
  #held: Range[] = [];
  #asked = 0;
  #completed = 0;
  #since: number | undefined;
  #overflown = false;

  ask(range: Range): void {
    this.#asked += range.sectorCount;
    if (this.#held.length < RANGES_MAX) this.#held.push(range);
    else this.#overflown = true;
  }

  complete(sectorCount: number): void {
    this.#completed += sectorCount;
  }

  /**
   * The ranges to read again now. `lost` when there were too many to hold, or when they don't complete for a minute: somewhere on
   * the way one failed without a word.
   */
  take(nowMs: number): { ranges: Range[]; lost: boolean } {
    const ranges = this.#held;
    if (this.#completed >= this.#asked) {
      this.#held = [];
      this.#since = undefined;
      this.#asked = 0;
      this.#completed = 0;
    } else this.#since ??= nowMs;
    const lost =
      this.#overflown || (this.#since !== undefined && nowMs - this.#since > OUTSTANDING_MAX_MS);
    this.#overflown = false;
    return { ranges, lost };
  }
}

const OUTSTANDING_MAX_MS = 60_000;
