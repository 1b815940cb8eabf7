import { SeededRandom } from '../fakes/seededRandom.ts';

/** Chance with the distributions that a simulation asks for. */
export class Chance extends SeededRandom {
  between(low: number, high: number): number {
    return low + (this.word() / 2 ** 32) * (high - low);
  }

  /** A whole number from `low` to `high`, both included. */
  whole(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  /** Mostly short, sometimes much longer. */
  about(meanMs: number): number {
    return -Math.log(1 - this.word() / 2 ** 32) * meanMs;
  }

  /** Another stream, so that one device's draws do not shift another's. */
  fork(): Chance {
    return new Chance(this.word());
  }
}
