import type { SeededRandom } from './seededRandom.ts';

const SECTOR = 512;
/** Where outcomes are chosen one by one, small writes are torn finer than at sectors: a log entry of 128 bytes too. */
const FINE = 64;
const FINE_UP_TO = 1024;

/** Decides what a crash leaves: a number from 0 up to, without, `options`. */
export interface Choices {
  choose(options: number): number;
}

/** One change since the last sync: what was there before, and what the writer put. */
interface PendingChange {
  /** A sync failed since: later ones do not make it durable any more, though it still reads back. */
  doomed: boolean;
  offset: number;
  before: Uint8Array;
  sizeBefore: number;
  after: Uint8Array;
  sizeAfter: number;
}

/** A file of MemoryDisk, whatever its names. */
export class Inode {
  bytes = new Uint8Array(0);
  size = 0;
  #pending: PendingChange[] = [];
  /** Changes that a crash cut off, of which nobody has seen yet whether they survived. */
  #undecided: PendingChange[] = [];

  change(offset: number, after: Uint8Array, sizeAfter: number): void {
    const sizeBefore = this.size;
    const before = this.bytes.slice(offset, Math.min(offset + after.length, this.bytes.length));
    this.#pending.push({
      doomed: false,
      offset,
      before,
      sizeBefore,
      // Not slice(): that of a Buffer is a view, of memory that its owner may give away.
      after: new Uint8Array(after),
      sizeAfter,
    });
    this.#apply(offset, after, sizeAfter);
  }

  /** What a failed sync leaves behind may be lost, or be there already. */
  syncFailed(): void {
    for (const change of this.#pending) change.doomed = true;
  }

  synced(): void {
    const first = this.#pending.findIndex(({ doomed }) => doomed);
    this.#pending = first < 0 ? [] : this.#pending.slice(first);
  }

  /** Everything unsynced is gone; with `torn`, what the seed keeps of it is there. */
  crash(torn: SeededRandom | undefined): void {
    const lost = this.#rollBack();
    if (torn !== undefined) for (const change of lost) this.#tear(change, torn);
  }

  /** What became of unsynced changes is open until somebody looks (`decide`). */
  crashUndecided(): void {
    this.#undecided = [...this.#undecided, ...this.#rollBack()];
  }

  /** Before anybody looks at the bytes or the size: now it is decided what the crash left. */
  decide(choices: Choices | undefined): void {
    const undecided = this.#undecided;
    this.#undecided = [];
    for (const change of undecided) this.#decideOne(change, choices ?? { choose: () => 0 });
  }

  /** Nobody will ever see what the crash left. */
  forgetUndecided(): void {
    this.#undecided = [];
  }

  copy(): Inode {
    const copy = new Inode();
    copy.bytes = this.bytes.slice(0, this.size);
    copy.size = this.size;
    copy.#pending = this.#pending.map((change) => ({ ...change }));
    copy.#undecided = this.#undecided;
    return copy;
  }

  /** All that can make a difference later on, piece by piece. */
  *essence(): Generator<string | Uint8Array> {
    yield `${this.size}`;
    yield this.bytes.subarray(0, this.size);
    for (const list of [this.#pending, this.#undecided])
      for (const { offset, sizeBefore, sizeAfter, before, after } of list) {
        yield `${offset} ${sizeBefore} ${sizeAfter}`;
        yield before;
        yield after;
      }
  }

  #apply(offset: number, bytes: Uint8Array, size: number): void {
    const needed = Math.max(size, offset + bytes.length);
    if (needed > this.bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes.set(bytes, offset);
    // What lies past the end reads as zero when the file grows again.
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
  }

  #rollBack(): PendingChange[] {
    const lost = this.#pending;
    this.#pending = [];
    for (const change of [...lost].reverse()) {
      const restored = new Uint8Array(change.after.length);
      restored.set(change.before);
      this.#apply(change.offset, restored, Math.max(change.sizeBefore, change.sizeAfter));
      this.#apply(0, new Uint8Array(0), change.sizeBefore);
    }
    return lost;
  }

  #tear(change: PendingChange, random: SeededRandom): void {
    if (random.chance(0.5)) return;
    const sectors = Math.ceil(change.after.length / SECTOR);
    const kept = random.chance(0.5)
      ? change.after.length
      : Math.min(random.below(sectors + 1) * SECTOR, change.after.length);
    const size =
      change.sizeAfter < change.sizeBefore
        ? change.sizeAfter
        : Math.max(this.size, change.offset + kept);
    const holes = sectors > 1 && random.chance(0.3);
    this.#apply(0, new Uint8Array(0), size);
    for (let at = 0; at < kept; at = holes ? at + SECTOR : kept) {
      if (holes && random.chance(0.4)) continue;
      const end = holes ? Math.min(at + SECTOR, kept) : kept;
      this.#apply(change.offset + at, change.after.subarray(at, end), size);
    }
  }

  /** Asks nothing whose answers could not be told apart. */
  #decideOne(change: PendingChange, choices: Choices): void {
    const { offset, after } = change;
    const nothing = new Uint8Array(0);
    if (change.sizeAfter < change.sizeBefore) {
      if (change.sizeAfter < this.size && choices.choose(2) === 1)
        this.#apply(0, nothing, change.sizeAfter);
      return;
    }
    const grain = after.length > FINE_UP_TO ? SECTOR : FINE;
    const pieces = Math.ceil(after.length / grain);
    const endOf = (piece: number) => Math.min((piece + 1) * grain, after.length);
    let reached = pieces;
    if (offset + after.length > this.size) {
      // Pieces within the old size do not show in the size.
      const within = Math.max(0, Math.floor((this.size - offset) / grain));
      const grown = choices.choose(pieces - within + (offset > this.size ? 2 : 1));
      reached = offset > this.size ? grown - 1 : within + grown;
      if (reached < 0) return;
      const end = reached === 0 ? offset : offset + endOf(reached - 1);
      this.#apply(0, nothing, Math.max(this.size, end));
      // What lies within the old size may have been written although the file did not grow.
      reached = Math.max(reached, within);
    }
    for (let piece = 0; piece < reached; piece++) {
      const bytes = after.subarray(piece * grain, endOf(piece));
      const at = offset + piece * grain;
      const same = Buffer.compare(bytes, this.bytes.subarray(at, at + bytes.length)) === 0;
      if (!same && choices.choose(2) === 1) this.#apply(at, bytes, this.size);
    }
  }
}
