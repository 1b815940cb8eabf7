import { LeafAnswer } from '../../dataplane/journal/leafTable.ts';
import type { MachineJournal } from '../../dataplane/journal/machineJournal.ts';
import type { Barrier } from '../../dataplane/journal/record.ts';
import { decodeRecord, LEAF_SIZE, RecordKind } from '../../dataplane/journal/record.ts';
import { rootOf, until } from './journalWorld.ts';
import { applyRecord, joined, resyncBegin, resyncEnd, SourceDisk } from './records.ts';
import { SeededRandom } from './seededRandom.ts';

/** A machine with one disk and an agent that keeps the rules: dirt is forgotten when the barrier that carried it is uploaded. */
export class SourceAgent {
  readonly source: SourceDisk;
  acknowledgedLsn = 0n;
  acknowledgedBarrierLsn = 0n;
  resyncAcknowledged = false;
  /** What the acknowledged records make of an empty disk. */
  readonly acknowledged: Uint8Array;
  /** Blocks of records that nobody acknowledged: they may be journaled or not. */
  #unanswered = new Set<number>();
  #nextLsn = 1n;
  /** Rises with every change of what it knows. */
  changes = 0;
  readonly #random: SeededRandom;
  /** Blocks (leaf → mask) written since they were last sent, and sent since the last uploaded barrier. */
  #dirty = new Map<number, number>();
  #sent = new Map<number, number>();
  #journal: MachineJournal | undefined;

  /** `writes`: pairs of blocks that are written before anybody looks. */
  constructor(seed: number, sizeBytes: number, options: { writes: number } = { writes: 6 }) {
    this.source = new SourceDisk({ index: 0, sizeBytes });
    this.acknowledged = new Uint8Array(sizeBytes);
    this.#random = new SeededRandom(seed);
    this.scribble(options.writes);
  }

  /** The same agent at this moment, connected to nothing. */
  copy(): SourceAgent {
    const copy = new SourceAgent(1, this.source.bytes.length, { writes: 0 });
    copy.source.bytes.set(this.source.bytes);
    copy.acknowledged.set(this.acknowledged);
    copy.acknowledgedLsn = this.acknowledgedLsn;
    copy.acknowledgedBarrierLsn = this.acknowledgedBarrierLsn;
    copy.resyncAcknowledged = this.resyncAcknowledged;
    copy.#unanswered = new Set(this.#unanswered);
    copy.#dirty = new Map(this.#dirty);
    copy.#sent = new Map(this.#sent);
    return copy;
  }

  /** All that can make a difference later on, piece by piece. */
  *essence(): Generator<string | Uint8Array> {
    yield `${this.acknowledgedLsn} ${this.acknowledgedBarrierLsn} ${this.resyncAcknowledged}`;
    yield [...this.#unanswered].join();
    yield [...this.#dirty].join();
    yield [...this.#sent].join();
    yield this.source.bytes;
    yield this.acknowledged;
  }

  get #leaves(): number {
    return Math.ceil(this.source.bytes.length / LEAF_SIZE);
  }

  /** What was sent and not proven uploaded is dirty again. */
  connect(journal: MachineJournal): void {
    this.#journal = journal;
    this.changes += 1;
    this.#nextLsn = journal.positions().journaledLsn + 1n;
    for (const [leaf, mask] of this.#sent) this.mark(leaf, mask);
    this.#sent.clear();
  }

  /** Writes pairs of blocks at random. */
  scribble(writes: number): void {
    const { bytes } = this.source;
    for (let i = 0; i < writes; i++) {
      const first = this.#random.below(bytes.length / 4096 - 1);
      const value = this.#random.chance(0.2) ? 0 : 1 + this.#random.below(255);
      bytes.fill(value, first * 4096, (first + 2) * 4096);
      for (const block of [first, first + 1]) this.mark(Math.floor(block / 16), 1 << (block % 16));
    }
  }

  /** Writes the ends of one block, so that its record has few bytes that are not zero. */
  write(block: number, value: number): void {
    this.source.bytes[block * 4096] = value;
    this.source.bytes[block * 4096 + 4095] = value;
    this.mark(Math.floor(block / 16), 1 << (block % 16));
  }

  /** Welcome said this: it counts as acknowledged from now on. */
  believe(journal: MachineJournal): void {
    const { journaledLsn, lastBarrierLsn } = journal.positions();
    this.changes += 1;
    if (journaledLsn > this.acknowledgedLsn) this.acknowledgedLsn = journaledLsn;
    if (lastBarrierLsn > this.acknowledgedBarrierLsn) this.acknowledgedBarrierLsn = lastBarrierLsn;
  }

  /** Blocks that a disk does not hold as the acknowledged records made them. */
  lostOn(disk: Uint8Array): number[] {
    const lost: number[] = [];
    for (let block = 0; block * 4096 < disk.length; block++) {
      const [from, to] = [block * 4096, (block + 1) * 4096];
      const same = Buffer.compare(disk.subarray(from, to), this.acknowledged.subarray(from, to));
      if (same !== 0 && !this.#unanswered.has(block)) lost.push(block);
    }
    return lost;
  }

  root(): string {
    return rootOf(this.source.bytes);
  }

  async resyncIfRequired(): Promise<void> {
    const journal = this.#current();
    if (!journal.resync().required) return;
    await this.#append([resyncBegin('Initial')]);
    const hashes = joined(
      ...Array.from({ length: this.#leaves }, (_, leaf) => this.source.leafHash(leaf)),
    );
    const answers = await journal.ask({ disk: 0, firstLeaf: 0, hashes });
    const differing = [...answers.entries()].filter(([, code]) => code === LeafAnswer.Differs);
    for (const [leaf] of differing) {
      await this.#append([this.source.record(leaf)]);
      this.#dirty.delete(leaf);
      this.#sent.set(leaf, 0xffff);
    }
    await this.#append([resyncEnd()]);
    this.resyncAcknowledged = true;
    this.changes += 1;
  }

  /** A pass whose batches are on their way at the same time. */
  async sendDirtyAtOnce(): Promise<void> {
    const appends: Promise<void>[] = [];
    for (const [leaf, mask] of this.#dirty) {
      this.#sent.set(leaf, (this.#sent.get(leaf) ?? 0) | mask);
      for (let block = 0; block < 16; block++)
        if ((mask & (1 << block)) !== 0)
          appends.push(this.#append([this.source.record(leaf, 1 << block)]));
    }
    this.#dirty.clear();
    await Promise.all(appends);
  }

  /** A pass, block by block: the hash that goes with the first one covers others that are still to come. */
  async sendDirty(): Promise<void> {
    for (const [leaf, mask] of [...this.#dirty].sort(([a], [b]) => a - b)) {
      this.#dirty.delete(leaf);
      this.#sent.set(leaf, (this.#sent.get(leaf) ?? 0) | mask);
      for (let block = 0; block < 16; block++)
        if ((mask & (1 << block)) !== 0) await this.#append([this.source.record(leaf, 1 << block)]);
    }
  }

  async barrier(
    consistency: 'Crash' | 'App' = 'Crash',
    options: { timeMs: number } = { timeMs: 1_000_000 },
  ): Promise<Barrier> {
    await this.sendDirty();
    const journal = this.#current();
    const lsn = this.#nextLsn;
    this.#nextLsn += 1n;
    const barrier = await journal.barrier({
      lsn,
      timeMs: options.timeMs,
      consistency,
      disks: [{ index: 0, sizeBytes: this.source.bytes.length }],
      freezeMs: 3,
    });
    this.acknowledgedLsn = lsn;
    this.changes += 1;
    this.acknowledgedBarrierLsn = lsn;
    return barrier;
  }

  /** Waits until all is in the vault, and forgets the dirt that it carried. */
  async uploaded(): Promise<void> {
    const journal = this.#current();
    await until(() => journal.positions().uploadedLsn === journal.positions().journaledLsn);
    this.#sent.clear();
    this.changes += 1;
  }

  /**
   * Which leaves the process server says need not be sent. Of those, `journal` must hold what the source holds: compare with a replay.
   */
  async sameLeaves(): Promise<number[]> {
    const hashes = joined(
      ...Array.from({ length: this.#leaves }, (_, leaf) => this.source.leafHash(leaf)),
    );
    const answers = await this.#current().ask({ disk: 0, firstLeaf: 0, hashes });
    return [...answers.entries()]
      .filter(([, code]) => code !== LeafAnswer.Differs)
      .map(([leaf]) => leaf);
  }

  async #append(records: Uint8Array[]): Promise<void> {
    const firstLsn = this.#nextLsn;
    this.#nextLsn += BigInt(records.length);
    const blocks = records.flatMap(blocksOf);
    for (const block of blocks) this.#unanswered.add(block);
    this.changes += 1;
    const batch = { firstLsn, count: records.length, records: joined(...records) };
    await this.#current().append(batch);
    this.acknowledgedLsn = firstLsn + BigInt(records.length) - 1n;
    for (const bytes of records)
      applyRecord(decodeRecord(bytes, 0).record, new Map([[0, this.acknowledged]]));
    for (const block of blocks) this.#unanswered.delete(block);
    this.changes += 1;
  }

  /** Blocks were written past `scribble`. */
  mark(leaf: number, mask: number): void {
    this.changes += 1;
    this.#dirty.set(leaf, (this.#dirty.get(leaf) ?? 0) | mask);
  }

  #current(): MachineJournal {
    if (this.#journal === undefined) throw new Error('not connected');
    return this.#journal;
  }
}

function blocksOf(bytes: Uint8Array): number[] {
  const { record } = decodeRecord(bytes, 0);
  if (record.kind !== RecordKind.Data) return [];
  const { leaf, blockMask } = record;
  return Array.from({ length: 16 }, (_, block) => block)
    .filter((block) => (blockMask & (1 << block)) !== 0)
    .map((block) => leaf * 16 + block);
}
