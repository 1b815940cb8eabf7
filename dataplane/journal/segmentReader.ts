import { createHash } from 'node:crypto';
import type { ObjectStore } from '../../platform/ports.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { RECORD_HEADER_SIZE, recordLength } from './record.ts';
import {
  chunkCountOf,
  chunkLengthOf,
  damaged,
  decodeSegmentHeader,
  removedMeanwhile,
  SEGMENT_SIZE_MAX,
  type SegmentHeader,
  sealedLengthMax,
  segmentAad,
  segmentHeaderLength,
  segmentKey,
} from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';

/**
 * What one request fetches: large enough for throughput, small enough that a reader holds a few. A store may hash what it sends by
 * ranges of up to 4 MiB (that is how far MD5 is offered for them), which halves Azurite's rate.
 */
const PIECE_SIZE = 8 << 20;

/** Records with consecutive LSNs, encoded as in record.ts, whole ones only. */
export interface SegmentBatch {
  firstLsn: Lsn;
  count: number;
  records: Uint8Array;
}

/**
 * Reads one segment from its beginning: header, then batches, then `digest`. Every length is checked before anything is allocated for it.
 * What `batches` yields is authentic (AES-GCM under the machine's key), and never partial: a damaged chunk throws before its records show.
 */
export class SegmentReader {
  readonly name: string;
  readonly header: SegmentHeader;
  readonly #headerBytes: Uint8Array;
  readonly #input: PieceInput;
  #chunksRead = 0;
  #done = false;

  private constructor(parts: {
    input: PieceInput;
    headerBytes: Uint8Array;
    header: SegmentHeader;
  }) {
    this.#input = parts.input;
    this.#headerBytes = parts.headerBytes;
    this.header = parts.header;
    this.name = parts.input.name;
  }

  /** Throws SegmentError when what `pieces` begins with is no segment's header. `name` is the object's key. */
  static async open(pieces: AsyncIterable<Uint8Array>, name: string): Promise<SegmentReader> {
    const input = new PieceInput(pieces, name);
    const start = await input.take(16);
    const rest = await input.take(segmentHeaderLength(start, name) - start.length);
    const headerBytes = new Uint8Array(start.length + rest.length);
    headerBytes.set(start);
    headerBytes.set(rest, start.length);
    return new SegmentReader({
      input,
      headerBytes,
      header: decodeSegmentHeader(headerBytes, name),
    });
  }

  /** The records, in batches of about a chunk (1 MiB). Once. Throws SegmentError. */
  async *batches(options: {
    dataKey: Uint8Array;
    codec: SegmentCodec;
  }): AsyncGenerator<SegmentBatch> {
    let nextLsn = this.header.firstLsn;
    let remainder: Uint8Array = new Uint8Array(0);
    for await (const chunk of this.#chunks(options)) {
      const records = remainder.length === 0 ? chunk : concatenate(remainder, chunk);
      const { count, length } = this.#wholeRecords(records);
      remainder = records.subarray(length);
      if (nextLsn + BigInt(count) - 1n > this.header.lastLsn)
        throw damaged(this.name, 'it holds more records than its header says');
      if (count > 0) yield { firstLsn: nextLsn, count, records: records.subarray(0, length) };
      nextLsn += BigInt(count);
    }
    if (remainder.length > 0 || nextLsn !== this.header.lastLsn + 1n)
      throw damaged(this.name, 'it holds fewer records than its header says');
  }

  /** SHA-256 of the whole object, hex. Reads on to the end, without decrypting. */
  async digest(): Promise<string> {
    if (!this.#done) await this.#input.drain();
    this.#done = true;
    return this.#input.digest();
  }

  async *#chunks(options: {
    dataKey: Uint8Array;
    codec: SegmentCodec;
  }): AsyncGenerator<Uint8Array> {
    const key = segmentKey(options.dataKey, this.header);
    const aad = segmentAad(this.#headerBytes);
    const count = chunkCountOf(this.header);
    const inWork: Promise<Uint8Array>[] = [];
    try {
      for (; this.#chunksRead < count; this.#chunksRead += 1) {
        const index = this.#chunksRead;
        const plainLength = chunkLengthOf(this.header, index);
        const sealed = await this.#takeSealed(index, sealedLengthMax(plainLength));
        const chunk = options.codec.open({ key, aad, index, last: index === count - 1 }, sealed, {
          plainLength,
          name: this.name,
        });
        chunk.catch(() => {});
        inWork.push(chunk);
        if (inWork.length > options.codec.parallelism)
          yield await (inWork.shift() as Promise<Uint8Array>);
      }
      await this.#input.end();
      this.#done = true;
      for (const chunk of inWork.splice(0)) yield await chunk;
    } finally {
      await Promise.allSettled(inWork);
    }
  }

  async #takeSealed(index: number, limit: number): Promise<Uint8Array> {
    const prefix = await this.#input.take(4);
    const length = new DataView(prefix.buffer, prefix.byteOffset, 4).getUint32(0, true);
    if (length > limit) throw damaged(this.name, `chunk ${index} claims ${length} bytes`);
    return await this.#input.take(length);
  }

  /** How many whole records there are at the front, and where they end. */
  #wholeRecords(bytes: Uint8Array): { count: number; length: number } {
    let length = 0;
    let count = 0;
    try {
      while (length + RECORD_HEADER_SIZE <= bytes.length) {
        const next = length + recordLength(bytes, length);
        if (next > bytes.length) break;
        length = next;
        count += 1;
      }
    } catch (cause) {
      throw damaged(this.name, `a record at byte ${length} of a chunk can't be read`, { cause });
    }
    return { count, length };
  }
}

/** The pieces of a segment object, fetched one ahead. Undefined when it does not exist. Throws SegmentError when it is too long. */
export async function fetchSegment(
  objects: ObjectStore,
  name: string,
  options: { signal?: AbortSignal } = {},
): Promise<SegmentReader | undefined> {
  const fetchPiece = (offset: number) =>
    objects.get(name, { offset, length: PIECE_SIZE, ...options });
  const info = await objects.head(name);
  if (info === undefined) return undefined;
  if (info.size > SEGMENT_SIZE_MAX) throw damaged(name, `it is ${info.size} bytes long`);
  return await SegmentReader.open(piecesOf(info.size, fetchPiece, name), name);
}

async function* piecesOf(
  size: number,
  fetchPiece: (offset: number) => Promise<{ body: Uint8Array } | undefined>,
  name: string,
): AsyncGenerator<Uint8Array> {
  let ahead: ReturnType<typeof fetchPiece> | undefined;
  for (let offset = 0; offset < size; offset += PIECE_SIZE) {
    const piece = await (ahead ?? fetchPiece(offset));
    if (piece === undefined) throw removedMeanwhile(name);
    const next = offset + PIECE_SIZE;
    ahead = next < size ? fetchPiece(next) : undefined;
    ahead?.catch(() => {});
    if (piece.body.length !== Math.min(PIECE_SIZE, size - offset))
      throw damaged(name, `the store gave ${piece.body.length} bytes at ${offset}`);
    yield piece.body;
  }
}

/** Bytes in order from pieces of any size, all of them counted into the digest. */
class PieceInput {
  readonly name: string;
  readonly #pieces: AsyncIterator<Uint8Array>;
  readonly #hash = createHash('sha256');
  #piece: Uint8Array = new Uint8Array(0);
  #total = 0;
  #digest: string | undefined;

  constructor(pieces: AsyncIterable<Uint8Array>, name: string) {
    this.#pieces = pieces[Symbol.asyncIterator]();
    this.name = name;
  }

  /** Exactly `length` bytes, in a buffer of their own. */
  async take(length: number): Promise<Uint8Array> {
    if (this.#total + length > SEGMENT_SIZE_MAX) throw damaged(this.name, 'it is too long');
    const taken = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      if (this.#piece.length === 0 && !(await this.#next()))
        throw damaged(this.name, 'it ends before its last chunk');
      const part = this.#piece.subarray(0, length - filled);
      taken.set(part, filled);
      filled += part.length;
      this.#piece = this.#piece.subarray(part.length);
    }
    this.#total += length;
    return taken;
  }

  /** Throws when anything follows. */
  async end(): Promise<void> {
    if (this.#piece.length > 0 || (await this.#next()))
      throw damaged(this.name, 'bytes follow its last chunk');
  }

  async drain(): Promise<void> {
    do this.#total += this.#piece.length;
    while (this.#total <= SEGMENT_SIZE_MAX && (await this.#next()));
    if (this.#total > SEGMENT_SIZE_MAX) throw damaged(this.name, 'it is too long');
  }

  digest(): string {
    this.#digest ??= this.#hash.digest('hex');
    return this.#digest;
  }

  /** The next piece that is not empty; false at the end. */
  async #next(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#pieces.next();
      if (done === true) return false;
      this.#hash.update(value);
      this.#piece = value;
      if (value.length > 0) return true;
    }
  }
}

function concatenate(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}
