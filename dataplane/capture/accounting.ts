/**
 * The proof that tracking saw every write to a disk: what the kernel counts as written and discarded (/sys/block/X/stat) and what was
 * traced grow by the same sectors, so their difference is a constant.
 *
 * The two can't be read at one moment. But the kernel traces a completion before it counts it (blk_update_request), so of readings
 *
 *   before = count · traced = drain · … · after = count, a while later
 *
 * `before - traced` is at most the constant and `after - traced` at least. Every round narrows the interval; on a quiet disk both
 * bounds meet and a single lost sector shows at the next round. A lower bound above the upper one proves a loss, under any load.
 * At a barrier the disk is quiet and the bounds must meet: what a barrier holds is never merely likely.
 *
 * `after` must be late enough for a completion that was traced to have been counted: we take the next round's `before`, and only
 * when SETTLE_MS have passed since anything was traced.
 */
import { FarshoreError } from '../../platform/errors.ts';

const SETTLE_MS = 20;
/** How long the kernel may have counted less than it traced before we stop believing that it will catch up. */
const BEHIND_MAX_MS = 5_000;

/** Writes may have been missed: a resync must look at everything again. */
export class TrackingLostError extends FarshoreError {
  constructor(detail: string, options?: ErrorOptions) {
    super(
      'TrackingLost',
      `Writes to the machine's disks may have gone unseen: ${detail}. A resync compares every block again; until it ends no new recovery point is made, older ones stay valid.`,
      options,
    );
  }
}

export interface SavedAccount {
  traced: number;
  low: number | undefined;
  high: number | undefined;
}

export class SectorAccount {
  readonly #name: string;
  #traced = 0;
  #low = Number.NEGATIVE_INFINITY;
  #high = Number.POSITIVE_INFINITY;
  #counted = 0;
  #tracedAt: number | undefined;
  #behindSince: number | undefined;
  #quiet = false;

  /** `name`: of the disk, for messages. */
  constructor(options: { name: string; saved?: SavedAccount }) {
    this.#name = options.name;
    if (options.saved === undefined) return;
    this.#traced = options.saved.traced;
    this.#low = options.saved.low ?? Number.NEGATIVE_INFINITY;
    this.#high = options.saved.high ?? Number.POSITIVE_INFINITY;
  }

  /** The kernel's count, read before a drain. `nowMs` is monotonic. Throws TrackingLostError when it stays behind the trace. */
  beforeDrain(counted: number, nowMs: number): void {
    this.#counted = counted;
    const upper = counted - this.#traced;
    if (upper < this.#low) {
      this.#judgeBehind(this.#low - upper, nowMs);
      return;
    }
    this.#behindSince = undefined;
    if (this.#tracedAt !== undefined && nowMs - this.#tracedAt >= SETTLE_MS)
      this.#high = Math.min(this.#high, upper);
  }

  /** What the drain brought. Throws TrackingLostError once the two can't be reconciled any more. */
  afterDrain(sectors: number, nowMs: number): void {
    this.#traced += sectors;
    if (sectors > 0 || this.#tracedAt === undefined) this.#tracedAt = nowMs;
    const lower = this.#counted - this.#traced;
    if (lower > this.#high)
      throw new TrackingLostError(
        `the kernel counts ${lower - this.#high} more sectors written to ${this.#name} than it reported to us`,
      );
    this.#low = Math.max(this.#low, lower);
    this.#quiet = sectors === 0 && lower === this.#low && lower === this.#high;
  }

  /** Sectors by which the proof is uncertain still; 0 once the disk was quiet for a moment. */
  get uncertainty(): number {
    return this.#high - this.#low;
  }

  /** The last round saw no write, and every sector ever counted was traced. */
  get proven(): boolean {
    return this.#quiet;
  }

  save(): SavedAccount {
    return {
      traced: this.#traced,
      low: Number.isFinite(this.#low) ? this.#low : undefined,
      high: Number.isFinite(this.#high) ? this.#high : undefined,
    };
  }

  /** For a moment that is a count still to come. */
  #judgeBehind(sectors: number, nowMs: number): void {
    this.#behindSince ??= nowMs;
    if (nowMs - this.#behindSince > BEHIND_MAX_MS)
      throw new TrackingLostError(
        `the kernel reported ${sectors} more sectors written to ${this.#name} than it counts; were its I/O statistics turned off?`,
      );
  }
}
