/** The open leaf tables of one machine, and what records, barriers and uploads do to them. */
import type { Disk } from '../../platform/ports.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { WHOLE_LEAF } from './batchCheck.ts';
import { tablePath } from './journalDisks.ts';
import { type HashPages, LeafTable } from './leafTable.ts';
import { type JournalDisk, JournalError } from './machineJournal.ts';
import { machineDirectory } from './machineState.ts';
import { type DataRecord, HASH_SIZE } from './record.ts';

export class JournalTables {
  readonly #disk: Disk;
  readonly #machineId: string;
  readonly #pages: HashPages;
  /** By index of the disk. */
  readonly #tables: Map<number, LeafTable>;
  /** What became pending after this LSN is told apart from what did before. */
  #pendingMark: Lsn | undefined;

  constructor(parts: {
    disk: Disk;
    machineId: string;
    pages: HashPages;
    tables: Map<number, LeafTable>;
  }) {
    this.#disk = parts.disk;
    this.#machineId = parts.machineId;
    this.#pages = parts.pages;
    this.#tables = parts.tables;
  }

  /** A record that is durable in the log. False when no table is concerned: replayed records may be older than a change of the disks. */
  apply(record: DataRecord): boolean {
    const table = this.#tables.get(record.disk);
    if (table === undefined || record.leaf >= table.leaves) return false;
    table.set(record.leaf, record.leafHash, record.blockMask === WHOLE_LEAF);
    return true;
  }

  setPending(record: DataRecord): void {
    this.#tables.get(record.disk)?.setPending(record.leaf);
  }

  /** At a barrier: every hash is that of a whole leaf. */
  settle(): void {
    for (const table of this.#tables.values()) table.settleAll();
  }

  /** Nothing up to `uploadedLsn` is pending any more. */
  uploaded({ uploadedLsn, appliedLsn }: { uploadedLsn: Lsn; appliedLsn: Lsn }): void {
    const all = uploadedLsn >= appliedLsn;
    const markReached = this.#pendingMark === undefined || uploadedLsn >= this.#pendingMark;
    if (!all && !markReached) return;
    for (const table of this.#tables.values()) {
      table.clearPending(all ? 'all' : 'beforeMark');
      if (!all) table.markPending();
    }
    this.#pendingMark = all ? undefined : appliedLsn;
  }

  /** Of `hashes.length / 32` leaves, one answer a byte (machineJournal.ts). Throws JournalError (RecordRefused). */
  async ask(
    disk: JournalDisk,
    question: { firstLeaf: number; hashes: Uint8Array },
  ): Promise<Uint8Array> {
    const { firstLeaf, hashes } = question;
    const table = this.#tables.get(disk.index);
    const count = hashes.length / HASH_SIZE;
    if (table === undefined || !Number.isInteger(count) || firstLeaf + count > table.leaves)
      throw new JournalError(
        'RecordRefused',
        `The question is for leaves ${firstLeaf} to ${firstLeaf + count - 1} of disk ${disk.name}, which has ${table?.leaves}.`,
      );
    return await table.ask(firstLeaf, hashes);
  }

  /** The disks of a barrier with their roots; each has a table (checkBarrierDisks). */
  async roots(
    disks: readonly { index: number; sizeBytes: number }[],
  ): Promise<{ index: number; sizeBytes: number; root: string }[]> {
    const roots = [];
    for (const { index, sizeBytes } of disks) {
      const table = this.#tables.get(index) as LeafTable;
      roots.push({ index, sizeBytes, root: await table.root() });
    }
    return roots;
  }

  /** Makes the tables those of the disks: resized, begun with zeros, removed. */
  async fit(disks: ReadonlyMap<number, JournalDisk>): Promise<void> {
    for (const { index, sizeBytes } of disks.values()) {
      const table = this.#tables.get(index);
      if (sizeBytes === 0 || table?.sizeBytes === sizeBytes) continue;
      if (table !== undefined) await table.resize(sizeBytes);
      else {
        const table = { machineId: this.#machineId, index, sizeBytes, fresh: true };
        const deps = { disk: this.#disk, hashPages: this.#pages };
        this.#tables.set(index, await openTable(deps, table));
      }
    }
    for (const [index, table] of this.#tables)
      if (!disks.has(index)) {
        await table.close();
        this.#tables.delete(index);
        await this.#disk.remove(`${tablePath(this.#machineId, index)}.leaves`);
        await this.#disk.remove(`${tablePath(this.#machineId, index)}.unsettled`);
      }
    await this.#disk.syncDirectory(machineDirectory(this.#machineId));
  }

  /** Writes pages out when too many wait in memory. */
  async relieve(): Promise<void> {
    for (const table of this.#tables.values()) await table.relieve();
  }

  async sync(): Promise<void> {
    for (const table of this.#tables.values()) await table.sync();
  }

  /** Never rejects. */
  async close(): Promise<void> {
    for (const table of this.#tables.values()) await table.close().catch(() => {});
  }
}

/** The table of one disk of a machine; a `fresh` one begins with zeros. */
export async function openTable(
  deps: { disk: Disk; hashPages: HashPages },
  table: { machineId: string; index: number; sizeBytes: number; fresh: boolean },
): Promise<LeafTable> {
  const { machineId, index, sizeBytes, fresh } = table;
  const path = tablePath(machineId, index);
  const { disk, hashPages: pages } = deps;
  return await LeafTable.open({ disk, path, sizeBytes, fresh, pages });
}
