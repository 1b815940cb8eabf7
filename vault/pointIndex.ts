/** Which recovery points a machine has: one listing of points/<machineId>/, no document read. */
import type { ObjectStore } from '../platform/ports.ts';
import type { Lsn } from './documents/fields.ts';
import { vaultLayout } from './layout.ts';

/** 15 days of a point each 15 s are 86,400. What lies behind is seen once the oldest are retired. */
const OBJECTS_MAX = 500_000;
const POINT_KEY = /\/(\d{20})\.(json|pin|retired|damaged)$/;

export interface PointIndex {
  /** Points that are offered, ascending: there is a document, and no mark that retires it. */
  lsns: Lsn[];
  /** In use by a failover. */
  pinned: Set<Lsn>;
  /** Marked: they hold leaves that are not what they were (dataplane/journal/pointDamage.ts). There may be marks without a point. */
  damaged: Set<Lsn>;
  retired: RetiredMark[];
  /** When the newest object under the prefix was written, by the store's clock; -Infinity without any. */
  newestWriteMs: number;
}

/** Says for good that a point is offered no more: a document that a late write brings back is none. */
export interface RetiredMark {
  lsn: Lsn;
  etag: string;
  /** By the store's clock. */
  writtenMs: number;
  /** Its document is there: not removed yet, or back. */
  documentLeft: boolean;
}

/** Rejects with a StoreError. */
export async function listPoints(objects: ObjectStore, machineId: string): Promise<PointIndex> {
  const documents = new Set<Lsn>();
  const pinned = new Set<Lsn>();
  const damaged = new Set<Lsn>();
  const marks = new Map<Lsn, { etag: string; writtenMs: number }>();
  let newestWriteMs = Number.NEGATIVE_INFINITY;
  let listed = 0;
  for await (const { key, etag, lastModified } of objects.list(
    vaultLayout.pointsPrefix(machineId),
  )) {
    if (listed++ === OBJECTS_MAX) break;
    const match = POINT_KEY.exec(key);
    if (match?.[1] === undefined) continue;
    newestWriteMs = Math.max(newestWriteMs, lastModified);
    const lsn = BigInt(match[1]);
    if (match[2] === 'json') documents.add(lsn);
    else if (match[2] === 'pin') pinned.add(lsn);
    else if (match[2] === 'damaged') damaged.add(lsn);
    else marks.set(lsn, { etag, writtenMs: lastModified });
  }
  return {
    lsns: [...documents].filter((lsn) => !marks.has(lsn)),
    pinned,
    damaged,
    retired: [...marks].map(([lsn, mark]) => ({ lsn, ...mark, documentLeft: documents.has(lsn) })),
    newestWriteMs,
  };
}
