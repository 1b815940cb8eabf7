import type { ContainerClient, PageBlobClient } from '@azure/storage-blob';
import type { PageBlobInfo, PageBlobStore, PageFence, PageRange } from '../ports.ts';
import {
  checkMetadata,
  PAGE_BLOB_MAX,
  PAGE_SIZE,
  PAGE_WRITE_MAX,
  StoreError,
} from '../storeErrors.ts';
import { answerInvalid, withBody } from './blobBodies.ts';
import type { BlobCall, BlobCalls, BlobTry } from './blobCalls.ts';
import { blobFailure, isMissing, undefinedIfMissing } from './blobErrors.ts';
import { fenceConditions, overtaken, releaseFence, renewFence, takeFence } from './pageFences.ts';
import { checkPageRange, pageRanges, readPages } from './pageReads.ts';

/** PageBlobStore over the page blobs of a container, under `prefix` (empty, or ending in a slash). */
export class AzurePageBlobStore implements PageBlobStore {
  readonly #container: ContainerClient;
  readonly #calls: BlobCalls;
  readonly #prefix: string;

  constructor(deps: { container: ContainerClient; calls: BlobCalls }, options: { prefix: string }) {
    this.#container = deps.container;
    this.#calls = deps.calls;
    this.#prefix = options.prefix;
  }

  async create(
    key: string,
    options: { size: number; sequenceNumber: number; metadata?: Record<string, string> },
  ): Promise<'created' | 'exists'> {
    checkSize(key, options.size);
    checkMetadata(key, options.metadata ?? {});
    return await this.#call({ operation: 'Creating', object: key }, async ({ signal }) => {
      try {
        await this.#blob(key).create(options.size, {
          abortSignal: signal,
          blobSequenceNumber: options.sequenceNumber,
          metadata: options.metadata ?? {},
          conditions: { ifNoneMatch: '*' },
        });
        return 'created';
      } catch (error) {
        if (existsAlready(error)) return 'exists';
        throw error;
      }
    });
  }

  async info(key: string, options: { snapshot?: string } = {}): Promise<PageBlobInfo | undefined> {
    const call = { operation: 'Looking at', object: key };
    return await this.#call(call, async ({ signal }) => {
      const found = await this.#blob(key, options.snapshot)
        .getProperties({ abortSignal: signal })
        .catch(undefinedIfMissing);
      if (found === undefined) return undefined;
      const { contentLength, blobSequenceNumber, etag } = found;
      if (contentLength === undefined || etag === undefined)
        throw answerInvalid(key, 'it has no size or ETag');
      return {
        size: contentLength,
        sequenceNumber: blobSequenceNumber ?? 0,
        etag,
        metadata: found.metadata ?? {},
        leased: options.snapshot === undefined && found.leaseState === 'leased',
      };
    });
  }

  async resize(key: string, size: number, fence: PageFence): Promise<void> {
    checkSize(key, size);
    // A try that lands late would undo a later resize: it is not sent twice.
    const call = { operation: 'Resizing', object: key, retry: 'ifNotDone' as const };
    await this.#call(call, async ({ signal }) => {
      await this.#blob(key).resize(size, {
        abortSignal: signal,
        conditions: { leaseId: fence.leaseId },
      });
    });
  }

  async fence(
    key: string,
    options: { sequenceNumber: number; leaseSeconds: number },
  ): Promise<PageFence> {
    return await takeFence(this.#named(key), { ...options, look: () => this.info(key) });
  }

  async renew(key: string, fence: PageFence): Promise<void> {
    await renewFence(this.#named(key), fence);
  }

  async release(key: string, fence: PageFence): Promise<void> {
    await releaseFence(this.#named(key), fence);
  }

  async write(key: string, bytes: Uint8Array, offset: number, fence: PageFence): Promise<void> {
    checkPageRange(key, { offset, length: bytes.length }, PAGE_WRITE_MAX);
    const call = {
      operation: 'Writing to',
      object: key,
      sends: bytes.length,
      retry: 'ifNotDone' as const,
    };
    await this.#call(call, async (context) => {
      await withBody(bytes, context, async (body, size) =>
        this.#blob(key).uploadPages(body, offset, size, {
          abortSignal: context.signal,
          onProgress: context.progress,
          conditions: fenceConditions(fence),
        }),
      );
    });
  }

  async clear(key: string, range: PageRange, fence: PageFence): Promise<void> {
    checkPageRange(key, range, PAGE_BLOB_MAX);
    const call = { operation: 'Clearing pages of', object: key, retry: 'ifNotDone' as const };
    await this.#call(call, async ({ signal }) => {
      await this.#blob(key).clearPages(range.offset, range.length, {
        abortSignal: signal,
        conditions: fenceConditions(fence),
      });
    });
  }

  async read(
    key: string,
    range: PageRange,
    options: { snapshot?: string } = {},
  ): Promise<Uint8Array> {
    const client = this.#blob(key, options.snapshot);
    return await readPages({ client, calls: this.#calls, object: key, range });
  }

  async *ranges(key: string, options: { snapshot?: string } = {}): AsyncIterable<PageRange> {
    const info = await this.info(key, options);
    if (info === undefined)
      throw new StoreError(
        'StoreObjectMissing',
        `Listing the pages of ${key} ${options.snapshot ?? ''} failed: it does not exist.`,
      );
    const client = this.#blob(key, options.snapshot);
    yield* pageRanges({ client, calls: this.#calls, object: key, size: info.size });
  }

  async snapshot(
    key: string,
    options: { fence: PageFence; metadata: Record<string, string> },
  ): Promise<{ snapshot: string }> {
    const { fence, metadata } = options;
    checkMetadata(key, metadata);
    const before = await this.#call({ operation: 'Looking at', object: key }, ({ signal }) =>
      this.#blob(key).getProperties({ abortSignal: signal }),
    );
    if (before.blobSequenceNumber !== fence.sequenceNumber)
      throw overtaken(key, before.blobSequenceNumber ?? 0, fence.sequenceNumber);
    // The service's clock, down to the second, by which it names snapshots.
    const startedAt = before.date?.getTime() ?? 0;
    return await this.#call({ operation: 'Snapshotting', object: key }, async (context) => {
      const mine = context.maybeDone
        ? await this.#snapshotSince(key, { startedAt, metadata })
        : undefined;
      if (mine !== undefined) return { snapshot: mine };
      const response = await this.#blob(key).createSnapshot({
        abortSignal: context.signal,
        metadata,
        // Nothing may change between what we looked at and what is kept.
        conditions: { leaseId: fence.leaseId, ifMatch: before.etag ?? '' },
      });
      if (response.snapshot === undefined) throw answerInvalid(key, 'its snapshot has no name');
      return { snapshot: response.snapshot };
    });
  }

  async *snapshots(
    key: string,
  ): AsyncIterable<{ snapshot: string; metadata: Record<string, string> }> {
    const name = this.#prefix + key;
    const found: { snapshot: string; metadata: Record<string, string> }[] = [];
    let continuationToken: string | undefined;
    do {
      const call = { operation: 'Listing the snapshots of', object: key };
      const page = await this.#call(call, async ({ signal }) => {
        const pages = this.#container
          .listBlobsFlat({
            prefix: name,
            includeSnapshots: true,
            includeMetadata: true,
            abortSignal: signal,
          })
          .byPage(continuationToken === undefined ? {} : { continuationToken });
        return (await pages.next()).value;
      });
      for (const item of page?.segment.blobItems ?? [])
        if (item.name === name && item.snapshot)
          found.push({ snapshot: item.snapshot, metadata: item.metadata ?? {} });
      continuationToken = page?.continuationToken || undefined;
    } while (continuationToken !== undefined);
    yield* found.sort((a, b) => (a.snapshot < b.snapshot ? -1 : 1));
  }

  async removeSnapshot(key: string, snapshot: string): Promise<void> {
    await this.#call({ operation: 'Removing a snapshot of', object: key }, async ({ signal }) => {
      await this.#blob(key, snapshot).delete({ abortSignal: signal }).catch(undefinedIfMissing);
    });
  }

  async startCopy(names: {
    from: string;
    snapshot: string;
    to: string;
  }): Promise<'started' | 'exists'> {
    const source = this.#blob(names.from, names.snapshot);
    return await this.#call({ operation: 'Copying to', object: names.to }, async ({ signal }) => {
      try {
        const poller = await this.#blob(names.to).beginCopyFromURL(source.url, {
          abortSignal: signal,
          conditions: { ifNoneMatch: '*' },
        });
        poller.stopPolling();
        return 'started';
      } catch (error) {
        if (existsAlready(error)) return 'exists';
        throw error;
      }
    });
  }

  async copyState(key: string): ReturnType<PageBlobStore['copyState']> {
    return await this.#call({ operation: 'Looking at', object: key }, async ({ signal }) => {
      const found = await this.#blob(key)
        .getProperties({ abortSignal: signal })
        .catch(undefinedIfMissing);
      if (found === undefined) return { state: 'missing' } as const;
      switch (found.copyStatus) {
        case 'success':
          return { state: 'success' } as const;
        case 'pending': {
          const [copied = 0, total = 0] = (found.copyProgress ?? '').split('/').map(Number);
          return { state: 'pending', copied, total } as const;
        }
        case undefined:
          return { state: 'failed', reason: `${key} was not made by a copy` } as const;
        default:
          return {
            state: 'failed',
            reason: `${found.copyStatus}: ${found.copyStatusDescription ?? 'no reason given'}`,
          } as const;
      }
    });
  }

  async remove(key: string): Promise<void> {
    await this.#call({ operation: 'Removing', object: key }, async ({ signal }) => {
      const blob = this.#blob(key);
      const removal = { abortSignal: signal, deleteSnapshots: 'include' as const };
      try {
        await blob.delete(removal);
      } catch (error) {
        if (isMissing(error)) return;
        if (blobFailure(error).code !== 'LeaseIdMissing') throw error;
        // Whoever removes a replica has decided so; a lease left by a dead applier must not stand in the way.
        await blob.getBlobLeaseClient().breakLease(0, { abortSignal: signal });
        await blob.delete(removal).catch(undefinedIfMissing);
      }
    });
  }

  url(key: string): string {
    const url = new URL(this.#blob(key).url);
    url.search = '';
    return url.toString();
  }

  /** The snapshot of a try of ours whose answer was lost. Nobody else makes one: we hold the lease. */
  async #snapshotSince(
    key: string,
    options: { startedAt: number; metadata: Record<string, string> },
  ): Promise<string | undefined> {
    let newest: string | undefined;
    for await (const { snapshot, metadata } of this.snapshots(key))
      if (Date.parse(snapshot) >= options.startedAt && sameMetadata(metadata, options.metadata))
        newest = snapshot;
    return newest;
  }

  #blob(key: string, snapshot?: string): PageBlobClient {
    const client = this.#container.getPageBlobClient(this.#prefix + key);
    return snapshot === undefined ? client : client.withSnapshot(snapshot);
  }

  #named(key: string) {
    return { client: this.#blob(key), calls: this.#calls, object: key };
  }

  async #call<T>(call: BlobCall, attempt: (context: BlobTry) => Promise<T>): Promise<T> {
    return await this.#calls.run(call, attempt);
  }
}

function checkSize(key: string, size: number): void {
  if (!Number.isSafeInteger(size) || size % PAGE_SIZE !== 0 || size < 0 || size > PAGE_BLOB_MAX)
    throw new StoreError(
      'StoreRequestRefused',
      `${key} can't be ${size} bytes large: page blobs are whole pages of ${PAGE_SIZE}, up to 8 TiB.`,
    );
}

function existsAlready(error: unknown): boolean {
  const { status, code } = blobFailure(error);
  return (
    (status === 409 || status === 412) &&
    ['BlobAlreadyExists', 'ConditionNotMet', 'PendingCopyOperation'].includes(code)
  );
}

function sameMetadata(left: Record<string, string>, right: Record<string, string>): boolean {
  const names = Object.keys(left);
  return (
    names.length === Object.keys(right).length && names.every((name) => left[name] === right[name])
  );
}
