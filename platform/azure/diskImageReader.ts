import { AnonymousCredential, PageBlobClient } from '@azure/storage-blob';
import type { Clock, DiskImageReader, PageRange, Random } from '../ports.ts';
import { answerInvalid } from './blobBodies.ts';
import { BlobCalls, type BlobPatience } from './blobCalls.ts';
import { pageRanges, readPages } from './pageReads.ts';
import { storagePipeline } from './vaultStores.ts';

/** Reads a managed disk by its SAS URL, which holds the only credential that is needed, and stays out of every message. */
export class AzureDiskImageReader implements DiskImageReader {
  readonly #deps: { clock: Clock; random: Random };
  readonly #options: { caBundle?: string | undefined; patience?: BlobPatience | undefined };

  constructor(
    deps: { clock: Clock; random: Random },
    options: { caBundle?: string | undefined; patience?: BlobPatience | undefined } = {},
  ) {
    this.#deps = deps;
    this.#options = options;
  }

  async size(url: string): Promise<number> {
    const { client, calls, object } = this.#open(url);
    return await calls.run({ operation: 'Looking at', object }, async ({ signal }) => {
      const { contentLength } = await client.getProperties({ abortSignal: signal });
      if (contentLength === undefined) throw answerInvalid(object, 'it has no size');
      return contentLength;
    });
  }

  async *ranges(url: string): AsyncIterable<PageRange> {
    const size = await this.size(url);
    yield* pageRanges({ ...this.#open(url), size });
  }

  async read(url: string, range: PageRange): Promise<Uint8Array> {
    return await readPages({ ...this.#open(url), range });
  }

  #open(url: string): { client: PageBlobClient; calls: BlobCalls; object: string } {
    const { host, pathname } = new URL(url);
    const pipeline = storagePipeline(new AnonymousCredential(), this.#options.caBundle);
    return {
      client: new PageBlobClient(url, pipeline),
      calls: new BlobCalls(this.#deps, { account: host, patience: this.#options.patience }),
      object: `disk ${pathname}`,
    };
  }
}
