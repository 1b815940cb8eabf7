/**
 * What a process server must remember of a machine across restarts, besides its journal: `machines/<machineId>.json` in its own
 * directory. Belongs to one cache: under another cacheId it is forgotten.
 */
import { z } from 'zod';
import { readFile, removeFile, replaceFile } from '../../platform/durableFile.ts';
import type { Disk } from '../../platform/ports.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { lsnText } from '../../vault/documents/fields.ts';

export const RECORDS_DIRECTORY = 'machines';
const RECORD_MAX = 64 << 10;

const machineRecordSchema = z.object({
  cacheId: z.string(),
  /** The agent was told of this cache and sent it data: one that names another cache went back in time. */
  hasData: z.boolean(),
  /** The last barrier of a planned failover. */
  final: z
    .object({
      failover: z.string(),
      lsn: lsnText,
      /** What the agent said once the barrier was uploaded; undefined before. */
      poweredOff: z.boolean().optional(),
    })
    .optional(),
  /** When the agent was last heard of, so that a restart does not forget it. */
  lastSeenMs: z.number().int().nonnegative().optional(),
});
export type MachineRecord = z.infer<typeof machineRecordSchema>;

/** The record, in memory and on disk. */
export class MachineMemory {
  readonly #disk: Disk;
  readonly #path: string;
  #record: MachineRecord;
  #saving: Promise<void> = Promise.resolve();

  private constructor(disk: Disk, path: string, record: MachineRecord) {
    this.#disk = disk;
    this.#path = path;
    this.#record = record;
  }

  /** Throws VaultDocumentError when the file is damaged. */
  static async load(
    disk: Disk,
    options: { machineId: string; cacheId: string },
  ): Promise<MachineMemory> {
    const path = `${RECORDS_DIRECTORY}/${options.machineId}.json`;
    const bytes = await readFile(disk, path, RECORD_MAX);
    const saved = bytes && decodeDocument(machineRecordSchema, path, bytes);
    const isOurs = saved !== undefined && saved.cacheId === options.cacheId;
    const fresh = { cacheId: options.cacheId, hasData: false };
    return new MachineMemory(disk, path, isOurs ? saved : fresh);
  }

  get record(): MachineRecord {
    return this.#record;
  }

  /** Resolves when the changes are durable. One write at a time, each with all changes so far. */
  save(changes: Partial<MachineRecord>): Promise<void> {
    this.#record = { ...this.#record, ...changes };
    const saved = this.#saving.then(() =>
      replaceFile(this.#disk, this.#path, encodeDocument(machineRecordSchema, this.#record)),
    );
    this.#saving = saved.catch(() => undefined);
    return saved;
  }

  /** Resolves when no write is under way. */
  settled(): Promise<void> {
    return this.#saving;
  }

  /** Forgets the machine. */
  async remove(): Promise<void> {
    await this.#saving;
    await removeFile(this.#disk, this.#path);
  }
}
