/**
 * Recovery points of a machine: the documents under points/<machineId>/, and how to choose and retire them.
 *
 * LSNs are in the keys, and within a machine both LSN and time only go up, so a point is found without reading all documents.
 */
import type { ObjectStore } from '../../platform/ports.ts';
import { decodeDocument, VaultDocumentError } from '../../vault/documents/codec.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { type PointDocument, pointDocumentSchema } from '../../vault/documents/point.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { listPoints, type PointIndex } from '../../vault/pointIndex.ts';

/** The point at an LSN while it is offered. For a point that must stay: pin it first, then ask. Throws like readPoint. */
export async function offeredPoint(
  objects: ObjectStore,
  at: { machineId: string; lsn: Lsn },
): Promise<PointDocument | undefined> {
  const mark = await objects.head(vaultLayout.pointRetired(at.machineId, at.lsn));
  return mark === undefined ? await readPoint(objects, at) : undefined;
}

/** The document at an LSN; undefined when there is none. Throws VaultDocumentError when it can't be read. */
export async function readPoint(
  objects: ObjectStore,
  at: { machineId: string; lsn: Lsn },
): Promise<PointDocument | undefined> {
  const key = vaultLayout.point(at.machineId, at.lsn);
  const stored = await objects.get(key);
  if (stored === undefined) return undefined;
  const point = decodeDocument(pointDocumentSchema, key, stored.body);
  if (point.machineId !== at.machineId || point.lsn !== at.lsn)
    throw new VaultDocumentError(key, `it is of LSN ${point.lsn} of machine ${point.machineId}`);
  return point;
}

/** Likewise, but one that can't be read is none: a damaged document must not stand before the points that are whole. */
export async function usablePoint(
  objects: ObjectStore,
  at: { machineId: string; lsn: Lsn },
): Promise<PointDocument | undefined> {
  try {
    return await readPoint(objects, at);
  } catch (error) {
    if (error instanceof VaultDocumentError) return undefined;
    throw error;
  }
}

/** All points, oldest first: one read each, so only for what shows them. */
export async function readPoints(
  objects: ObjectStore,
  machineId: string,
): Promise<PointDocument[]> {
  const points: PointDocument[] = [];
  for (const lsn of (await listPoints(objects, machineId)).lsns) {
    const point = await readPoint(objects, { machineId, lsn });
    // Gone since the listing: retired.
    if (point !== undefined) points.push(point);
  }
  return points;
}

/** The newest point; undefined when there is none. */
export async function newestPoint(
  objects: ObjectStore,
  machineId: string,
): Promise<PointDocument | undefined> {
  return await newestWhere(objects, machineId, () => true);
}

/** The newest point that is not marked damaged; undefined when every one is. */
export async function newestSoundPoint(
  objects: ObjectStore,
  machineId: string,
): Promise<PointDocument | undefined> {
  return await newestWhere(objects, machineId, () => true, { sound: true });
}

/** The newest point of a kind. */
export async function newestPointOfConsistency(
  objects: ObjectStore,
  machineId: string,
  consistency: PointDocument['consistency'],
): Promise<PointDocument | undefined> {
  return await newestWhere(objects, machineId, (point) => point.consistency === consistency);
}

/** The newest point at or before a time (ms); undefined when all are later. Reads a dozen documents at most. */
export async function newestPointAtOrBefore(
  objects: ObjectStore,
  options: {
    machineId: string;
    timeMs: number;
    /** Only points that are not marked damaged. */
    sound?: boolean;
  },
): Promise<PointDocument | undefined> {
  const index = await listPoints(objects, options.machineId);
  const lsns = eligible(index, options);
  let low = 0;
  let high = lsns.length;
  let found: PointDocument | undefined;
  while (low < high) {
    const middle = (low + high) >> 1;
    const lsn = lsns[middle];
    const point =
      lsn === undefined
        ? undefined
        : await usablePoint(objects, { machineId: options.machineId, lsn });
    if (point === undefined) {
      // Retired since the listing, or damaged.
      lsns.splice(middle, 1);
      high -= 1;
    } else if (point.timeMs <= options.timeMs) {
      found = point;
      low = middle + 1;
    } else high = middle;
  }
  return found;
}

/** How people name a point: its LSN in decimal. */
export function pointName(lsn: Lsn): string {
  return lsn.toString();
}

/** The LSN that a name means; undefined when it is no point's name. */
export function lsnOfPointName(name: string): Lsn | undefined {
  return /^[0-9]{1,20}$/.test(name) ? BigInt(name) : undefined;
}

function eligible({ lsns, damaged }: PointIndex, options: { sound?: boolean }): Lsn[] {
  return options.sound === true ? lsns.filter((lsn) => !damaged.has(lsn)) : lsns;
}

async function newestWhere(
  objects: ObjectStore,
  machineId: string,
  accept: (point: PointDocument) => boolean,
  options: { sound?: boolean } = {},
): Promise<PointDocument | undefined> {
  let read = 0;
  const counted = (point: PointDocument) => {
    read += 1;
    return accept(point);
  };
  for (let before: Lsn | undefined; ; ) {
    const lsns = eligible(await listPoints(objects, machineId), options);
    if (lsns.at(-1) === before) return undefined;
    const found = await newestAmong(objects, { machineId, lsns }, counted);
    // None of those listed could be read: they may be retired by now, because a newer one came.
    if (found !== undefined || read > 0) return found;
    before = lsns.at(-1);
  }
}

/** The newest that is accepted, of points listed already. */
export async function newestAmong(
  objects: ObjectStore,
  points: { machineId: string; lsns: readonly Lsn[] },
  accept: (point: PointDocument) => boolean = () => true,
): Promise<PointDocument | undefined> {
  const { machineId, lsns } = points;
  for (const lsn of lsns.toReversed()) {
    const point = await usablePoint(objects, { machineId, lsn });
    if (point !== undefined && accept(point)) return point;
  }
  return undefined;
}
