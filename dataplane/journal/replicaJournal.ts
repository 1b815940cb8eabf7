/**
 * A machine's journal as the replica reads it: whole segments, each proven to follow the one before, and what still waits behind them.
 */
import type { ObjectInfo, ObjectStore } from '../../platform/ports.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { CHAIN_START, Chain, type ChainPosition, type ChainSegment, positionOf } from './chain.ts';
import { decodeRecord, type JournalRecord } from './record.ts';
import {
  damaged,
  decodeSegmentHeader,
  removedMeanwhile,
  SEGMENT_HEADER_MAX,
  type SegmentHeader,
} from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { fetchSegment, type SegmentBatch } from './segmentReader.ts';

const LOOKS_PER_LISTING = 30;

/** A segment that follows the one before it, decrypted. At most 64 MiB of records. */
export interface JournalSegment {
  seq: number;
  /** SHA-256 of the object, hex. */
  digest: string;
  header: SegmentHeader;
  end: ChainPosition;
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
  readonly #chain: Chain;
  /** After the last segment that was read to its end here: saves looking at it again. */
  #end: ChainPosition | undefined;
  #looks = 0;

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
    this.#chain = new Chain(options, options);
  }

  /**
   * The segments with records after `applied`, in order, until there is no next one. The next one, and no further, is
   * read while one is worked on.
   * Throws ChainError or SegmentError for one that is damaged or does not follow its predecessor, StoreError.
   */
  async *segments(
    applied: ReplicaState['applied'],
    signal?: AbortSignal,
  ): AsyncGenerator<JournalSegment> {
    const options = signal === undefined ? {} : { signal };
    const begin = await this.#begin(applied, options);
    if (begin.rest !== undefined) yield begin.rest;
    const chain = this.#chain.segments(begin.after, options);
    const fetchNext = async () => {
      const { value } = await chain.next();
      return value === undefined ? undefined : await this.#readAll(value, applied.lsn);
    };
    let next = fetchNext();
    try {
      for (let segment = await next; segment !== undefined; segment = await next) {
        this.#end = segment.end;
        next = fetchNext();
        // It may fail while the reader is still at work on this one.
        next.catch(() => {});
        yield segment;
      }
    } finally {
      await Promise.allSettled([next]);
    }
  }

  /**
   * A cheap look (one read, no listing) at whether anything follows. `true` only when it is sure; listings, which cost more, are left
   * to every thirtieth look, so that a gap is found too.
   */
  async nothingFollows(applied: ReplicaState['applied']): Promise<boolean> {
    if (!this.#endsAt(applied)) return false;
    this.#looks += 1;
    if (this.#looks % LOOKS_PER_LISTING === 0) return false;
    const next = vaultLayout.segment(this.#machineId, applied.seq + 1);
    return (await this.#objects.head(next)) === undefined;
  }

  /** Segments after `seq`. */
  async backlog(seq: number): Promise<JournalBacklog> {
    return await journalBacklog(this.#objects, { machineId: this.#machineId, seq });
  }

  /** How many barriers up to `until` the segments after `seq` hold, counted to `limit` at most. By their headers alone: an estimate. */
  async barriersAfter(seq: number, options: { limit: number; until?: Lsn }): Promise<number> {
    let count = 0;
    const machineId = this.#machineId;
    for await (const { key } of segmentsAfter(this.#objects, { machineId, seq })) {
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

  #endsAt(applied: ReplicaState['applied']): boolean {
    const end = this.#end;
    return end?.seq === applied.seq && end.digest === applied.digest && end.lsn === applied.lsn;
  }

  /** Where the chain goes on, and before that what is left of the segment that holds the position. */
  async #begin(
    applied: ReplicaState['applied'],
    options: { signal?: AbortSignal },
  ): Promise<{ rest?: JournalSegment; after: ChainPosition }> {
    if (applied.seq < 0) return { after: CHAIN_START };
    if (this.#end !== undefined && this.#endsAt(applied)) return { after: this.#end };
    const key = vaultLayout.segment(this.#machineId, applied.seq);
    const header = await this.#header(key);
    if (header === undefined) throw damaged(key, 'the replica was made from it, and it is gone');
    if (header.lastLsn <= applied.lsn) return { after: positionOf(header, applied.digest) };
    const reader = await fetchSegment(this.#objects, key, options);
    if (reader === undefined) throw removedMeanwhile(key);
    const codec = { dataKey: this.#dataKey, codec: this.#codec };
    const rest = await this.#readAll(
      {
        name: key,
        header: reader.header,
        batches: () => reader.batches(codec),
        position: async () => positionOf(reader.header, await reader.digest()),
      },
      applied.lsn,
    );
    if (rest.digest !== applied.digest)
      throw damaged(key, 'it is not the one that the replica was made from');
    return { rest, after: rest.end };
  }

  async #readAll(segment: ChainSegment, after: Lsn): Promise<JournalSegment> {
    const batches: SegmentBatch[] = [];
    for await (const batch of segment.batches()) batches.push(batch);
    const end = await segment.position();
    return {
      seq: end.seq,
      digest: end.digest,
      header: segment.header,
      end,
      records: () => recordsOf(batches, after),
    };
  }

  async #header(key: string): Promise<SegmentHeader | undefined> {
    const stored = await this.#objects.get(key, { offset: 0, length: SEGMENT_HEADER_MAX });
    return stored && decodeSegmentHeader(stored.body, key);
  }
}

/** Segments after `seq`, by one listing. */
export async function journalBacklog(
  objects: ObjectStore,
  after: { machineId: string; seq: number },
): Promise<JournalBacklog> {
  const sizes = new Map<number, number>();
  let bytes = 0;
  for await (const segment of segmentsAfter(objects, after)) {
    sizes.set(segment.seq, segment.size);
    bytes += segment.size;
  }
  return { lastSeq: after.seq + sizes.size, bytes, sizes };
}

/** The segments that are there after `seq`, in order; −1 for all. */
export async function* segmentsAfter(
  objects: ObjectStore,
  after: { machineId: string; seq: number },
): AsyncGenerator<ObjectInfo & { seq: number }> {
  const { machineId, seq } = after;
  const options = seq < 0 ? {} : { startAfter: vaultLayout.segment(machineId, seq) };
  for await (const info of objects.list(vaultLayout.journalPrefix(machineId), options)) {
    const found = sequenceOfSegmentKey(info.key);
    if (found !== undefined) yield { ...info, seq: found };
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
