/**
 * Makes recovery points of a replica that stands exactly at a barrier.
 *
 * state.json says so first (`makingPoint`), then every blob is snapshotted under its lease, then the point document is put, then
 * `makingPoint` is cleared, and only then is anything written past the barrier. So whoever finds `makingPoint` set may complete the set.
 */
import type { Clock, Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { type PointDocument, pointDocumentSchema } from '../../vault/documents/point.ts';
import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { markPoint } from './pointDamage.ts';
import { readPoint } from './points.ts';
import type { ReplicaDisk } from './replicaDisk.ts';
import type { ReplicaDisks } from './replicaDisks.ts';
import { ReplicaDamaged } from './replicaErrors.ts';
import type { ReplicaFence } from './replicaFence.ts';

export interface PointMakerDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  clock: Clock;
  logger: Logger;
  fence: ReplicaFence;
}

type MakingPoint = NonNullable<ReplicaState['makingPoint']>;

/**
 * Makes the point that state.json announces. With `resumed`, snapshots that an earlier try made are looked for and used.
 * Idempotent. Rejects with a StoreError when the outcome of a call is unknown: raise the fence, then call again with `resumed`.
 */
export async function completePoint(
  deps: PointMakerDeps,
  disks: ReplicaDisks,
  options: { resumed: boolean },
): Promise<PointDocument> {
  const { makingPoint, applied, machineId } = deps.fence.state;
  const existing = options.resumed
    ? await readPoint(deps.objects, { machineId, lsn: applied.lsn })
    : undefined;
  if (makingPoint === undefined) {
    // Cleared by a try whose answer was lost.
    if (existing !== undefined) return existing;
    throw new Error(`no point is being made at LSN ${applied.lsn} of machine ${machineId}`);
  }
  const point = existing ?? (await snapshotAndPut(deps, disks, { makingPoint, ...options }));
  await deps.fence.save({ makingPoint: undefined });
  return point;
}

/**
 * Removes snapshots that belong to no point: of a set that was never completed, or of a point that was half removed. Such a set lies at
 * or before where the replica stood when we took it; what lies behind is a successor's, which may have made its point meanwhile.
 */
export async function removeOrphanSnapshots(
  deps: PointMakerDeps,
  disks: Iterable<ReplicaDisk>,
): Promise<void> {
  const { machineId, applied } = deps.fence.state;
  const index = await listPoints(deps.objects, machineId);
  const kept = new Set([...index.lsns, ...index.pinned]);
  for (const { key, leavesKey } of disks)
    for (const blob of [key, leavesKey])
      for await (const { snapshot, metadata } of deps.pages.snapshots(blob)) {
        const lsn = lsnOf(metadata);
        // Without an LSN it was not made by us.
        if (lsn === undefined || lsn > applied.lsn || kept.has(lsn)) continue;
        await deps.pages.removeSnapshot(blob, snapshot);
        deps.logger.info(
          { machineId, blob, snapshot, lsn: lsn.toString() },
          'removed a snapshot of no point',
        );
      }
}

async function snapshotAndPut(
  deps: PointMakerDeps,
  disks: ReplicaDisks,
  options: { makingPoint: MakingPoint; resumed: boolean },
): Promise<PointDocument> {
  const { applied, machineId } = deps.fence.state;
  const { makingPoint, resumed } = options;
  const surplus: BlobSnapshot[] = [];
  const snapshot = async (key: string) => {
    const [first, ...others] = resumed
      ? await snapshotsAt(deps.pages, { key, lsn: applied.lsn })
      : [];
    surplus.push(...others);
    return first ?? { key, snapshot: await takeSnapshot(deps, key, makingPoint) };
  };
  const point: PointDocument = {
    machineId,
    lsn: applied.lsn,
    timeMs: makingPoint.timeMs,
    consistency: makingPoint.consistency,
    segment: { seq: applied.seq, digest: applied.digest, writerEpoch: makingPoint.writerEpoch },
    disks: [],
    createdAt: deps.clock.now(),
  };
  for (const { index, sizeBytes, root } of makingPoint.disks) {
    const disk = disks.get(index);
    if (disk === undefined) throw new ReplicaDamaged(machineId, `disk ${index} has no replica.`);
    const [replica, leaves] = await bothSettled(snapshot(disk.key), snapshot(disk.leavesKey));
    point.disks.push({ index, name: disk.name, sizeBytes, root, replica, leaves });
  }
  // Before the point: nobody may take it for whole in between.
  const leaves = damagedIn(deps.fence.state, makingPoint);
  if (leaves.length > 0) await markPoint(deps.objects, { machineId, lsn: applied.lsn, leaves });
  const kept = await putPoint(deps, point);
  if (kept !== point) surplus.push(...notUsed(point, kept));
  for (const { key, snapshot: name } of surplus) await deps.pages.removeSnapshot(key, name);
  return kept;
}

/** What is known to be damaged of the disks that the point has. */
function damagedIn(state: ReplicaState, { disks }: MakingPoint): DamagedLeaf[] {
  return (state.damaged ?? []).filter(({ disk }) => disks.some(({ index }) => index === disk));
}

interface BlobSnapshot {
  key: string;
  snapshot: string;
}

/** The point that is in the vault now: ours, or the same one put by somebody who was there before. */
async function putPoint(deps: PointMakerDeps, point: PointDocument): Promise<PointDocument> {
  const { machineId, lsn } = point;
  const body = encodeDocument(pointDocumentSchema, point);
  const { outcome } = await deps.objects.putIfAbsent(vaultLayout.point(machineId, lsn), body);
  if (outcome === 'created') return point;
  return (await readPoint(deps.objects, { machineId, lsn })) ?? point;
}

async function takeSnapshot(
  deps: PointMakerDeps,
  key: string,
  makingPoint: MakingPoint,
): Promise<string> {
  const { applied, machineId } = deps.fence.state;
  const { snapshot } = await deps.pages.snapshot(key, {
    fence: deps.fence.of(key),
    metadata: {
      lsn: applied.lsn.toString(),
      epoch: makingPoint.writerEpoch.toString(),
      machineid: machineId,
    },
  });
  return snapshot;
}

async function snapshotsAt(
  pages: PageBlobStore,
  at: { key: string; lsn: Lsn },
): Promise<BlobSnapshot[]> {
  const found: BlobSnapshot[] = [];
  for await (const { snapshot, metadata } of pages.snapshots(at.key))
    if (lsnOf(metadata) === at.lsn) found.push({ key: at.key, snapshot });
  return found;
}

function notUsed(ours: PointDocument, kept: PointDocument): BlobSnapshot[] {
  const blobs = (point: PointDocument) =>
    point.disks.flatMap((disk) => [disk.replica, disk.leaves]);
  const used = new Set(blobs(kept).map(({ key, snapshot }) => `${key} ${snapshot}`));
  return blobs(ours).filter(({ key, snapshot }) => !used.has(`${key} ${snapshot}`));
}

/** Both results; an error only once neither is under way any more. */
async function bothSettled<T>(a: Promise<T>, b: Promise<T>): Promise<[T, T]> {
  await Promise.allSettled([a, b]);
  return [await a, await b];
}

function lsnOf(metadata: Record<string, string>): Lsn | undefined {
  const { lsn } = metadata;
  return lsn !== undefined && /^[0-9]{1,20}$/.test(lsn) ? BigInt(lsn) : undefined;
}
