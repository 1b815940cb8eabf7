/**
 * Buffers that agents read disks into, taken up again by the runs that follow in the same process: new ones each time, of up to 64 MiB,
 * would keep the collector busy. What a run left in them is wiped, so that no run can tell what ran before.
 */

/**
 * Of a size, handed out in turn, for an agent does one thing at a time: a pass holds two, a barrier five, a resync six; and only one
 * barrier is under way.
 */
const KEPT = 8;
const KEPT_OF_LARGE = 1;
const LARGE = 32 << 20;

const free = new Map<number, Uint8Array[]>();

export class ReadBuffers {
  readonly #rings = new Map<number, { ring: Uint8Array[]; next: number }>();
  /** How far each was written. */
  readonly #used = new Map<ArrayBufferLike, number>();

  take(size: number): Uint8Array {
    let kept = this.#rings.get(size);
    if (kept === undefined) {
      kept = { ring: [], next: 0 };
      this.#rings.set(size, kept);
    }
    if (kept.ring.length < (size > LARGE ? KEPT_OF_LARGE : KEPT)) {
      const made = free.get(size)?.pop() ?? new Uint8Array(size);
      kept.ring.push(made);
      return made;
    }
    kept.next = (kept.next + 1) % kept.ring.length;
    return kept.ring[kept.next] as Uint8Array;
  }

  /** Somebody wrote into a part of one. */
  wrote(part: Uint8Array): void {
    const end = part.byteOffset + part.byteLength;
    if (end > (this.#used.get(part.buffer) ?? 0)) this.#used.set(part.buffer, end);
  }

  /** The run is over: nothing of it reads or writes any more. */
  release(): void {
    for (const [size, { ring }] of this.#rings) {
      for (const buffer of ring) buffer.fill(0, 0, this.#used.get(buffer.buffer) ?? 0);
      free.set(size, [...(free.get(size) ?? []), ...ring]);
    }
    this.#rings.clear();
    this.#used.clear();
  }
}
