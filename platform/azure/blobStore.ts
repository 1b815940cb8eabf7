import type { ContainerClient, RestError } from '@azure/storage-blob';
import type { ObjectInfo, ObjectSource, ObjectStore, StoredObject } from '../ports.ts';
import { StoreError } from '../storeErrors.ts';
import { answerInvalid, discardBody, readBody, withBody } from './blobBodies.ts';
import type { BlobCall, BlobCalls, BlobTry } from './blobCalls.ts';
import { blobFailure, isMissing, originalFailure, undefinedIfMissing } from './blobErrors.ts';

/** The largest body that `get` holds in memory at once; larger objects are read by ranges. */
const GET_MAX = 256 << 20;
/** Documents are smaller; what is larger is not compared after a lost answer. */
const COMPARE_MAX = 8 << 20;

/** ObjectStore over the block blobs of a container, under `prefix` (empty, or ending in a slash). */
export class AzureBlobStore implements ObjectStore {
  readonly #container: ContainerClient;
  readonly #calls: BlobCalls;
  readonly #prefix: string;

  constructor(deps: { container: ContainerClient; calls: BlobCalls }, options: { prefix: string }) {
    this.#container = deps.container;
    this.#calls = deps.calls;
    this.#prefix = options.prefix;
  }

  async get(
    key: string,
    options: { offset?: number; length?: number; signal?: AbortSignal } = {},
  ): Promise<StoredObject | undefined> {
    const { offset = 0, length, signal } = options;
    const found = await this.#call(
      { operation: 'Reading', object: key, signal },
      async (context) => {
        const response = await this.#blob(key).download(offset, length, {
          abortSignal: context.signal,
          maxRetryRequests: 0,
        });
        const size = response.contentLength ?? -1;
        if (size < 0 || size > GET_MAX) {
          discardBody(response.readableStreamBody);
          throw new StoreError(
            'StoreRequestRefused',
            `${key} is ${size} bytes large; read it in ranges of at most ${GET_MAX}.`,
          );
        }
        const stream = response.readableStreamBody;
        const body = await readBody({ stream, size, object: key, progress: context.progress });
        const whole = /\/(\d+)$/.exec(response.contentRange ?? '')?.[1];
        return {
          ...infoOf(key, response, whole === undefined ? size : Number(whole)),
          body,
        };
      },
    ).catch((error: unknown) => {
      if (isMissing(error)) return undefined;
      // An empty object, or an offset at its end: it exists, and there is nothing there.
      if (originalFailure(error).status === 416) return 'nothing' as const;
      throw error;
    });
    if (found !== 'nothing') return found;
    const info = await this.head(key);
    return info && { ...info, body: new Uint8Array(0) };
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    return await this.#call({ operation: 'Looking at', object: key }, async ({ signal }) => {
      const properties = await this.#blob(key).getProperties({ abortSignal: signal });
      return infoOf(key, properties, properties.contentLength ?? 0);
    }).catch(undefinedIfMissing);
  }

  async putIfAbsent(
    key: string,
    body: Uint8Array | ObjectSource,
    options: { signal?: AbortSignal } = {},
  ): Promise<{ outcome: 'created'; etag: string } | { outcome: 'exists' }> {
    const sends = body instanceof Uint8Array ? body.length : body.size;
    const call = { operation: 'Creating', object: key, signal: options.signal, sends };
    return await this.#call(call, async (context) => {
      try {
        const etag = await this.#upload(key, body, context, { ifNoneMatch: '*' });
        return { outcome: 'created', etag } as const;
      } catch (error) {
        // Also when a try of our own created it and its answer was lost: the caller compares, if it has to know.
        if (
          failedWith(
            error,
            [409, 412, 403],
            ['BlobAlreadyExists', 'ConditionNotMet', 'UnauthorizedBlobOverwrite'],
          )
        )
          return { outcome: 'exists' } as const;
        throw error;
      }
    });
  }

  async replace(
    key: string,
    body: Uint8Array,
    condition: { etag: string },
  ): Promise<{ outcome: 'replaced'; etag: string } | { outcome: 'conflict' }> {
    const call = { operation: 'Replacing', object: key, sends: body.length };
    return await this.#call(call, async (context) => {
      try {
        const etag = await this.#upload(key, body, context, { ifMatch: condition.etag });
        return { outcome: 'replaced', etag } as const;
      } catch (error) {
        if (!failedWith(error, [412, 404], ['ConditionNotMet', 'BlobNotFound'])) throw error;
        // The conflict may be with our own earlier try, whose answer was lost.
        const present = context.maybeDone
          ? await this.get(key, { length: COMPARE_MAX })
          : undefined;
        if (present !== undefined && Buffer.from(present.body).equals(body))
          return { outcome: 'replaced', etag: present.etag } as const;
        return { outcome: 'conflict' } as const;
      }
    });
  }

  async put(key: string, body: Uint8Array): Promise<{ etag: string }> {
    const call = { operation: 'Writing', object: key, sends: body.length };
    return await this.#call(call, async (context) => ({
      etag: await this.#upload(key, body, context, {}),
    }));
  }

  async *list(prefix: string, options: { startAfter?: string } = {}): AsyncIterable<ObjectInfo> {
    const { startAfter = '' } = options;
    let continuationToken: string | undefined;
    do {
      const page = await this.#call(
        { operation: 'Listing', object: `${prefix}*` },
        async ({ signal }) => {
          const pages = this.#container
            .listBlobsFlat({
              prefix: this.#prefix + prefix,
              abortSignal: signal,
              // Where the service knows it, it skips what we filter below.
              ...(startAfter === '' ? {} : { startFrom: this.#prefix + startAfter }),
            })
            .byPage({
              maxPageSize: 5000,
              ...(continuationToken === undefined ? {} : { continuationToken }),
            });
          return (await pages.next()).value;
        },
      );
      for (const item of page?.segment.blobItems ?? []) {
        const key = item.name.slice(this.#prefix.length);
        if (key > startAfter && item.properties.blobType === 'BlockBlob')
          yield infoOf(key, item.properties, item.properties.contentLength ?? 0);
      }
      continuationToken = page?.continuationToken || undefined;
    } while (continuationToken !== undefined);
  }

  async remove(
    key: string,
    condition?: { etag: string },
  ): Promise<'removed' | 'missing' | 'conflict'> {
    return await this.#call({ operation: 'Removing', object: key }, async (context) => {
      try {
        await this.#blob(key).delete({
          abortSignal: context.signal,
          deleteSnapshots: 'include',
          ...(condition === undefined ? {} : { conditions: { ifMatch: condition.etag } }),
        });
        return 'removed';
      } catch (error) {
        // The service says "condition not met" of what is not there, too.
        const conflict = failedWith(error, [412], ['ConditionNotMet']);
        if (conflict && (await this.head(key)) !== undefined) return 'conflict';
        if (!conflict && !isMissing(error)) throw error;
        return context.maybeDone ? 'removed' : 'missing';
      }
    });
  }

  async serverTime(): Promise<number> {
    const call = { operation: 'Asking the time by', object: 'vault.json' };
    return await this.#call(call, async ({ signal }) => {
      const date = await this.#blob('vault.json')
        .getProperties({ abortSignal: signal })
        .then((properties) => properties.date?.toUTCString())
        .catch((error: unknown) => {
          // Any answer carries the time, also that it is not there.
          if (isMissing(error)) return (error as RestError).response?.headers.get('date');
          throw error;
        });
      const time = Date.parse(date ?? '');
      if (Number.isNaN(time)) throw answerInvalid('the time', 'it has no Date header');
      return time;
    });
  }

  async #upload(
    key: string,
    body: Uint8Array | ObjectSource,
    context: BlobTry,
    conditions: { ifNoneMatch?: string; ifMatch?: string },
  ): Promise<string> {
    const response = await withBody(body, context, async (stream, size) =>
      this.#blob(key).upload(stream, size, {
        abortSignal: context.signal,
        conditions,
        onProgress: context.progress,
        blobHTTPHeaders: {
          blobContentType: key.endsWith('.json') ? 'application/json' : 'application/octet-stream',
        },
      }),
    );
    if (response.etag === undefined) throw answerInvalid(key, 'it has no ETag');
    return response.etag;
  }

  #blob(key: string) {
    return this.#container.getBlockBlobClient(this.#prefix + key);
  }

  async #call<T>(call: BlobCall, attempt: (context: BlobTry) => Promise<T>): Promise<T> {
    return await this.#calls.run(call, attempt);
  }
}

function infoOf(
  key: string,
  properties: { etag?: string | undefined; lastModified?: Date | undefined },
  size: number,
): ObjectInfo {
  if (properties.etag === undefined) throw answerInvalid(key, 'it has no ETag');
  // Listings leave out the quotes that every other answer has.
  const etag = properties.etag.startsWith('"') ? properties.etag : `"${properties.etag}"`;
  return { key, size, etag, lastModified: properties.lastModified?.getTime() ?? 0 };
}

function failedWith(
  error: unknown,
  statuses: readonly number[],
  codes: readonly string[],
): boolean {
  const { status, code } = blobFailure(error);
  return status !== undefined && statuses.includes(status) && codes.includes(code);
}
