/** What a process server knows of a machine's leaves: the real tables, over a disk in memory, without journal or vault. */
import { LeafTable } from '../../dataplane/journal/leafTable.ts';
import { decodeRecord, HASH_SIZE, LEAF_SIZE, RecordKind } from '../../dataplane/journal/record.ts';
import { MemoryDisk } from './memoryDisk.ts';
import { SourceDisk } from './records.ts';

const WHOLE = 0xffff;

export interface LeafQuestion {
  disk: number;
  firstLeaf: number;
  hashes: Uint8Array;
}

export class LeafKnowledge {
  readonly #tables: ReadonlyMap<number, LeafTable>;

  private constructor(tables: ReadonlyMap<number, LeafTable>) {
    this.#tables = tables;
  }

  /** Of disks of zeros, by index. */
  static async open(
    disks: readonly { index: number; sizeBytes: number }[],
  ): Promise<LeafKnowledge> {
    const disk = new MemoryDisk();
    const tables = new Map<number, LeafTable>();
    for (const { index, sizeBytes } of disks)
      tables.set(
        index,
        await LeafTable.open({ disk, path: `disk-${index}`, sizeBytes, fresh: true }),
      );
    return new LeafKnowledge(tables);
  }

  /** Of one disk as it is now, all of it in the vault. */
  static async of(bytes: Uint8Array): Promise<LeafKnowledge> {
    const source = new SourceDisk({ index: 0, sizeBytes: bytes.length });
    source.bytes.set(bytes);
    const knowledge = await LeafKnowledge.open([{ index: 0, sizeBytes: bytes.length }]);
    for (let leaf = 0; leaf * LEAF_SIZE < bytes.length; leaf += 1)
      knowledge.take(source.record(leaf));
    knowledge.uploaded();
    return knowledge;
  }

  take(records: Uint8Array): void {
    for (let offset = 0; offset < records.length; ) {
      const { record, next } = decodeRecord(records, offset);
      offset = next;
      if (record.kind !== RecordKind.Data) continue;
      // A copy: the batch's memory is used again.
      const leafHash = Uint8Array.from(record.leafHash);
      this.#tables.get(record.disk)?.set(record.leaf, leafHash, record.blockMask === WHOLE);
      this.#tables.get(record.disk)?.setPending(record.leaf);
    }
  }

  barrier(): void {
    for (const table of this.#tables.values()) table.settleAll();
  }

  uploaded(): void {
    for (const table of this.#tables.values()) table.clearPending('all');
  }

  /** Rejects as a journal does when the leaves are not on the disk. */
  async ask({ disk, firstLeaf, hashes }: LeafQuestion): Promise<Uint8Array> {
    const table = this.#tables.get(disk);
    if (table === undefined || firstLeaf + hashes.length / HASH_SIZE > table.leaves)
      throw new Error(`no leaf ${firstLeaf} on disk ${disk}`);
    return await table.ask(firstLeaf, hashes);
  }
}
