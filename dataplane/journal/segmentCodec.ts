/**
 * The heavy work on segments, chunk by chunk: zstd and AES-256-GCM. Synchronous functions, and the interface by which they run either in
 * this thread (tests, simulation, small tools) or in worker threads (process server, applier).
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { errorMessage } from '../../platform/errors.ts';
import { damaged, SegmentError, sealedLengthMax } from './segment.ts';

const TAG_SIZE = 16;
/** zlib's least. */
const CHUNK_SIZE_MIN = 64;
/** Larger than any pool of Node's (64 KiB), and smaller than a frame with one leaf: of many agents there are many of those. */
const RELEASE_ABOVE = 64 << 10;
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

/** Which chunk of which segment: everything that its seal depends on. */
export interface ChunkSeal {
  /** segmentKey(…), 32 bytes. */
  key: Uint8Array;
  /** segmentAad(…), 32 bytes. */
  aad: Uint8Array;
  index: number;
  last: boolean;
}

export interface SegmentCodec {
  /** How many chunks are worth having in work at the same time. */
  readonly parallelism: number;
  /** Compresses and encrypts. `plain` is given away: its buffer may be moved to another thread. */
  seal(seal: ChunkSeal, plain: Uint8Array): Promise<Uint8Array>;
  /** Decrypts and decompresses to exactly `plainLength` bytes. `sealed` is given away. Throws SegmentError naming `name`. */
  open(seal: ChunkSeal, sealed: Uint8Array, expected: ExpectedChunk): Promise<Uint8Array>;
}

export interface ExpectedChunk {
  plainLength: number;
  /** The segment's key in the vault. */
  name: string;
}

/** Works in the calling thread. */
export const inlineCodec: SegmentCodec = {
  parallelism: 1,
  seal: async (seal, plain) => sealChunk(seal, plain),
  open: async (seal, sealed, expected) => openChunk(seal, sealed, expected),
};

export function sealChunk(seal: ChunkSeal, plain: Uint8Array): Uint8Array {
  const cipher = createCipheriv('aes-256-gcm', seal.key, nonceOf(seal));
  cipher.setAAD(seal.aad);
  // One output buffer, large enough for all, instead of many small ones that are then joined.
  const chunkSize = sealedLengthMax(plain.length);
  const compressed = zstdCompressSync(plain, { ...COMPRESSION, chunkSize });
  const sealed: Uint8Array = Buffer.allocUnsafeSlow(compressed.length + TAG_SIZE);
  const encrypted = cipher.update(compressed);
  sealed.set(encrypted);
  cipher.final();
  sealed.set(cipher.getAuthTag(), compressed.length);
  releaseMemory(compressed);
  releaseMemory(encrypted);
  return sealed;
}

export function openChunk(
  seal: ChunkSeal,
  sealed: Uint8Array,
  expected: ExpectedChunk,
): Uint8Array {
  if (sealed.length < TAG_SIZE || sealed.length > sealedLengthMax(expected.plainLength))
    throw damaged(expected.name, `chunk ${seal.index} is ${sealed.length} bytes`);
  const compressed = decrypt(seal, sealed, expected.name);
  let plain: Uint8Array;
  try {
    // The limit keeps a bomb from unfolding; zstd wants room for at least one byte.
    plain = zstdDecompressSync(compressed, {
      maxOutputLength: Math.max(1, expected.plainLength),
      chunkSize: Math.max(CHUNK_SIZE_MIN, expected.plainLength),
    });
  } catch (cause) {
    throw damaged(expected.name, `chunk ${seal.index} does not decompress`, { cause });
  }
  releaseMemory(compressed);
  if (plain.length !== expected.plainLength)
    throw damaged(
      expected.name,
      `chunk ${seal.index} holds ${plain.length} bytes, not ${expected.plainLength}`,
    );
  return plain;
}

function decrypt(seal: ChunkSeal, sealed: Uint8Array, name: string): Uint8Array {
  const decipher = createDecipheriv('aes-256-gcm', seal.key, nonceOf(seal), {
    authTagLength: TAG_SIZE,
  });
  decipher.setAAD(seal.aad);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_SIZE));
  try {
    const compressed = decipher.update(sealed.subarray(0, sealed.length - TAG_SIZE));
    decipher.final();
    return compressed;
  } catch (cause) {
    throw new SegmentError(
      'SegmentKeyRefused',
      `Chunk ${seal.index} of segment ${name} does not open with this machine's data key: the key is another one, or the bytes were changed. Restore the blob from the storage account's soft-deleted versions, or give the right recovery key.`,
      { cause },
    );
  }
}

function nonceOf(seal: ChunkSeal): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(7, seal.index);
  nonce[11] = seal.last ? 1 : 0;
  return nonce;
}

// --------------------------------------------------------------------------------------------------------------- in workers

/** What goes to a worker, and what comes back (codecWorker.ts). */
export type CodecJob =
  | { do: 'seal'; seal: ChunkSeal; bytes: Uint8Array }
  | { do: 'open'; seal: ChunkSeal; bytes: Uint8Array; expected: ExpectedChunk };
export type CodecResult =
  | { bytes: Uint8Array }
  | { failed: { code: SegmentError['code'] | undefined; message: string } };

/** Threads that each run a module's `handle` (port; the adapter is platform/node/workerPool.ts). */
export interface JobPool {
  readonly size: number;
  run(job: unknown, transfer: readonly ArrayBuffer[]): Promise<unknown>;
}

/** The module that a JobPool for `pooledCodec` must run. */
export const codecWorkerUrl = new URL(
  import.meta.url.endsWith('.ts') ? 'codecWorker.ts' : 'codecWorker.js',
  import.meta.url,
);

/** Works in the pool's threads; buffers are moved there and back, not copied. */
export function pooledCodec(pool: JobPool): SegmentCodec {
  const run = async (job: CodecJob): Promise<Uint8Array> => {
    const movable = ownBuffer(job.bytes);
    const result = (await pool.run({ ...job, bytes: movable }, [movable.buffer])) as CodecResult;
    if ('bytes' in result) return result.bytes;
    const { code, message } = result.failed;
    throw code === undefined ? new Error(message) : new SegmentError(code, message);
  };
  return {
    parallelism: pool.size + 1,
    seal: (seal, plain) => run({ do: 'seal', seal, bytes: plain }),
    open: (seal, sealed, expected) => run({ do: 'open', seal, bytes: sealed, expected }),
  };
}

/** One job, in the worker. */
export function runCodecJob(job: CodecJob): CodecResult {
  try {
    const bytes =
      job.do === 'seal'
        ? sealChunk(job.seal, job.bytes)
        : openChunk(job.seal, job.bytes, job.expected);
    releaseMemory(job.bytes);
    return { bytes };
  } catch (error) {
    const code = error instanceof SegmentError ? error.code : undefined;
    return { failed: { code, message: errorMessage(error) } };
  }
}

/**
 * Gives large memory back now. The collector of each thread would let some 64 MiB of dead buffers pile up first, which is most of what a
 * process server may use. Nothing may look at the bytes afterwards; small buffers may share a pool and are left alone.
 */
export function releaseMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength > RELEASE_ABOVE) buffer.transfer(0);
}

/** A view over a whole buffer of its own, which can be moved between threads; copies only when it has to. */
export function ownBuffer(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole =
    bytes.byteOffset === 0 &&
    bytes.buffer instanceof ArrayBuffer &&
    bytes.byteLength === bytes.buffer.byteLength;
  // Not bytes.slice(): that of a Buffer is a view again, often into a pool that must not be moved.
  return whole ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
}
