/**
 * Retires recovery points past their retention: a mark first, which says for good that the point is offered no more, then its document,
 * then its snapshots. The mark outlives any late write that could bring the document back (docs/design/0011).
 *
 * Kept whatever their age: the newest point, the newest one that is not marked damaged, the newest app-consistent one, and pinned ones.
 * A recovery pins first and looks for a mark
 * afterwards; we mark first and look for a pin afterwards, so that at least one of us sees the other. Snapshots of a point that was half
 * removed are cleared when the replica is opened next (replicaPoint.ts). A document that can't be read stays, and holds up no other: it
 * does not say how old its point is.
 */
import type { Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints, type PointIndex } from '../../vault/pointIndex.ts';
import { newestAmong, usablePoint } from './points.ts';

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

/** Longer than any write may be on its way before it takes effect, by the store's clock. */
const MARK_KEPT_MS = 600_000;

/** Returns the LSNs that were retired, oldest first. Safe to repeat, to be cut short anywhere, and to run twice at the same time. */
export async function retirePoints(deps: RetentionDeps, options: RetentionOptions): Promise<Lsn[]> {
  const { objects } = deps;
  const { machineId } = options;
  const index = await listPoints(objects, machineId);
  await clearMarked(deps, { machineId, index });
  const newest = await newestAmong(objects, { machineId, lsns: index.lsns });
  if (newest === undefined) return [];
  const olderThanMs = Math.min(options.nowMs, newest.timeMs) - options.retentionMs;
  const sound = index.lsns.filter((lsn) => !index.damaged.has(lsn));
  const newestSound = index.damaged.has(newest.lsn)
    ? await newestAmong(objects, { machineId, lsns: sound })
    : newest;
  await removeStrayMarks(deps, { machineId, index, before: newest.lsn });
  const retired: Lsn[] = [];
  let newestApp: PointDocument | undefined;
  for (const lsn of index.lsns) {
    if (retired.length >= options.limit || lsn >= newest.lsn) break;
    if (index.pinned.has(lsn) || lsn === newestSound?.lsn) continue;
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
    if (!(await retirePoint(deps, point))) continue;
    retired.push(lsn);
    if (index.damaged.has(lsn)) await objects.remove(vaultLayout.pointDamage(machineId, lsn));
  }
  return retired;
}

/** Marks whose points were retired by somebody who died before the mark's turn came, or who did not know of it yet. */
async function removeStrayMarks(
  deps: RetentionDeps,
  options: { machineId: string; index: PointIndex; before: Lsn },
): Promise<void> {
  const { machineId, index, before } = options;
  const points = new Set(index.lsns);
  for (const lsn of index.damaged)
    if (lsn < before && !points.has(lsn) && !index.pinned.has(lsn))
      await deps.objects.remove(vaultLayout.pointDamage(machineId, lsn));
}

async function retirePoint(deps: RetentionDeps, point: PointDocument): Promise<boolean> {
  const { machineId, lsn } = point;
  const { objects } = deps;
  const key = vaultLayout.pointRetired(machineId, lsn);
  const mark = await objects.putIfAbsent(key, new Uint8Array());
  if (await isPinned(objects, point)) {
    // Somebody else's mark may stand for a removal that has begun.
    if (mark.outcome === 'created') await objects.remove(key, { etag: mark.etag });
    return false;
  }
  await removePoint(deps, point);
  deps.logger.info({ machineId, lsn: lsn.toString() }, 'retired a recovery point');
  return true;
}

/** Ends what others began, and what came back; lets go of marks that no late write can need any more. */
async function clearMarked(
  deps: RetentionDeps,
  { machineId, index }: { machineId: string; index: PointIndex },
): Promise<void> {
  for (const { lsn, etag, writtenMs, documentLeft } of index.retired) {
    const at = { machineId, lsn };
    if (index.pinned.has(lsn)) continue;
    if (documentLeft) {
      const point = await usablePoint(deps.objects, at);
      if (point !== undefined && !(await isPinned(deps.objects, at)))
        await removePoint(deps, point);
    } else if (index.newestWriteMs - writtenMs > MARK_KEPT_MS)
      await deps.objects.remove(vaultLayout.pointRetired(machineId, lsn), { etag });
  }
}

async function isPinned(
  objects: ObjectStore,
  { machineId, lsn }: { machineId: string; lsn: Lsn },
): Promise<boolean> {
  return (await objects.head(vaultLayout.pointPin(machineId, lsn))) !== undefined;
}

/** The document before what it names. */
async function removePoint(deps: RetentionDeps, point: PointDocument): Promise<void> {
  await deps.objects.remove(vaultLayout.point(point.machineId, point.lsn));
  for (const { replica, leaves } of point.disks)
    for (const blob of [replica, leaves]) await deps.pages.removeSnapshot(blob.key, blob.snapshot);
}
