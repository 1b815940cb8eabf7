/** Reading page blobs: ours, their snapshots, and managed disks by SAS URL. */
import type { PageBlobClient } from '@azure/storage-blob';
import type { PageRange } from '../ports.ts';
import { PAGE_SIZE, StoreError } from '../storeErrors.ts';
import { answerInvalid, discardBody, readBody } from './blobBodies.ts';
import type { BlobCalls } from './blobCalls.ts';

/** The largest single read. */
const READ_MAX = 64 << 20;
/** Asking for the ranges of a large fragmented blob at once can time out, so it is asked for in windows. */
const RANGES_WINDOW = 64 * 2 ** 30;
const RANGES_PAGE = 5000;

/** Throws StoreError: StoreObjectMissing, StoreRequestRefused for a range that is none of its. */
export async function readPages(options: {
  client: PageBlobClient;
  calls: BlobCalls;
  object: string;
  range: PageRange;
}): Promise<Uint8Array> {
  const { client, calls, object, range } = options;
  checkPageRange(object, range, READ_MAX);
  return await calls.run({ operation: 'Reading', object }, async (context) => {
    const response = await client.download(range.offset, range.length, {
      abortSignal: context.signal,
      maxRetryRequests: 0,
    });
    const size = response.contentLength ?? -1;
    if (size !== range.length) {
      discardBody(response.readableStreamBody);
      // A range that ends past the blob's end is answered with what there is.
      throw new StoreError(
        'StoreRequestRefused',
        `${range.length} bytes at ${range.offset} are not all inside ${object}: ${size} are there.`,
      );
    }
    const stream = response.readableStreamBody;
    return await readBody({ stream, size, object, progress: context.progress });
  });
}

/** Ranges that may hold data, in order, adjacent ones merged. `size`: the blob's. */
export async function* pageRanges(options: {
  client: PageBlobClient;
  calls: BlobCalls;
  object: string;
  size: number;
}): AsyncGenerator<PageRange> {
  let held: PageRange | undefined;
  for (let offset = 0; offset < options.size; offset += RANGES_WINDOW) {
    const window = { offset, length: Math.min(RANGES_WINDOW, options.size - offset) };
    for await (const range of windowRanges({ ...options, window })) {
      if (held !== undefined && held.offset + held.length === range.offset) {
        held.length += range.length;
        continue;
      }
      if (held !== undefined) yield held;
      held = range;
    }
  }
  if (held !== undefined) yield held;
}

async function* windowRanges(options: {
  client: PageBlobClient;
  calls: BlobCalls;
  object: string;
  window: PageRange;
}): AsyncGenerator<PageRange> {
  const { client, calls, object, window } = options;
  const end = window.offset + window.length;
  let continuationToken: string | undefined;
  let last = window.offset;
  do {
    const page = await calls.run({ operation: 'Listing the pages of', object }, async (context) => {
      const pages = client
        .listPageRanges(window.offset, window.length, { abortSignal: context.signal })
        .byPage({
          maxPageSize: RANGES_PAGE,
          ...(continuationToken === undefined ? {} : { continuationToken }),
        });
      return (await pages.next()).value;
    });
    for (const range of page?.pageRange ?? []) {
      // `end` is the last byte. A service that ignores the window answers with ranges that reach out of it.
      const start = Math.max(range.start, window.offset);
      const stop = Math.min(range.end + 1, end);
      if (start >= stop) continue;
      if (start < last) throw answerInvalid(object, 'its page ranges are out of order');
      last = stop;
      yield { offset: start, length: stop - start };
    }
    continuationToken = page?.continuationToken || undefined;
  } while (continuationToken !== undefined);
}

export function checkPageRange(object: string, range: PageRange, maximum: number): void {
  const { offset, length } = range;
  if (
    !Number.isSafeInteger(offset) ||
    offset < 0 ||
    offset % PAGE_SIZE !== 0 ||
    length % PAGE_SIZE !== 0 ||
    length <= 0 ||
    length > maximum
  )
    throw new StoreError(
      'StoreRequestRefused',
      `${length} bytes at ${offset} of ${object}: offsets and lengths are multiples of ${PAGE_SIZE}, at most ${maximum} bytes at once.`,
    );
}
