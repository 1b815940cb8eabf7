/** What a process server does to its journal, in operations that a workload strings together. */
import type { Cache } from '../../dataplane/journal/cache.ts';
import type { LocalJournal } from '../../dataplane/journal/localJournal.ts';
import { JournalWorld, until } from '../fakes/journalWorld.ts';
import type { MemoryDisk } from '../fakes/memoryDisk.ts';
import type { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import type { SourceAgent } from '../fakes/sourceAgent.ts';
import { type Moment, watched } from './moment.ts';

/** A leaf, and two blocks of another. */
export const disk = { index: 0, name: 'sda', sizeBytes: 72 << 10 };
/** Files so small that nearly every batch begins one, and trimming has something to remove. */
const limits = { logFileBytes: 1000, segmentBytes: 200_000, minFreeBytes: 0 };

export const OPERATIONS = [
  /** The agent's first resync, or one that is asked for by hand. */
  'resync',
  /** One block. */
  'append',
  /** Two blocks in two batches that share a sync. */
  'pair',
  /** After the first resync, where it has not ended yet. */
  'barrier',
  /** Everything journaled is sealed and put. */
  'upload',
  /** The leaf tables are synced; log files that nobody needs any more are removed. */
  'checkpoint',
  /** The process ends in order, and the next one opens the cache. */
  'reopen',
  /** The next one opens it under a higher writer epoch. */
  'takeover',
] as const;
export type Operation = (typeof OPERATIONS)[number];

/** One process server with one machine, and what was at each moment before it changed something. */
export class Life {
  readonly #world: JournalWorld;
  readonly #disk: MemoryDisk;
  readonly #agent: SourceAgent;
  /** Told of each moment, while somebody listens. */
  onMoment: ((moment: Moment) => void) | undefined;
  #writerEpoch: number;
  #cache: Cache | undefined;
  #journal: LocalJournal | undefined;
  #calls = 0;
  #written = 0;
  /** Copies as of so many changes. */
  #kept:
    | { stored: number; objects: MemoryObjectStore; told?: number; agent?: SourceAgent }
    | undefined;

  constructor(options: {
    disk: MemoryDisk;
    objects: MemoryObjectStore | undefined;
    agent: SourceAgent;
    writerEpoch: number;
    /** Lives differ in what they draw. */
    seed: number;
    onMoment?: ((moment: Moment) => void) | undefined;
  }) {
    const { objects, seed } = options;
    this.#world = new JournalWorld({ limits, seed, ...(objects === undefined ? {} : { objects }) });
    this.#disk = options.disk;
    this.#agent = options.agent;
    this.#writerEpoch = options.writerEpoch;
    this.onMoment = options.onMoment;
  }

  get world(): JournalWorld {
    return this.#world;
  }

  get journal(): LocalJournal {
    if (this.#journal === undefined) throw new Error('no journal is open');
    return this.#journal;
  }

  async open(): Promise<void> {
    const before = (call: string) => this.#before(call);
    this.#cache = await this.#world.open({
      disk: watched(this.#disk, before),
      objects: watched(this.#world.objects, before),
    });
    const machine = this.#world.machine({ writerEpoch: this.#writerEpoch, disks: [disk] });
    this.#journal = (await this.#cache.openMachine(machine)) as LocalJournal;
    this.#agent.connect(this.#journal);
    this.#agent.believe(this.#journal);
  }

  async run(operation: Operation): Promise<void> {
    const agent = this.#agent;
    switch (operation) {
      case 'resync':
        if (agent.resyncAcknowledged) {
          agent.resyncAcknowledged = false;
          agent.changes += 1;
          await this.journal.requireResync('Manual');
        }
        return await agent.resyncIfRequired();
      case 'append':
        this.#write(1);
        return await agent.sendDirty();
      case 'pair':
        this.#write(2);
        return await agent.sendDirtyAtOnce();
      case 'barrier':
        await agent.resyncIfRequired();
        await agent.barrier();
        return;
      case 'upload':
        await this.uploadAll();
        return agent.uploaded();
      case 'checkpoint':
        await this.journal.checkpoint();
        return await this.rest();
      case 'reopen':
      case 'takeover':
        await this.#cache?.close();
        if (operation === 'takeover') this.#writerEpoch += 1;
        return await this.open();
    }
  }

  /** Everything journaled reaches the vault. Throws when it does not. */
  async uploadAll(): Promise<void> {
    const { journal } = this;
    const { clock } = this.#world;
    const { journaledLsn } = journal.positions();
    const done = () => journal.positions().uploadedLsn >= journaledLsn;
    for (let i = 0; !done() && i < 20; i++) {
      await until(() => clock.sleeping > 0 || done() || journal.fenced() !== undefined);
      if (journal.fenced() !== undefined) throw new Error('the journal is fenced');
      await clock.advance(30_000);
    }
    if (!done()) throw new Error(`uploaded ${journal.positions().uploadedLsn} of ${journaledLsn}`);
  }

  /** Until nothing changes any more by itself. */
  async rest(): Promise<void> {
    for (let quiet = 0, calls = this.#calls; quiet < 3; quiet++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (calls !== this.#calls) quiet = 0;
      calls = this.#calls;
    }
  }

  /** The moment after the last one. Nobody may change its vault and its agent. */
  now(before = 'the end'): Moment {
    const { clock } = this.#world;
    const { changes: stored } = this.#world.objects;
    const { changes: told } = this.#agent;
    if (this.#kept?.stored !== stored)
      this.#kept = { ...this.#kept, stored, objects: this.#world.objects.copy({ clock }) };
    if (this.#kept.told !== told) this.#kept = { ...this.#kept, told, agent: this.#agent.copy() };
    const { objects, agent } = this.#kept as { objects: MemoryObjectStore; agent: SourceAgent };
    return { disk: this.#disk.copy(), objects, agent, writerEpoch: this.#writerEpoch, before };
  }

  async close(): Promise<void> {
    await this.#cache?.close();
  }

  #before(call: string): void {
    this.#calls += 1;
    this.onMoment?.(this.now(call));
  }

  #write(blocks: number): void {
    for (let i = 0; i < blocks; i++) {
      this.#written += 1;
      // Never a block of the first ones, which the first resync sends.
      this.#agent.write(2 + ((this.#written * 5) % 14), this.#written);
    }
  }
}
