/**
 * Sealed segments on the cache disk, `machines/<machineId>/<seq>-<digest>.seg`: final bytes, durable before the vault first hears of
 * them, so that every try, also one after a restart, has the same ones.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Disk, ObjectSource } from '../../platform/ports.ts';
import { machineDirectory } from './machineState.ts';
import { decodeSegmentHeader, SEGMENT_HEADER_MAX, type SegmentHeader } from './segment.ts';
import { releaseMemory, type SegmentCodec } from './segmentCodec.ts';
import { writeSegment } from './segmentWriter.ts';
import type { Uplink } from './uplink.ts';

const SEGMENT_FILE = /^(\d{12})-([0-9a-f]{64})\.seg$/;
const READ_SIZE = 1 << 20;
/** A smaller segment is given to the store as bytes. */
const STREAM_ABOVE = 1 << 20;

export interface SealedSegment {
  header: SegmentHeader;
  digest: string;
  sizeBytes: number;
  path: string;
}

/** Seals into a file of its own; durable, under its name, when it resolves. */
export async function sealToFile(
  deps: { disk: Disk; codec: SegmentCodec },
  segment: { header: SegmentHeader; dataKey: Uint8Array; plain: AsyncIterable<Uint8Array> },
): Promise<SealedSegment> {
  const { machineId, seq } = segment.header;
  const directory = machineDirectory(machineId);
  const temporary = unfinishedPath(machineId, seq);
  const file = await deps.disk.open(temporary, 'create');
  let written: { digest: string; sizeBytes: number };
  try {
    let offset = 0;
    written = await writeSegment({
      ...segment,
      codec: deps.codec,
      write: async (bytes) => {
        await file.write(bytes, offset);
        offset += bytes.length;
        releaseMemory(bytes);
      },
    });
    await file.truncate(offset);
    await file.sync();
  } finally {
    await file.close();
  }
  const path = `${directory}/${numberOf(seq)}-${written.digest}.seg`;
  await deps.disk.rename({ from: temporary, to: path });
  await deps.disk.syncDirectory(directory);
  return { header: segment.header, ...written, path };
}

/**
 * A segment that the vault has, remembered durably, is of no use any more. While others wait, its file becomes that of the one after the
 * next: writing over pages that are there costs a fraction of what new ones do.
 */
export async function discardSealed(
  disk: Disk,
  sealed: SealedSegment,
  options: { othersWait: boolean },
): Promise<void> {
  const { machineId, seq } = sealed.header;
  if (!options.othersWait) await disk.remove(sealed.path);
  else await disk.rename({ from: sealed.path, to: unfinishedPath(machineId, seq + 2) });
}

/** The body for a put, no faster than the link may go; opened again for every try. */
export async function sealedBody(
  deps: { disk: Disk; uplink: Uplink },
  sealed: SealedSegment,
  signal: AbortSignal,
): Promise<Uint8Array | ObjectSource> {
  const { disk, uplink } = deps;
  if (sealed.sizeBytes > STREAM_ABOVE)
    return {
      size: sealed.sizeBytes,
      open: () => Readable.from(uplink.slowed(readFile(disk, sealed.path)), { objectMode: false }),
    };
  await uplink.passed(sealed.sizeBytes, signal);
  const file = await disk.open(sealed.path, 'read');
  try {
    const bytes = new Uint8Array(sealed.sizeBytes);
    await file.read(bytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}

/** What an earlier life was sealing, or kept to write over. */
export async function removeUnfinished(disk: Disk, machineId: string): Promise<void> {
  const directory = machineDirectory(machineId);
  for (const name of await disk.list(directory))
    if (name.endsWith('.sealing')) await disk.remove(`${directory}/${name}`);
}

function unfinishedPath(machineId: string, seq: number): string {
  return `${machineDirectory(machineId)}/${numberOf(seq)}.sealing`;
}

function numberOf(seq: number): string {
  return String(seq).padStart(12, '0');
}

/** Names and sequence numbers of a machine's sealed files. */
export async function listSealed(
  disk: Disk,
  machineId: string,
): Promise<{ name: string; seq: number; digest: string }[]> {
  const found: { name: string; seq: number; digest: string }[] = [];
  for (const name of await disk.list(machineDirectory(machineId))) {
    const match = SEGMENT_FILE.exec(name);
    if (match?.[1] !== undefined && match[2] !== undefined)
      found.push({ name, seq: Number(match[1]), digest: match[2] });
  }
  return found;
}

/** A sealed file of an earlier life; undefined when its bytes are not those that its name promises. */
export async function readSealed(
  disk: Disk,
  options: { machineId: string; name: string; digest: string },
): Promise<SealedSegment | undefined> {
  const path = `${machineDirectory(options.machineId)}/${options.name}`;
  const hash = createHash('sha256');
  let start = new Uint8Array(0);
  let sizeBytes = 0;
  for await (const piece of readFile(disk, path)) {
    hash.update(piece);
    if (sizeBytes === 0) start = new Uint8Array(piece.subarray(0, SEGMENT_HEADER_MAX));
    sizeBytes += piece.length;
  }
  if (hash.digest('hex') !== options.digest) return undefined;
  const header = decodeSegmentHeader(start, path);
  return { header, digest: options.digest, sizeBytes, path };
}

async function* readFile(disk: Disk, path: string): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const file = await disk.open(path, 'read');
  try {
    for (let offset = 0; ; ) {
      const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
      const read = await file.read(buffer, offset);
      if (read === 0) return;
      offset += read;
      yield buffer.subarray(0, read);
    }
  } finally {
    await file.close();
  }
}
