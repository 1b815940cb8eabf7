/**
 * The way to the vault, which all machines of a process server share: how much may be sealed and sent at once, in which order, how fast.
 * What it holds in memory does not grow with the machines.
 */
import type { Clock } from '../../platform/ports.ts';
import { RateLimit } from './rateLimit.ts';
import { type TurnRequest, Turns } from './turns.ts';

/** Segments sealed at the same time: two threads are kept busy by two. */
const SEALING = 2;
/** A segment up to this size goes beside the large ones: the barrier of a quiet machine never waits for 64 MiB of another's. */
export const SMALL_SEGMENT = 1 << 20;
/** Puts under way at once, while no limit is in force; with one, more at once would only take longer each. */
const LARGE_PUTS = 2;
const SMALL_PUTS = 4;

export class Uplink {
  readonly #rate: RateLimit;
  readonly #sealing = new Turns({ places: () => SEALING });
  readonly #large = new Turns({ places: () => (this.#limited ? 1 : LARGE_PUTS) });
  readonly #small = new Turns({ places: () => (this.#limited ? 1 : SMALL_PUTS) });
  #bytesPerSecond: () => number | undefined = () => undefined;

  constructor(options: { clock: Clock }) {
    this.#rate = new RateLimit({
      clock: options.clock,
      bytesPerSecond: () => this.#bytesPerSecond(),
    });
  }

  /** From now on asked for the limit in force, in bytes per second; undefined: none. */
  limitTo(bytesPerSecond: () => number | undefined): void {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Seals when it is the machine's turn. */
  async seal<T>(request: TurnRequest, act: () => Promise<T>): Promise<T> {
    return await this.#sealing.run(request, act);
  }

  /** Puts when it is the machine's turn. Who says what follows must come for it, or `leave`. */
  async put<T>(request: TurnRequest, act: () => Promise<T>): Promise<T> {
    const turns = this.#turnsFor(request.bytes);
    const followedBy = () => {
      const next = request.followedBy?.();
      return next !== undefined && this.#turnsFor(next.bytes) === turns ? next : undefined;
    };
    return await turns.run({ ...request, followedBy }, act);
  }

  /** The machine puts no more. */
  leave(machineId: string): void {
    for (const turns of [this.#large, this.#small]) turns.leave(machineId);
  }

  /** Resolves once so many bytes may go. Rejects with the signal's reason. */
  async passed(bytes: number, signal: AbortSignal): Promise<void> {
    await this.#rate.takeAll(bytes, signal);
  }

  /** The same bytes, given out no faster than the limit in force lets them go. */
  async *slowed(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces)
      for (let offset = 0; offset < piece.length; ) {
        const left = piece.length - offset;
        const taken = this.#rate.take(left);
        const count = typeof taken === 'number' ? taken : await taken;
        yield count === piece.length ? piece : piece.subarray(offset, offset + count);
        offset += count;
      }
  }

  #turnsFor(bytes: number): Turns {
    return bytes > SMALL_SEGMENT ? this.#large : this.#small;
  }

  get #limited(): boolean {
    return this.#bytesPerSecond() !== undefined;
  }
}
