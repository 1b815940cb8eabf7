/** Bodies on their way to and from the storage service. */
import { Readable } from 'node:stream';
import { errorMessage } from '../errors.ts';
import type { ObjectSource } from '../ports.ts';
import { StoreError } from '../storeErrors.ts';
import { madeShortLived } from '../youngMemory.ts';
import type { BlobTry } from './blobCalls.ts';

/** A body sent in one piece shows no progress, so larger ones go in pieces of this. */
const PIECE = 256 << 10;

/**
 * Sends a body, opened anew for each try. A source that fails, or gives another number of bytes than it said, fails the try: the
 * request is aborted before it is complete, so nothing is stored.
 */
export async function withBody<T>(
  body: Uint8Array | ObjectSource,
  context: BlobTry,
  send: (body: Buffer | (() => NodeJS.ReadableStream), size: number) => Promise<T>,
): Promise<T> {
  if (body instanceof Uint8Array && body.length <= PIECE)
    return await send(Buffer.from(body.buffer, body.byteOffset, body.byteLength), body.length);
  const size = body instanceof Uint8Array ? body.length : body.size;
  const stream =
    body instanceof Uint8Array ? Readable.from(pieces(body), { objectMode: false }) : counted(body);
  // Without a listener, a failing source would take the process with it; the HTTP client listens to none.
  stream.on('error', context.fail);
  try {
    return await send(() => stream, size);
  } finally {
    stream.destroy();
  }
}

/** A whole answer's body. Throws StoreError when it is not exactly `size` bytes. */
export async function readBody(options: {
  stream: NodeJS.ReadableStream | undefined;
  size: number;
  object: string;
  progress: () => void;
}): Promise<Uint8Array> {
  const { stream, size, object } = options;
  const out = new Uint8Array(size);
  let filled = 0;
  stream?.on('error', () => {});
  if (stream !== undefined)
    for await (const chunk of stream) {
      if (typeof chunk === 'string' || filled + chunk.length > size)
        throw answerInvalid(object, `more than the ${size} bytes it announced`);
      out.set(chunk, filled);
      filled += chunk.length;
      options.progress();
    }
  // A connection that broke mid-body: the same request may succeed.
  if (filled < size)
    throw new StoreError(
      'VaultUnreachable',
      `Reading ${object} broke off after ${filled} of ${size} bytes. Check the network between here and the storage account.`,
    );
  return out;
}

/** Leaves an answer's body unread. Its stream would otherwise throw, with nobody listening, when the connection is cut. */
export function discardBody(stream: NodeJS.ReadableStream | undefined): void {
  stream?.on('error', () => {});
  if (stream instanceof Readable) stream.destroy();
}

export function answerInvalid(object: string, problem: string): StoreError {
  return new StoreError(
    'StoreAnswerInvalid',
    `The storage service's answer about ${object} can't be right: ${problem}. Look for a proxy in between that changes answers.`,
  );
}

function* pieces(body: Uint8Array): Generator<Buffer> {
  for (let offset = 0; offset < body.length; offset += PIECE)
    yield Buffer.from(body.buffer, body.byteOffset + offset, Math.min(PIECE, body.length - offset));
}

function counted(source: ObjectSource): Readable {
  return Readable.from(
    (async function* () {
      let given = 0;
      try {
        for await (const chunk of source.open()) {
          const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
          given += bytes.length;
          if (given > source.size) break;
          madeShortLived(bytes.length);
          yield bytes;
        }
      } catch (cause) {
        throw new StoreError(
          'StoreRequestRefused',
          `A body could not be read to be sent: ${errorMessage(cause)}. Nothing was stored.`,
          { cause },
        );
      }
      if (given !== source.size)
        throw new StoreError(
          'StoreRequestRefused',
          `A body of ${source.size} bytes gave ${given} when it was read. Nothing was stored.`,
        );
    })(),
    { objectMode: false },
  );
}
