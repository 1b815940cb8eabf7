import { createHash } from 'node:crypto';
import {
  chunkCountOf,
  chunkLengthOf,
  encodeSegmentHeader,
  type SegmentHeader,
  segmentAad,
  segmentKey,
} from './segment.ts';
import { releaseMemory, type SegmentCodec } from './segmentCodec.ts';

export interface SegmentDigest {
  /** SHA-256 of the whole object, hex. */
  digest: string;
  sizeBytes: number;
}

/**
 * Seals a segment piece by piece into `write`, which is called in order with what follows what. `plain` gives exactly
 * `header.plainLength` bytes of records in pieces of any size; anything else is a RangeError (the caller's index is wrong).
 * Holds at most `codec.parallelism` + 1 chunks in memory.
 */
export async function writeSegment(options: {
  header: SegmentHeader;
  dataKey: Uint8Array;
  codec: SegmentCodec;
  plain: AsyncIterable<Uint8Array>;
  write: (bytes: Uint8Array) => Promise<void>;
}): Promise<SegmentDigest> {
  const { header, codec } = options;
  const headerBytes = encodeSegmentHeader(header);
  const key = segmentKey(options.dataKey, header);
  const aad = segmentAad(headerBytes);
  const digest = createHash('sha256');
  let sizeBytes = 0;
  const put = async (bytes: Uint8Array) => {
    digest.update(bytes);
    sizeBytes += bytes.length;
    // The bytes are the writer's from now on.
    await options.write(bytes);
  };
  const putChunk = async (sealed: Uint8Array) => {
    const framed = Buffer.allocUnsafeSlow(4 + sealed.length);
    framed.writeUInt32LE(sealed.length, 0);
    framed.set(sealed, 4);
    releaseMemory(sealed);
    await put(framed);
  };
  await put(headerBytes);
  const inWork: Promise<Uint8Array>[] = [];
  const last = chunkCountOf(header) - 1;
  let index = 0;
  try {
    for await (const chunk of chunksOf(header, options.plain)) {
      const sealed = codec.seal({ key, aad, index, last: index === last }, chunk);
      // Awaited later; a failure meanwhile must not count as unhandled.
      sealed.catch(() => {});
      inWork.push(sealed);
      index += 1;
      if (inWork.length > codec.parallelism)
        await putChunk(await (inWork.shift() as Promise<Uint8Array>));
    }
    for (const sealed of inWork.splice(0)) await putChunk(await sealed);
  } finally {
    await Promise.allSettled(inWork);
  }
  return { digest: digest.digest('hex'), sizeBytes };
}

/** A whole small segment (Claim, Seal) in memory. */
export async function encodeSegment(options: {
  header: SegmentHeader;
  dataKey: Uint8Array;
  codec: SegmentCodec;
  records?: Uint8Array;
}): Promise<{ bytes: Uint8Array; digest: string }> {
  const pieces: Uint8Array[] = [];
  const { digest } = await writeSegment({
    ...options,
    plain: only(options.records),
    write: async (bytes) => {
      pieces.push(bytes);
    },
  });
  return { bytes: new Uint8Array(Buffer.concat(pieces)), digest };
}

/** Regroups pieces into the chunks that the header promises. Each is a buffer of its own. */
async function* chunksOf(
  header: SegmentHeader,
  plain: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const count = chunkCountOf(header);
  let index = 0;
  let chunk: Uint8Array = Buffer.allocUnsafeSlow(chunkLengthOf(header, 0));
  let filled = 0;
  for await (const piece of plain) {
    let taken = 0;
    while (taken < piece.length) {
      if (index >= count) throw new RangeError('more records than the segment header promises');
      const part = piece.subarray(taken, taken + chunk.length - filled);
      chunk.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (filled < chunk.length) continue;
      yield chunk;
      index += 1;
      filled = 0;
      if (index < count) chunk = Buffer.allocUnsafeSlow(chunkLengthOf(header, index));
    }
  }
  if (header.plainLength === 0) yield new Uint8Array(0);
  else if (index < count) throw new RangeError('fewer records than the segment header promises');
}

async function* only(bytes: Uint8Array | undefined): AsyncGenerator<Uint8Array> {
  if (bytes !== undefined) yield bytes;
}
