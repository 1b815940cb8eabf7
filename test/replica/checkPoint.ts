import { DiskTree } from '../../dataplane/journal/merkle.ts';
import { readPoints } from '../../dataplane/journal/points.ts';
import { HASH_SIZE } from '../../dataplane/journal/record.ts';
import { decodeVhdFooter, vhdBodySize } from '../../dataplane/journal/vhd.ts';
import type { ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { rootOf, type SampleBarrier, type SampleMachine } from './sampleMachine.ts';

const READ_SIZE = 4 << 20;

/** What is wrong with a machine's points: there must be one of each of these barriers, and no other. */
export async function problemsOfPoints(
  stores: { objects: ObjectStore; pages: PageBlobStore },
  machine: SampleMachine,
  barriers: readonly SampleBarrier[] = machine.barriers,
): Promise<string[]> {
  const points = await readPoints(stores.objects, machine.machineId);
  const problems: string[] = [];
  if (points.length !== barriers.length)
    problems.push(`${points.length} points of ${barriers.length} barriers`);
  for (const point of points) {
    const barrier = barriers.find(({ lsn }) => lsn === point.lsn);
    if (barrier === undefined) problems.push(`a point at LSN ${point.lsn}`);
    else problems.push(...(await problemsOfPoint(stores.pages, point, barrier)));
  }
  return problems;
}

/**
 * What is wrong with a point, compared with what the machine's disks were at its barrier: bytes, footer, leaf table, roots.
 * Empty when it is right.
 */
export async function problemsOfPoint(
  pages: PageBlobStore,
  point: PointDocument,
  expected: SampleBarrier,
): Promise<string[]> {
  const problems: string[] = [];
  if (point.lsn !== expected.lsn) problems.push(`LSN ${point.lsn}, not ${expected.lsn}`);
  if (point.timeMs !== expected.barrier.timeMs) problems.push('another time');
  if (point.disks.length !== expected.barrier.disks.length) problems.push('other disks');
  for (const disk of point.disks) {
    const told = expected.barrier.disks.find(({ index }) => index === disk.index);
    const body = expected.bodies.get(disk.index);
    if (told === undefined || body === undefined) {
      problems.push(`disk ${disk.index} was not at the barrier`);
      continue;
    }
    const bodySize = vhdBodySize(told.sizeBytes);
    const stored = await readAll(pages, disk.replica);
    if (stored.length !== bodySize + 512) problems.push(`${disk.name}: ${stored.length} bytes`);
    if (Buffer.compare(stored.subarray(0, bodySize), body) !== 0)
      problems.push(`${disk.name} differs at byte ${firstDifference(stored, body)}`);
    if (decodeVhdFooter(stored.subarray(bodySize))?.bodySize !== bodySize)
      problems.push(`${disk.name} has no footer`);
    if (disk.root !== rootOf(body, told.sizeBytes)) problems.push(`${disk.name}: another root`);
    const table = await readAll(pages, disk.leaves);
    const tree = new DiskTree({ sizeBytes: told.sizeBytes, known: 'unread' });
    const root = await tree.root({
      read: async (first, count) => table.subarray(first * HASH_SIZE, (first + count) * HASH_SIZE),
    });
    if (root !== disk.root) problems.push(`${disk.name}: the leaf table gives another root`);
  }
  return problems;
}

async function readAll(
  pages: PageBlobStore,
  blob: { key: string; snapshot: string },
): Promise<Uint8Array> {
  const { key, snapshot } = blob;
  const size = (await pages.info(key, { snapshot }))?.size ?? 0;
  const bytes = new Uint8Array(size);
  for (let offset = 0; offset < size; offset += READ_SIZE) {
    const length = Math.min(READ_SIZE, size - offset);
    bytes.set(await pages.read(key, { offset, length }, { snapshot }), offset);
  }
  return bytes;
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  return a.findIndex((byte, index) => byte !== b[index]);
}
