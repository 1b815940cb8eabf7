/**
 * Trims a machine's journal: removes the segments that are past the retention and that nobody can need any more.
 *
 * Kept whatever their age: the segment of the newest recovery point and all behind it, which a recovery, an applier or a process server
 * without its cache begins at; what the replica has not applied, and the segment in which it stands; the newest segment. So a journal
 * without a point, or without a replica, is not trimmed at all. A pin holds a point's snapshots, not its journal: what a failover brings
 * up is copied from the snapshots.
 *
 * The trim mark rises first, then the segments go, oldest first. Positions of points and replicas only rise, so a limit that was right
 * once stays right, however late a trimmer acts on it; whatever a dead one left below the mark, the next one removes.
 */
import type { Logger, ObjectInfo, ObjectStore } from '../../platform/ports.ts';
import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { newestPoint } from './points.ts';
import { segmentsAfter } from './replicaJournal.ts';
import { raiseTrimMark, readTrimMark } from './trimMark.ts';

export interface TrimOptions {
  machineId: string;
  retentionMs: number;
  /** Wall clock. Ages count from the newest point where that is older, as for points. */
  nowMs: number;
  /** Where the replica stands. */
  applied: Pick<ReplicaState['applied'], 'seq'>;
  /** How many segments at most, so that one call is short. */
  limit: number;
}

export interface Trimmed {
  segments: number;
  bytes: number;
  /** It stopped at `limit`. */
  more: boolean;
}

/** Safe to repeat, to be cut short anywhere, and to run twice at the same time. Throws StoreError, VaultDocumentError. */
export async function trimJournal(
  deps: { objects: ObjectStore; logger: Logger },
  options: TrimOptions,
): Promise<Trimmed> {
  const { objects, logger } = deps;
  const { machineId } = options;
  const mark = await readTrimMark(objects, machineId);
  const { going, more } = await collect(objects, { ...options, mark });
  const last = going.at(-1);
  if (last === undefined) return { segments: 0, bytes: 0, more };
  const firstSeq = Math.max(mark, last.seq + 1);
  if (firstSeq > mark) await raiseTrimMark(objects, { machineId, firstSeq });
  let bytes = 0;
  for (const { key, size } of going) {
    await objects.remove(key);
    bytes += size;
  }
  logger.info({ machineId, firstSeq, segments: going.length, bytes }, 'trimmed the journal');
  return { segments: going.length, bytes, more };
}

type Segment = ObjectInfo & { seq: number };

/** What goes, oldest first. Behind each a later one was seen, so that the newest stays even where a point tells of more than there is. */
async function collect(
  objects: ObjectStore,
  options: TrimOptions & { mark: number },
): Promise<{ going: Segment[]; more: boolean }> {
  const { machineId, mark, limit } = options;
  const { keepFrom, olderThanMs } = await limits(objects, options);
  const going: Segment[] = [];
  let before: Segment | undefined;
  for await (const segment of segmentsAfter(objects, { machineId, seq: -1 })) {
    if (before !== undefined) going.push(before);
    const done = segment.seq < mark || segment.lastModified < olderThanMs;
    if (!done || segment.seq >= keepFrom) break;
    if (going.length >= limit) return { going, more: true };
    before = segment;
  }
  return { going, more: false };
}

/** The age is that of the object, by the vault's own clock: a journal copied to another account is kept for its retention there. */
async function limits(
  objects: ObjectStore,
  options: TrimOptions,
): Promise<{ keepFrom: number; olderThanMs: number }> {
  const { machineId, retentionMs, nowMs, applied } = options;
  const point = await newestPoint(objects, machineId);
  if (point === undefined) return { keepFrom: 0, olderThanMs: 0 };
  return {
    keepFrom: Math.min(point.segment.seq, applied.seq),
    olderThanMs: Math.min(nowMs, point.timeMs) - retentionMs,
  };
}
