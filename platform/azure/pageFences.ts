/**
 * Fences of page blobs: a lease, and a sequence number that only rises. Every write carries both, so that what an earlier writer sent
 * can't land any more.
 */
import type { PageBlobClient } from '@azure/storage-blob';
import type { PageFence } from '../ports.ts';
import { isStoreError, StoreError } from '../storeErrors.ts';
import type { BlobCalls } from './blobCalls.ts';
import { blobFailure } from './blobErrors.ts';

/** Each lost race for a lease means that another writer fences too; the higher sequence number wins in the end. */
const FENCE_TRIES = 5;

/** The blob that is fenced. */
interface FencedBlob {
  client: PageBlobClient;
  calls: BlobCalls;
  object: string;
}

/**
 * A sequence number that is higher already is another writer's: FenceLost, and that writer keeps its lease. Equal is ours, of a
 * try before.
 */
export async function takeFence(
  blob: FencedBlob,
  options: {
    sequenceNumber: number;
    leaseSeconds: number;
    /** The blob as it is now; undefined when it does not exist. */
    look: () => Promise<{ sequenceNumber: number } | undefined>;
  },
): Promise<PageFence> {
  const { object } = blob;
  const { sequenceNumber } = options;
  const fence = { leaseId: uuidOf(blob.calls.random.bytes(16)), sequenceNumber };
  for (let tries = 1; tries <= FENCE_TRIES; tries += 1) {
    const present = await options.look();
    if (present === undefined)
      throw new StoreError('StoreObjectMissing', `Fencing ${object} failed: it does not exist.`);
    if (present.sequenceNumber > sequenceNumber)
      throw overtaken(object, present.sequenceNumber, sequenceNumber);
    if (!(await takeLease(blob, fence, options.leaseSeconds))) continue;
    const reached = await raiseSequenceNumber(blob, fence);
    if (reached === sequenceNumber) return fence;
    if (reached !== undefined) {
      await releaseFence(blob, fence);
      throw overtaken(object, reached, sequenceNumber);
    }
  }
  throw new StoreError('FenceLost', `${object} was leased by another writer each time we tried.`);
}

export async function renewFence(blob: FencedBlob, fence: PageFence): Promise<void> {
  const call = { operation: 'Renewing the lease of', object: blob.object };
  await blob.calls.run(call, async ({ signal }) => {
    await blob.client.getBlobLeaseClient(fence.leaseId).renewLease({ abortSignal: signal });
  });
}

export async function releaseFence(blob: FencedBlob, fence: PageFence): Promise<void> {
  await blob.calls
    .run({ operation: 'Releasing', object: blob.object }, async ({ signal }) => {
      await blob.client.getBlobLeaseClient(fence.leaseId).releaseLease({ abortSignal: signal });
    })
    .catch((error: unknown) => {
      // It is another's lease now, or none's, or the blob is gone: not ours in each case.
      if (!isStoreError(error, 'FenceLost') && !isStoreError(error, 'StoreObjectMissing'))
        throw error;
    });
}

/** On which alone the service does what changes the blob. */
export function fenceConditions(fence: PageFence) {
  return { leaseId: fence.leaseId, ifSequenceNumberEqualTo: fence.sequenceNumber };
}

export function overtaken(object: string, theirs: number, ours: number): StoreError {
  return new StoreError(
    'FenceLost',
    `${object} is fenced at sequence number ${theirs}, ours is ${ours}: another writer took over. This writer stops.`,
  );
}

/** False when another writer was faster between the two. */
async function takeLease(blob: FencedBlob, fence: PageFence, seconds: number): Promise<boolean> {
  const { client, calls, object } = blob;
  return await calls.run({ operation: 'Leasing', object }, async ({ signal }) => {
    await client
      .getBlobLeaseClient()
      .breakLease(0, { abortSignal: signal })
      .catch((error: unknown) => {
        if (blobFailure(error).code !== 'LeaseNotPresentWithLeaseOperation') throw error;
      });
    try {
      await client.getBlobLeaseClient(fence.leaseId).acquireLease(seconds, { abortSignal: signal });
      return true;
    } catch (error) {
      if (blobFailure(error).code === 'LeaseAlreadyPresent') return false;
      throw error;
    }
  });
}

/** The number that the blob has then; undefined when another writer took the lease meanwhile, perhaps one with a lower number. */
async function raiseSequenceNumber(
  blob: FencedBlob,
  fence: PageFence,
): Promise<number | undefined> {
  const { client, calls, object } = blob;
  return await calls
    .run({ operation: 'Fencing', object }, async ({ signal }) => {
      // `max`: a repeated request changes nothing, and a higher number of another writer stays.
      const response = await client.updateSequenceNumber('max', fence.sequenceNumber, {
        abortSignal: signal,
        conditions: { leaseId: fence.leaseId },
      });
      return response.blobSequenceNumber ?? fence.sequenceNumber;
    })
    .catch((error: unknown) => {
      if (isStoreError(error, 'FenceLost')) return undefined;
      throw error;
    });
}

function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex');
  const version = `4${hex.slice(13, 16)}`;
  const variant = `8${hex.slice(17, 20)}`;
  return [hex.slice(0, 8), hex.slice(8, 12), version, variant, hex.slice(20)].join('-');
}
