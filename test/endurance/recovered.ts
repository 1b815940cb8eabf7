/** Recovery points, compared with the journal's roots and with the disks that they are of, byte for byte. */
import { closeSync, openSync, readSync } from 'node:fs';
import { usablePoint } from '../../dataplane/journal/points.ts';
import { vhdBodySize } from '../../dataplane/journal/vhd.ts';
import type { ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { rootOf } from '../replica/sampleMachine.ts';
import type { JournalBarrier } from './journal.ts';
import type { Disk } from './sourceMachine.ts';

const READ_BYTES = 4 << 20;

/**
 * What is wrong with a point, by disk; empty when its snapshots have the roots that its barrier was given from the source's reads. With
 * `sources` it must also be those disks as they lie there now.
 */
export async function problemsOfPoint(
  pages: PageBlobStore,
  point: PointDocument,
  expected: { barrier: JournalBarrier | undefined; sources?: readonly Disk[] },
): Promise<{ disk: string; problem: string }[]> {
  const problems: { disk: string; problem: string }[] = [];
  for (const disk of point.disks) {
    const tell = (problem: string) =>
      problems.push({ disk: disk.name, problem: `point ${point.lsn}, ${disk.name}: ${problem}` });
    const body = await bodyOf(pages, disk);
    const root = rootOf(body, disk.sizeBytes);
    const told = expected.barrier?.roots.get(disk.index);
    if (root !== told) tell(`its root is ${root}, the journal's barrier says ${told}`);
    if (root !== disk.root) tell(`its root is ${root}, its document says ${disk.root}`);
    if (expected.sources === undefined) continue;
    const source = expected.sources[disk.index];
    const differs =
      source === undefined ? 0 : firstDifference(body.subarray(0, source.sizeBytes), source.image);
    if (differs !== undefined) tell(`it differs from the source at byte ${differs}`);
  }
  return problems;
}

export async function pointAt(
  objects: ObjectStore,
  at: { machineId: string; lsn: bigint },
): Promise<PointDocument | undefined> {
  return await usablePoint(objects, at);
}

async function bodyOf(
  pages: PageBlobStore,
  disk: PointDocument['disks'][number],
): Promise<Uint8Array> {
  const { key, snapshot } = disk.replica;
  const body = new Uint8Array(vhdBodySize(disk.sizeBytes));
  for (let offset = 0; offset < body.length; offset += READ_BYTES) {
    const length = Math.min(READ_BYTES, body.length - offset);
    body.set(await pages.read(key, { offset, length }, { snapshot }), offset);
  }
  return body;
}

/** The first byte at which a file is another than these bytes; undefined when it is the same. */
export function firstDifference(bytes: Uint8Array, file: string): number | undefined {
  const piece = Buffer.alloc(READ_BYTES);
  const descriptor = openSync(file, 'r');
  try {
    for (let offset = 0; offset < bytes.length; offset += READ_BYTES) {
      const length = readSync(descriptor, piece, 0, READ_BYTES, offset);
      const expected = bytes.subarray(offset, offset + READ_BYTES);
      const found = piece.subarray(0, length);
      if (Buffer.compare(found, expected) === 0) continue;
      return offset + expected.findIndex((byte, index) => byte !== found[index]);
    }
    return undefined;
  } finally {
    closeSync(descriptor);
  }
}
