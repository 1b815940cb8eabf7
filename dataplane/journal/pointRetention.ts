/**
 * Retires recovery points past their retention: the document first, so that it is offered no more, then its snapshots.
 *
 * Kept whatever their age: the newest point, the newest app-consistent one, and pinned ones. A recovery pins first and reads the point
 * afterwards; we look for a pin once more when the document is gone, and put it back then. Snapshots of a point that was half removed
 * are cleared when the replica is opened next (replicaPoint.ts). A document that can't be read stays, and holds up no other: it does not
 * say how old its point is.
 */
import type { Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { type PointDocument, pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints, newestAmong, usablePoint } from './points.ts';

export interface RetentionDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  logger: Logger;
}

export interface RetentionOptions {
  machineId: string;
  retentionMs: number;
  /** Wall clock. Ages count from the newest point where that is older: while nothing arrives, nothing goes. */
  nowMs: number;
  /** How many at most, so that one call is short; the rest waits for the next. */
  limit: number;
}

/** Returns the LSNs that were retired, oldest first. Safe to repeat and to run twice at the same time. */
export async function retirePoints(deps: RetentionDeps, options: RetentionOptions): Promise<Lsn[]> {
  const { objects } = deps;
  const { machineId } = options;
  const index = await listPoints(objects, machineId);
  const newest = await newestAmong(objects, { machineId, lsns: index.lsns });
  if (newest === undefined) return [];
  const olderThanMs = Math.min(options.nowMs, newest.timeMs) - options.retentionMs;
  const retired: Lsn[] = [];
  let newestApp: PointDocument | undefined;
  for (const lsn of index.lsns) {
    if (retired.length >= options.limit || lsn >= newest.lsn) break;
    if (index.pinned.has(lsn)) continue;
    const point = await usablePoint(objects, { machineId, lsn });
    if (point === undefined) continue;
    if (point.timeMs >= olderThanMs) break;
    if (point.consistency === 'App') {
      newestApp ??= await newestAmong(
        objects,
        { machineId, lsns: index.lsns },
        ({ consistency }) => consistency === 'App',
      );
      if (newestApp?.lsn === lsn) continue;
    }
    if (await retirePoint(deps, point)) retired.push(lsn);
  }
  return retired;
}

async function retirePoint(deps: RetentionDeps, point: PointDocument): Promise<boolean> {
  const { machineId, lsn } = point;
  const key = vaultLayout.point(machineId, lsn);
  await deps.objects.remove(key);
  if ((await deps.objects.head(vaultLayout.pointPin(machineId, lsn))) !== undefined) {
    await deps.objects.putIfAbsent(key, encodeDocument(pointDocumentSchema, point));
    return false;
  }
  for (const { replica, leaves } of point.disks)
    for (const blob of [replica, leaves]) await deps.pages.removeSnapshot(blob.key, blob.snapshot);
  deps.logger.info({ machineId, lsn: lsn.toString() }, 'retired a recovery point');
  return true;
}
