/** What a machine's journal in the vault tells when all is over: barriers, resyncs, bytes, and how old the newest barrier was when. */
import { CHAIN_START, Chain } from '../../dataplane/journal/chain.ts';
import { decodeRecord, popcount16, RecordKind } from '../../dataplane/journal/record.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import { vaultLayout } from '../../vault/layout.ts';

const BLOCK_BYTES = 4096;

export interface JournalBarrier {
  lsn: bigint;
  timeMs: number;
  /** When it became durable in the vault; the storage account tells whole seconds. */
  durableMs: number;
  writerEpoch: number;
  /** Bytes of blocks since the barrier before it, or since the writer's first record. */
  blockBytes: number;
  roots: ReadonlyMap<number, string>;
}

export interface Journal {
  barriers: JournalBarrier[];
  resyncs: { reason: string; durableMs: number }[];
  /** All records, as they were sent. */
  bytes: number;
}

/** Throws ChainError for a journal that is not one unbroken sequence. */
export async function readJournal(
  objects: ObjectStore,
  machine: { machineId: string; dataKey: Uint8Array },
): Promise<Journal> {
  const journal: Journal = { barriers: [], resyncs: [], bytes: 0 };
  const durable = new Map<string, number>();
  for await (const { key, lastModified } of objects.list(
    vaultLayout.journalPrefix(machine.machineId),
  ))
    durable.set(key, lastModified);
  let blockBytes = 0;
  let epoch = 0;
  for await (const segment of new Chain({ objects, codec: inlineCodec }, machine).segments(
    CHAIN_START,
  )) {
    const { writerEpoch } = segment.header;
    if (writerEpoch > epoch) blockBytes = 0;
    epoch = writerEpoch;
    const durableMs = durable.get(segment.name) ?? 0;
    for await (const { records, firstLsn } of segment.batches()) {
      let lsn = firstLsn;
      for (let offset = 0; offset < records.length; lsn += 1n) {
        const { record, next } = decodeRecord(records, offset);
        journal.bytes += next - offset;
        offset = next;
        if (record.kind === RecordKind.Data)
          blockBytes += popcount16(record.blockMask) * BLOCK_BYTES;
        else if (record.kind === RecordKind.ResyncBegin)
          journal.resyncs.push({ reason: record.reason, durableMs });
        else if (record.kind === RecordKind.Barrier) {
          const { timeMs, disks } = record.barrier;
          const roots = new Map(disks.map((disk) => [disk.index, disk.root]));
          journal.barriers.push({ lsn, timeMs, durableMs, writerEpoch, blockBytes, roots });
          blockBytes = 0;
        }
      }
    }
  }
  return journal;
}

/** The RPO at each whole second of the time, s: how old the newest barrier in the vault was. */
export function rpoSamples(
  barriers: readonly Pick<JournalBarrier, 'timeMs' | 'durableMs'>[],
  span: { fromMs: number; toMs: number },
): number[] {
  const samples: number[] = [];
  let next = 0;
  let newestMs: number | undefined;
  for (let nowMs = span.fromMs; nowMs <= span.toMs; nowMs += 1000) {
    for (; (barriers[next]?.durableMs ?? Number.POSITIVE_INFINITY) <= nowMs; next += 1)
      newestMs = Math.max(newestMs ?? 0, barriers[next]?.timeMs ?? 0);
    if (newestMs !== undefined) samples.push((nowMs - newestMs) / 1000);
  }
  return samples;
}

/** Of any numbers; `share` from 0 to 1. Undefined of none. */
export function percentile(numbers: readonly number[], share: number): number | undefined {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

export interface Resent {
  /** Bytes of blocks that the new writer's first barrier holds. */
  sentBytes: number;
  fromMs: number;
  toMs: number;
}

/** An agent that is not told within this, because its process server is lost first, sends what belongs to that barrier again. */
const TOLD_WITHIN_MS = 10_000;

/**
 * What the first barrier under an epoch cost, and since which barrier the machine wrote that: the last one of which the agent can have
 * been told, when the former owner was struck.
 */
export function resentUnder(
  journal: Pick<Journal, 'barriers'>,
  { writerEpoch, struckMs }: { writerEpoch: number; struckMs: number },
): Resent | undefined {
  const index = journal.barriers.findIndex((one) => one.writerEpoch === writerEpoch);
  const first = journal.barriers[index];
  const told = journal.barriers
    .slice(0, Math.max(0, index))
    .findLast(({ durableMs }) => durableMs <= struckMs - TOLD_WITHIN_MS);
  if (told === undefined || first === undefined) return undefined;
  return { sentBytes: first.blockBytes, fromMs: told.timeMs, toMs: first.timeMs };
}
