/**
 * Whether a recovery point still holds what it held, leaf by leaf, and the marks of points that do not (docs/design/0010).
 *
 * A mark is an object beside the point's document. It is put before anybody may rely on it and goes with its point, never before.
 */
import type { Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { PAGE_SIZE } from '../../platform/storeErrors.ts';
import { decodeDocument, encodeDocument, VaultDocumentError } from '../../vault/documents/codec.ts';
import type { DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { type PointDamage, pointDamageSchema } from '../../vault/documents/pointDamage.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { hashLeaf, leafEntry, sameBytes } from './merkle.ts';
import { usablePoint } from './points.ts';
import { HASH_SIZE, LEAF_SIZE } from './record.ts';
import { type Sample, STEP_BYTES, STEP_LEAVES } from './sampling.ts';

export interface PointDamageDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  logger: Logger;
}

/**
 * The leaves of a sample whose bytes in the point's snapshot do not have the hash that its leaf table gives them. Reads 1 MiB and a
 * page. Rejects with a StoreError, StoreObjectMissing when the point was retired.
 */
export async function damagedLeavesOf(
  pages: PageBlobStore,
  point: PointDocument,
  sample: Sample,
): Promise<DamagedLeaf[]> {
  const disk = point.disks.find(({ index }) => index === sample.disk);
  if (disk === undefined) return [];
  const { replica, leaves } = disk;
  const { firstLeaf } = sample;
  const range = { offset: firstLeaf * LEAF_SIZE, length: STEP_BYTES };
  const body = await pages.read(replica.key, range, { snapshot: replica.snapshot });
  const table = await pages.read(
    leaves.key,
    { offset: firstLeaf * HASH_SIZE, length: PAGE_SIZE },
    { snapshot: leaves.snapshot },
  );
  const damaged: DamagedLeaf[] = [];
  for (let at = 0; at < STEP_LEAVES; at += 1) {
    const content = body.subarray(at * LEAF_SIZE, (at + 1) * LEAF_SIZE);
    const entry = table.subarray(at * HASH_SIZE, (at + 1) * HASH_SIZE);
    if (!sameBytes(leafEntry(hashLeaf(content)), entry))
      damaged.push({ disk: sample.disk, leaf: firstLeaf + at });
  }
  return damaged;
}

/** Idempotent; a mark that is there stays as it is. */
export async function markPoint(objects: ObjectStore, damage: PointDamage): Promise<void> {
  const key = vaultLayout.pointDamage(damage.machineId, damage.lsn);
  await objects.putIfAbsent(key, encodeDocument(pointDamageSchema, damage));
}

/** What a mark says; undefined when there is none, no leaves when it can't be read. */
export async function readPointDamage(
  objects: ObjectStore,
  at: { machineId: string; lsn: Lsn },
): Promise<DamagedLeaf[] | undefined> {
  const key = vaultLayout.pointDamage(at.machineId, at.lsn);
  const stored = await objects.get(key);
  if (stored === undefined) return undefined;
  try {
    return decodeDocument(pointDamageSchema, key, stored.body).leaves;
  } catch (error) {
    if (error instanceof VaultDocumentError) return [];
    throw error;
  }
}

/**
 * Marks the points that hold this sample damaged, from the newest back to the first that holds it whole: what one page lost, every
 * snapshot since it was last written has lost. Looks at no more than `limit` points; `more` says that it should be called again.
 * Safe to repeat. Rejects with a StoreError.
 */
export async function markDamagedPoints(
  deps: PointDamageDeps,
  options: { machineId: string; sample: Sample; limit: number },
): Promise<{ marked: Lsn[]; more: boolean }> {
  const { machineId, sample } = options;
  const { lsns, damaged } = await listPoints(deps.objects, machineId);
  const marked: Lsn[] = [];
  let looks = 0;
  for (const lsn of lsns.toReversed()) {
    if (damaged.has(lsn)) continue;
    if (looks === options.limit) return { marked, more: true };
    looks += 1;
    const point = await usablePoint(deps.objects, { machineId, lsn });
    if (point === undefined) continue;
    const leaves = await damagedLeavesOf(deps.pages, point, sample);
    if (leaves.length === 0) break;
    await markPoint(deps.objects, { machineId, lsn, leaves });
    marked.push(lsn);
    deps.logger.warn(
      { machineId, lsn: lsn.toString(), code: 'PointDamaged', leaves },
      'a recovery point holds leaves that are not what they were; it is marked',
    );
  }
  return { marked, more: false };
}
