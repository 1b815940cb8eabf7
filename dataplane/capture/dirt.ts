/**
 * What of one disk is not safely in the vault.
 *
 *   dirty        written since it was last sent
 *   on its way   taken off the dirty set to be read and sent; saved as dirty, since only this process knows how far it got
 *   sent         sent since the last barrier
 *   barriers     sent before a barrier that is not known to be uploaded, each with what came since the one before
 *
 * Once a barrier is uploaded, what was sent before it can be forgotten. Should the process server lose what it had not uploaded, all of the
 * rest is dirty again: a re-send, never a resync.
 */
import { LeafBitmap } from './bitmap.ts';

/** Barriers told apart; where uploads are further behind, the newest of them count as one. */
const BARRIERS_MAX = 4;

interface SentBarrier {
  lsn: bigint;
  blocks: LeafBitmap;
}

export class Dirt {
  readonly dirty: LeafBitmap;
  readonly #sizeBytes: number;
  readonly #onItsWay: LeafBitmap;
  #sent: LeafBitmap;
  /** Oldest first. */
  #barriers: SentBarrier[] = [];
  /** Sent since the last barrier, whatever the vault has of it. Not saved: it only keeps passes from sending twice. */
  readonly #sinceBarrier: LeafBitmap;

  constructor(options: { sizeBytes: number }) {
    this.#sizeBytes = options.sizeBytes;
    this.dirty = new LeafBitmap(options);
    this.#onItsWay = new LeafBitmap(options);
    this.#sent = new LeafBitmap(options);
    this.#sinceBarrier = new LeafBitmap(options);
  }

  /** Blocks that would have to be sent again if the process server lost its cache now. */
  get sentBlocks(): number {
    return this.#barriers.reduce((sum, { blocks }) => sum + blocks.size, this.#sent.size);
  }

  /** What was sent since the last barrier, and how much of it has to be sent once more. In blocks. */
  get sentEarly(): { blocks: number; again: number } {
    const early = this.#sinceBarrier;
    return { blocks: early.size, again: early.sizeWith(this.dirty) };
  }

  /** All that is known to have been written to the leaf is in the vault, behind a barrier. */
  isClean(leaf: number): boolean {
    const sets = [this.dirty, this.#onItsWay, this.#sent];
    return [...sets, ...this.#barriers.map(({ blocks }) => blocks)].every(
      (blocks) => blocks.mask(leaf) === 0,
    );
  }

  /**
   * Dirty leaves with anything that was not sent since the last barrier, and all that is dirty of them: they are read whole anyway. What
   * was sent and written again may be written once more before the next barrier.
   */
  *unsentLeaves(): Generator<[leaf: number, mask: number]> {
    for (const [leaf, mask] of this.dirty.leaves())
      if ((mask & ~this.#sinceBarrier.mask(leaf)) !== 0) yield [leaf, mask];
  }

  /** Off the dirty set, before it is read: what is written from here on makes it dirty again. */
  take(leaf: number, mask: number): void {
    this.dirty.remove(leaf, mask);
    this.#onItsWay.add(leaf, mask);
  }

  /** About to be sent, dirty or not. */
  carry(leaf: number, mask: number): void {
    this.#onItsWay.add(leaf, mask);
  }

  /** It was not sent. */
  giveBack(leaf: number, mask: number): void {
    this.#onItsWay.remove(leaf, mask);
    this.dirty.add(leaf, mask);
  }

  markSent(leaf: number, mask: number): void {
    this.#onItsWay.remove(leaf, mask);
    this.#sent.add(leaf, mask);
    this.#sinceBarrier.add(leaf, mask);
  }

  /** A barrier was given this LSN; all that was sent so far went before it, and nothing else was yet. */
  barrierSent(lsn: bigint): void {
    this.#sinceBarrier.clear();
    const last = this.#barriers.at(-1);
    if (last !== undefined && this.#barriers.length === BARRIERS_MAX) {
      last.blocks.addAll(this.#sent);
      last.lsn = lsn;
    } else this.#barriers.push({ lsn, blocks: this.#sent });
    this.#sent = new LeafBitmap({ sizeBytes: this.#sizeBytes });
  }

  /** Everything up to this barrier is durable in the vault. */
  barrierUploaded(uploadedLsn: bigint): void {
    this.#barriers = this.#barriers.filter(({ lsn }) => lsn > uploadedLsn);
  }

  /** A barrier that carried everything sent so far is durable in the vault. */
  allUploaded(): void {
    this.#forgetSent();
  }

  /** What was sent but not uploaded may be gone. */
  sendAgain(): void {
    this.dirty.addAll(this.#onItsWay);
    this.dirty.addAll(this.#sent);
    for (const { blocks } of this.#barriers) this.dirty.addAll(blocks);
    this.#forgetSent();
  }

  /** A resync begins: it looks at every leaf, so nothing needs to be remembered. */
  forget(): void {
    this.dirty.clear();
    this.#onItsWay.clear();
    this.#forgetSent();
  }

  #forgetSent(): void {
    this.#sent.clear();
    this.#barriers = [];
    this.#sinceBarrier.clear();
  }

  /** What was sent before barriers is saved as sent before the newest of them: `mark`, 0 where there is none. */
  serialise(): { mark: bigint; dirty: Uint8Array; sent: Uint8Array; sentBefore: Uint8Array } {
    const dirty = new LeafBitmap({ sizeBytes: this.#sizeBytes });
    dirty.addAll(this.dirty);
    dirty.addAll(this.#onItsWay);
    const sentBefore = new LeafBitmap({ sizeBytes: this.#sizeBytes });
    for (const { blocks } of this.#barriers) sentBefore.addAll(blocks);
    return {
      mark: this.#barriers.at(-1)?.lsn ?? 0n,
      dirty: dirty.serialise(),
      sent: this.#sent.serialise(),
      sentBefore: sentBefore.serialise(),
    };
  }

  /** Throws FarshoreError BitmapInvalid. */
  restore(saved: ReturnType<Dirt['serialise']>): void {
    this.dirty.addSerialised(saved.dirty);
    this.#sent.addSerialised(saved.sent);
    const blocks = new LeafBitmap({ sizeBytes: this.#sizeBytes });
    blocks.addSerialised(saved.sentBefore);
    this.#barriers = saved.mark === 0n ? [] : [{ lsn: saved.mark, blocks }];
  }
}
