/**
 * A machine's journal as the replica reads it: whole segments, each proven to follow the one before, and what still waits behind them.
 */
import type { ObjectStore } from '../../platform/ports.ts';
import type { Lsn, ReplicaState } from '../../vault/documents.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { decodeRecord, type JournalRecord } from './record.ts';
import { damaged, decodeSegmentHeader, SEGMENT_HEADER_MAX, type SegmentHeader } from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { fetchSegment, type SegmentBatch } from './segmentReader.ts';

/** A segment that follows the one before it, decrypted. At most 64 MiB of records. */
export interface JournalSegment {
  seq: number;
  /** SHA-256 of the object, hex. */
  digest: string;
  header: SegmentHeader;
  /** The records after the LSN that reading began at. Views into the segment's memory. */
  records(): Generator<{ lsn: Lsn; record: JournalRecord }>;
}

/** What lies behind a position, by one listing. */
export interface JournalBacklog {
  /** The position's own when nothing waits. */
  lastSeq: number;
  bytes: number;
  /** Object size by sequence number. */
  sizes: ReadonlyMap<number, number>;
}

export class ReplicaJournal {
  readonly #objects: ObjectStore;
  readonly #machineId: string;
  readonly #dataKey: Uint8Array;
  readonly #codec: SegmentCodec;

  constructor(options: {
    objects: ObjectStore;
    machineId: string;
    /** 32 bytes. */
    dataKey: Uint8Array;
    codec: SegmentCodec;
  }) {
    this.#objects = options.objects;
    this.#machineId = options.machineId;
    this.#dataKey = options.dataKey;
    this.#codec = options.codec;
  }

  /**
   * The segments with records after `applied`, in order, until there is no next one. The next is fetched while one is worked on.
   * Throws SegmentError for one that is damaged or does not follow its predecessor.
   */
  async *segments(
    applied: ReplicaState['applied'],
    signal?: AbortSignal,
  ): AsyncGenerator<JournalSegment> {
    let position = applied;
    let next = this.#first(position, signal);
    for (;;) {
      const segment = await next;
      if (segment === undefined) return;
      position = {
        lsn: segment.header.lastLsn,
        seq: segment.seq,
        digest: segment.digest,
      };
      next = this.#following(position, signal);
      // Whoever stops reading early never awaits it.
      next.catch(() => {});
      yield segment;
    }
  }

  /** Segments after `seq`. */
  async backlog(seq: number): Promise<JournalBacklog> {
    const sizes = new Map<number, number>();
    let bytes = 0;
    for await (const object of this.#after(seq)) {
      sizes.set(object.seq, object.size);
      bytes += object.size;
    }
    return { lastSeq: seq + sizes.size, bytes, sizes };
  }

  /** How many barriers up to `until` the segments after `seq` hold, counted to `limit` at most. By their headers alone: an estimate. */
  async barriersAfter(seq: number, options: { limit: number; until?: Lsn }): Promise<number> {
    let count = 0;
    for await (const { key } of this.#after(seq)) {
      const header = await this.#header(key);
      if (header === undefined) break;
      count += header.barriers.filter(
        ({ lsn }) => options.until === undefined || lsn <= options.until,
      ).length;
      const past = options.until !== undefined && header.lastLsn >= options.until;
      if (count >= options.limit || past) break;
    }
    return Math.min(count, options.limit);
  }

  async *#after(seq: number): AsyncGenerator<{ key: string; seq: number; size: number }> {
    const startAfter = seq < 0 ? undefined : vaultLayout.segment(this.#machineId, seq);
    const prefix = vaultLayout.journalPrefix(this.#machineId);
    for await (const { key, size } of this.#objects.list(
      prefix,
      startAfter ? { startAfter } : {},
    )) {
      const found = sequenceOfSegmentKey(key);
      if (found !== undefined) yield { key, seq: found, size };
    }
  }

  /** The rest of the segment that holds the position, or the one after it. */
  async #first(
    applied: ReplicaState['applied'],
    signal: AbortSignal | undefined,
  ): Promise<JournalSegment | undefined> {
    if (applied.seq >= 0) {
      const key = vaultLayout.segment(this.#machineId, applied.seq);
      const header = await this.#header(key);
      if (header === undefined) throw damaged(key, 'the replica was made from it and it is gone');
      if (header.lastLsn > applied.lsn) {
        const segment = await this.#read(applied.seq, applied.lsn, signal);
        if (segment?.digest !== applied.digest)
          throw damaged(key, 'it is not the one that the replica was made from');
        return segment;
      }
    }
    return await this.#following(applied, signal);
  }

  async #following(
    position: ReplicaState['applied'],
    signal: AbortSignal | undefined,
  ): Promise<JournalSegment | undefined> {
    const segment = await this.#read(position.seq + 1, position.lsn, signal);
    if (segment === undefined) return undefined;
    const { header } = segment;
    const key = vaultLayout.segment(this.#machineId, segment.seq);
    if (header.previousDigest !== position.digest)
      throw damaged(key, 'it does not follow the segment before it');
    if (header.firstLsn !== position.lsn + 1n)
      throw damaged(key, `it begins at LSN ${header.firstLsn}, after LSN ${position.lsn}`);
    return segment;
  }

  async #read(
    seq: number,
    after: Lsn,
    signal: AbortSignal | undefined,
  ): Promise<JournalSegment | undefined> {
    const key = vaultLayout.segment(this.#machineId, seq);
    const reader = await fetchSegment(this.#objects, key, signal ? { signal } : {});
    if (reader === undefined) return undefined;
    const { header } = reader;
    if (header.machineId !== this.#machineId || header.seq !== seq)
      throw damaged(key, `it is segment ${header.seq} of machine ${header.machineId}`);
    const batches: SegmentBatch[] = [];
    for await (const batch of reader.batches({ dataKey: this.#dataKey, codec: this.#codec }))
      batches.push(batch);
    const digest = await reader.digest();
    return { seq, digest, header, records: () => recordsOf(batches, after) };
  }

  async #header(key: string): Promise<SegmentHeader | undefined> {
    const stored = await this.#objects.get(key, { offset: 0, length: SEGMENT_HEADER_MAX });
    return stored && decodeSegmentHeader(stored.body, key);
  }
}

function* recordsOf(
  batches: readonly SegmentBatch[],
  after: Lsn,
): Generator<{ lsn: Lsn; record: JournalRecord }> {
  for (const { firstLsn, records } of batches) {
    let lsn = firstLsn;
    for (let offset = 0; offset < records.length; lsn += 1n) {
      const { record, next } = decodeRecord(records, offset);
      if (lsn > after) yield { lsn, record };
      offset = next;
    }
  }
}
