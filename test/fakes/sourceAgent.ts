import { LeafAnswer } from '../../dataplane/journal/leafTable.ts';
import type { MachineJournal } from '../../dataplane/journal/machineJournal.ts';
import type { Barrier } from '../../dataplane/journal/record.ts';
import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { rootOf, until } from './journalWorld.ts';
import { joined, resyncBegin, resyncEnd, SourceDisk } from './records.ts';
import { SeededRandom } from './seededRandom.ts';

/** A machine with one disk and an agent that keeps the rules: dirt is forgotten when the barrier that carried it is uploaded. */
export class SourceAgent {
  readonly source: SourceDisk;
  acknowledgedLsn = 0n;
  acknowledgedBarrierLsn = 0n;
  resyncAcknowledged = false;
  readonly #random: SeededRandom;
  /** Blocks (leaf → mask) written since they were last sent, and sent since the last uploaded barrier. */
  #dirty = new Map<number, number>();
  #sent = new Map<number, number>();
  #journal: MachineJournal | undefined;

  constructor(seed: number, sizeBytes: number) {
    this.source = new SourceDisk({ index: 0, sizeBytes });
    this.#random = new SeededRandom(seed);
    this.scribble(6);
  }

  get #leaves(): number {
    return Math.ceil(this.source.bytes.length / LEAF_SIZE);
  }

  /** What was sent and not proven uploaded is dirty again. */
  connect(journal: MachineJournal): void {
    this.#journal = journal;
    for (const [leaf, mask] of this.#sent) this.#mark(leaf, mask);
    this.#sent.clear();
  }

  /** Writes pairs of blocks at random. */
  scribble(writes: number): void {
    const { bytes } = this.source;
    for (let i = 0; i < writes; i++) {
      const first = this.#random.below(bytes.length / 4096 - 1);
      const value = this.#random.chance(0.2) ? 0 : 1 + this.#random.below(255);
      bytes.fill(value, first * 4096, (first + 2) * 4096);
      for (const block of [first, first + 1]) this.#mark(Math.floor(block / 16), 1 << (block % 16));
    }
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
    const lsn = journal.positions().journaledLsn + 1n;
    const barrier = await journal.barrier({
      lsn,
      timeMs: options.timeMs,
      consistency,
      disks: [{ index: 0, sizeBytes: this.source.bytes.length }],
      freezeMs: 3,
    });
    this.acknowledgedLsn = lsn;
    this.acknowledgedBarrierLsn = lsn;
    return barrier;
  }

  /** Waits until all is in the vault, and forgets the dirt that it carried. */
  async uploaded(): Promise<void> {
    const journal = this.#current();
    await until(() => journal.positions().uploadedLsn === journal.positions().journaledLsn);
    this.#sent.clear();
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
    const journal = this.#current();
    const firstLsn = journal.positions().journaledLsn + 1n;
    await journal.append({ firstLsn, count: records.length, records: joined(...records) });
    this.acknowledgedLsn = firstLsn + BigInt(records.length) - 1n;
  }

  #mark(leaf: number, mask: number): void {
    this.#dirty.set(leaf, (this.#dirty.get(leaf) ?? 0) | mask);
  }

  #current(): MachineJournal {
    if (this.#journal === undefined) throw new Error('not connected');
    return this.#journal;
  }
}
