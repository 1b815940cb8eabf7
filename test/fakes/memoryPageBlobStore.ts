import type {
  Clock,
  PageBlobInfo,
  PageBlobStore,
  PageFence,
  PageRange,
} from '../../platform/ports.ts';
import {
  checkMetadata,
  PAGE_BLOB_MAX,
  PAGE_SIZE,
  PAGE_WRITE_MAX,
  StoreError,
} from '../../platform/storeErrors.ts';
import type { StoreFault } from './memoryObjectStore.ts';
import { SparsePages } from './sparsePages.ts';

interface Lease {
  id: string;
  seconds: number;
  /** On the monotonic clock. */
  expiresAt: number;
}

interface Snapshot {
  pages: SparsePages;
  sequenceNumber: number;
  etag: string;
  metadata: Record<string, string>;
}

interface Blob extends Snapshot {
  lease: Lease | undefined;
  snapshots: Map<string, Snapshot>;
  /** Set when the blob was made by a copy: when it is complete. */
  copiedAt: number | undefined;
  /** What is copied, until it is. */
  source?: { key: string; snapshot: string };
  /** Its source went before that. */
  copyFailed?: boolean;
}

export type PageOperation = Exclude<keyof PageBlobStore, 'url'>;

/** PageBlobStore in memory. Passes test/conformance/pageBlobStore.ts. */
export class MemoryPageBlobStore implements PageBlobStore {
  readonly #clock: Clock;
  readonly #blobs = new Map<string, Blob>();
  #version = 0;
  /** How long a copy stays pending. */
  copyMs = 0;
  /** Makes an operation fail; asked once for each. */
  fault: ((operation: PageOperation, key: string) => StoreFault | undefined) | undefined;
  /** Bytes of Put Page so far: what an applier costs. */
  writtenBytes = 0;
  readonly log: { operation: PageOperation; key: string }[] = [];

  constructor(deps: { clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** The storage itself loses a byte: in the blob, and in every snapshot that shares the page. */
  rot(key: string, offset: number): void {
    this.#blob(key).pages.rot(offset);
  }

  keys(): string[] {
    return [...this.#blobs.keys()].sort();
  }

  async create(
    key: string,
    options: { size: number; sequenceNumber: number; metadata?: Record<string, string> },
  ): Promise<'created' | 'exists'> {
    checkSize(key, options.size);
    checkMetadata(key, options.metadata ?? {});
    return this.#run('create', key, () => {
      if (this.#blobs.has(key)) return 'exists';
      this.#blobs.set(key, {
        pages: new SparsePages(options.size),
        sequenceNumber: options.sequenceNumber,
        etag: this.#etag(),
        metadata: { ...options.metadata },
        lease: undefined,
        snapshots: new Map(),
        copiedAt: undefined,
      });
      return 'created';
    });
  }

  async info(key: string, options: { snapshot?: string } = {}): Promise<PageBlobInfo | undefined> {
    return this.#run('info', key, () => {
      const found = this.#find(key, options.snapshot);
      return (
        found && {
          size: found.pages.size,
          sequenceNumber: found.sequenceNumber,
          etag: found.etag,
          metadata: { ...found.metadata },
          leased: options.snapshot === undefined && this.#leased(key),
        }
      );
    });
  }

  async resize(key: string, size: number, fence: PageFence): Promise<void> {
    checkSize(key, size);
    this.#run('resize', key, () => {
      const blob = this.#fenced(key, fence);
      blob.pages.resize(size);
      blob.etag = this.#etag();
    });
  }

  async fence(
    key: string,
    options: { sequenceNumber: number; leaseSeconds: number },
  ): Promise<PageFence> {
    return this.#run('fence', key, () => {
      const blob = this.#blob(key);
      if (blob.sequenceNumber > options.sequenceNumber)
        throw new StoreError(
          'FenceLost',
          `${key} is fenced at ${blob.sequenceNumber}, past our ${options.sequenceNumber}: another writer took over.`,
        );
      this.#version += 1;
      const id = `lease-${this.#version}`;
      blob.lease = {
        id,
        seconds: options.leaseSeconds,
        expiresAt: this.#clock.monotonic() + options.leaseSeconds * 1000,
      };
      blob.sequenceNumber = options.sequenceNumber;
      blob.etag = this.#etag();
      return { leaseId: id, sequenceNumber: options.sequenceNumber };
    });
  }

  async renew(key: string, fence: PageFence): Promise<void> {
    this.#run('renew', key, () => {
      const { lease, sequenceNumber } = this.#blob(key);
      // An expired lease can be renewed as long as nobody took another.
      if (lease?.id !== fence.leaseId || sequenceNumber !== fence.sequenceNumber)
        throw fenceLost(key);
      lease.expiresAt = this.#clock.monotonic() + lease.seconds * 1000;
    });
  }

  async release(key: string, fence: PageFence): Promise<void> {
    this.#run('release', key, () => {
      const blob = this.#blob(key);
      if (blob.lease?.id === fence.leaseId) blob.lease = undefined;
    });
  }

  async write(key: string, bytes: Uint8Array, offset: number, fence: PageFence): Promise<void> {
    if (bytes.length > PAGE_WRITE_MAX)
      throw new StoreError('StoreRequestRefused', `write of ${bytes.length} bytes to ${key}`);
    this.#run('write', key, () => {
      const blob = this.#fenced(key, fence);
      checkRange(key, { offset, length: bytes.length }, blob.pages.size);
      blob.pages.write(bytes, offset);
      blob.etag = this.#etag();
      this.writtenBytes += bytes.length;
    });
  }

  async clear(key: string, range: PageRange, fence: PageFence): Promise<void> {
    this.#run('clear', key, () => {
      const blob = this.#fenced(key, fence);
      checkRange(key, range, blob.pages.size);
      blob.pages.clear(range);
      blob.etag = this.#etag();
    });
  }

  async read(
    key: string,
    range: PageRange,
    options: { snapshot?: string } = {},
  ): Promise<Uint8Array> {
    return this.#run('read', key, () => {
      const found = this.#existing(key, options.snapshot);
      checkRange(key, range, found.pages.size);
      return found.pages.read(range);
    });
  }

  /** 64 KiB of a snapshot as they are kept, for whoever compares without copying; undefined: never written. Never changed. */
  snapshotChunk(key: string, snapshot: string, index: number): Uint8Array | undefined {
    return this.#existing(key, snapshot).pages.chunk(index);
  }

  async *ranges(key: string, options: { snapshot?: string } = {}): AsyncIterable<PageRange> {
    yield* this.#run('ranges', key, () => this.#existing(key, options.snapshot).pages.ranges());
  }

  async snapshot(
    key: string,
    options: { fence: PageFence; metadata: Record<string, string> },
  ): Promise<{ snapshot: string }> {
    checkMetadata(key, options.metadata);
    return this.#run('snapshot', key, () => {
      const blob = this.#fenced(key, options.fence);
      this.#version += 1;
      const time = new Date(this.#clock.now()).toISOString().replace('Z', '');
      const snapshot = `${time}${String(this.#version).padStart(4, '0')}Z`;
      blob.snapshots.set(snapshot, {
        pages: blob.pages.freeze(),
        sequenceNumber: blob.sequenceNumber,
        etag: blob.etag,
        metadata: { ...options.metadata },
      });
      return { snapshot };
    });
  }

  async *snapshots(
    key: string,
  ): AsyncIterable<{ snapshot: string; metadata: Record<string, string> }> {
    yield* this.#run('snapshots', key, () =>
      [...(this.#blobs.get(key)?.snapshots ?? [])].map(([snapshot, { metadata }]) => ({
        snapshot,
        metadata: { ...metadata },
      })),
    );
  }

  async removeSnapshot(key: string, snapshot: string): Promise<void> {
    this.#run('removeSnapshot', key, () => {
      this.#blobs.get(key)?.snapshots.delete(snapshot);
      // A copy whose source goes fails.
      for (const blob of this.#blobs.values()) {
        const isPending = (blob.copiedAt ?? 0) > this.#clock.monotonic();
        if (isPending && blob.source?.key === key && blob.source.snapshot === snapshot)
          blob.copyFailed = true;
      }
    });
  }

  async startCopy(names: {
    from: string;
    snapshot: string;
    to: string;
  }): Promise<'started' | 'exists'> {
    return this.#run('startCopy', names.to, () => {
      if (this.#blobs.has(names.to)) return 'exists';
      const source = this.#existing(names.from, names.snapshot);
      this.#blobs.set(names.to, {
        pages: source.pages.freeze(),
        sequenceNumber: source.sequenceNumber,
        etag: this.#etag(),
        metadata: { ...source.metadata },
        lease: undefined,
        snapshots: new Map(),
        copiedAt: this.#clock.monotonic() + this.copyMs,
        source: { key: names.from, snapshot: names.snapshot },
      });
      return 'started';
    });
  }

  async copyState(key: string): ReturnType<PageBlobStore['copyState']> {
    return this.#run('copyState', key, () => {
      const blob = this.#blobs.get(key);
      if (blob === undefined) return { state: 'missing' } as const;
      if (blob.copiedAt === undefined)
        return { state: 'failed', reason: `${key} was not made by a copy` } as const;
      if (blob.copyFailed === true)
        return { state: 'failed', reason: `the source of ${key} was removed` } as const;
      const total = blob.pages.size;
      const left = Math.max(0, blob.copiedAt - this.#clock.monotonic()) / (this.copyMs || 1);
      if (left > 0)
        return { state: 'pending', copied: Math.floor(total * (1 - left)), total } as const;
      return { state: 'success' } as const;
    });
  }

  async remove(key: string): Promise<void> {
    this.#run('remove', key, () => this.#blobs.delete(key));
  }

  url(key: string): string {
    return `https://memory.invalid/vault/${key}`;
  }

  #blob(key: string): Blob {
    const blob = this.#blobs.get(key);
    if (blob === undefined) throw new StoreError('StoreObjectMissing', `${key} does not exist.`);
    return blob;
  }

  #leased(key: string): boolean {
    const lease = this.#blobs.get(key)?.lease;
    return lease !== undefined && lease.expiresAt > this.#clock.monotonic();
  }

  #find(key: string, snapshot: string | undefined): Snapshot | undefined {
    const blob = this.#blobs.get(key);
    return snapshot === undefined ? blob : blob?.snapshots.get(snapshot);
  }

  #existing(key: string, snapshot: string | undefined): Snapshot {
    const found = this.#find(key, snapshot);
    if (found === undefined)
      throw new StoreError('StoreObjectMissing', `${key} ${snapshot ?? ''} does not exist.`);
    return found;
  }

  #fenced(key: string, fence: PageFence): Blob {
    const blob = this.#blob(key);
    const held =
      blob.lease?.id === fence.leaseId &&
      blob.lease.expiresAt > this.#clock.monotonic() &&
      blob.sequenceNumber === fence.sequenceNumber;
    if (!held) throw fenceLost(key);
    return blob;
  }

  #etag(): string {
    this.#version += 1;
    return `"0x${this.#version.toString(16).padStart(16, '0').toUpperCase()}"`;
  }

  #run<T>(operation: PageOperation, key: string, act: () => T): T {
    this.log.push({ operation, key });
    const fault = this.fault?.(operation, key);
    if (fault?.when === 'before') throw fault.error;
    const result = act();
    if (fault !== undefined) throw fault.error;
    return result;
  }
}

function fenceLost(key: string): StoreError {
  return new StoreError('FenceLost', `The lease or sequence number of ${key} is another writer's.`);
}

function checkSize(key: string, size: number): void {
  if (size % PAGE_SIZE !== 0 || size < 0 || size > PAGE_BLOB_MAX)
    throw new StoreError('StoreRequestRefused', `${key} can't be ${size} bytes large.`);
}

function checkRange(key: string, range: PageRange, size: number): void {
  const aligned = range.offset % PAGE_SIZE === 0 && range.length % PAGE_SIZE === 0;
  if (!aligned || range.length <= 0 || range.offset < 0 || range.offset + range.length > size)
    throw new StoreError(
      'StoreRequestRefused',
      `${range.length} bytes at ${range.offset} are no page range of ${key} (${size} bytes).`,
    );
}
