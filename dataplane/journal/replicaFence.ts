/**
 * Who may write a machine's replica.
 *
 * The truth is replicas/<machineId>/state.json: whoever raises its `fence` by compare-and-set holds the replica. The holder then
 * leases every page blob and raises its sequence number to that fence, so that delayed writes of anyone before fail. A write whose
 * answer was lost may still land later: the fence is raised once more before anything else is written.
 */

import type { Logger, ObjectStore, PageBlobStore, PageFence } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import { decodeDocument, encodeDocument } from '../../vault/documents/codec.ts';
import { type ReplicaState, replicaStateSchema } from '../../vault/documents/replicaState.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { sameBytes } from './merkle.ts';
import { ReplicaFenced } from './replicaErrors.ts';

/** How often a compare-and-set is tried against others before giving up: each round lost means that somebody else won one. */
const CONTENTION_TRIES = 16;
const EMPTY_STATE = {
  fence: 0,
  applied: { lsn: 0n, seq: -1, digest: '0'.repeat(64) },
  disks: [],
  resyncing: false,
};

export interface FenceDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  logger: Logger;
}

/** state.json as it is now; undefined when the machine has no replica yet. */
export async function readReplicaState(
  objects: ObjectStore,
  machineId: string,
): Promise<ReplicaState | undefined> {
  return (await readState(objects, machineId))?.state;
}

export class ReplicaFence {
  readonly #deps: FenceDeps;
  readonly #machineId: string;
  readonly #holder: string;
  readonly #leaseSeconds: number;
  #state: ReplicaState;
  #etag: string;
  readonly #fences = new Map<string, PageFence>();

  private constructor(
    deps: FenceDeps,
    options: { holder: string; leaseSeconds: number; state: ReplicaState; etag: string },
  ) {
    this.#deps = deps;
    this.#machineId = options.state.machineId;
    this.#holder = options.holder;
    this.#leaseSeconds = options.leaseSeconds;
    this.#state = options.state;
    this.#etag = options.etag;
  }

  /** Takes the replica from whoever has it. Blobs are fenced by `fenceBlobs`, once it is known which there are. */
  static async take(
    deps: FenceDeps,
    options: { machineId: string; holder: string; leaseSeconds: number },
  ): Promise<ReplicaFence> {
    const taken = await raiseState(deps.objects, options);
    return new ReplicaFence(deps, { ...options, ...taken });
  }

  get state(): ReplicaState {
    return this.#state;
  }

  /** Fences the blobs that are not yet: all must exist. */
  async fenceBlobs(keys: readonly string[]): Promise<void> {
    for (const key of keys)
      if (!this.#fences.has(key))
        this.#fences.set(
          key,
          await this.#deps.pages.fence(key, {
            sequenceNumber: this.#state.fence,
            leaseSeconds: this.#leaseSeconds,
          }),
        );
  }

  /** The fence that every write to the blob carries. */
  of(key: string): PageFence {
    const fence = this.#fences.get(key);
    if (fence === undefined) throw new Error(`${key} was never fenced`);
    return fence;
  }

  /**
   * After a write whose outcome is unknown, or a lease that ran out: raises the fence and fences every blob anew, so that nothing
   * sent before can land. Throws ReplicaFenced when somebody else holds the replica.
   */
  async raise(): Promise<void> {
    const ours = this.#state.fence;
    const taken = await raiseState(this.#deps.objects, {
      machineId: this.#machineId,
      holder: this.#holder,
      onlyFrom: ours,
    });
    this.#state = taken.state;
    this.#etag = taken.etag;
    const keys = [...this.#fences.keys()];
    this.#fences.clear();
    await this.fenceBlobs(keys);
    this.#deps.logger.info(
      { machineId: this.#machineId, fence: this.#state.fence },
      'raised the fence of the replica after a write with an unknown outcome',
    );
  }

  /** Replaces the state, keeping machine, fence and holder. Throws ReplicaFenced when somebody else took over. */
  async save(change: Partial<Omit<ReplicaState, 'machineId' | 'fence' | 'holder'>>): Promise<void> {
    await this.#change(change);
  }

  /** Goes into the state with its next save; lost when none follows. */
  remember(change: Pick<ReplicaState, 'sampling'>): void {
    this.#state = { ...this.#state, ...change };
  }

  /** Throws ReplicaFenced when somebody else took over. */
  async verify(): Promise<void> {
    const found = await readState(this.#deps.objects, this.#machineId);
    if (found?.state.fence !== this.#state.fence) throw this.#fenced(found?.state);
  }

  async renew(): Promise<void> {
    for (const [key, fence] of [...this.#fences]) await this.#deps.pages.renew(key, fence);
  }

  /** Lets others take the replica at once: leases are given back and the state names no holder. */
  async release(): Promise<void> {
    await this.#change({ holder: '' });
    for (const [key, fence] of this.#fences) await this.#deps.pages.release(key, fence);
    this.#fences.clear();
  }

  async #change(change: Partial<ReplicaState>): Promise<void> {
    for (let attempt = 0; attempt < CONTENTION_TRIES; attempt += 1) {
      const next = { ...this.#state, ...change };
      const body = encodeDocument(replicaStateSchema, next);
      const replaced = await this.#tryReplace(body);
      if (replaced !== undefined) {
        this.#state = next;
        this.#etag = replaced;
        return;
      }
      const found = await readState(this.#deps.objects, this.#machineId);
      if (found?.state.fence !== this.#state.fence) throw this.#fenced(found?.state);
      // Written by us, for nobody else has this fence: a change of ours took effect though its answer was lost. What follows builds on it.
      this.#etag = found.etag;
      this.#state = found.state;
      if (sameBytes(found.bytes, body)) return;
    }
    throw this.#fenced(undefined);
  }

  /** The new ETag; undefined when it must be looked up what happened. */
  async #tryReplace(body: Uint8Array): Promise<string | undefined> {
    const key = vaultLayout.replicaState(this.#machineId);
    try {
      const result = await this.#deps.objects.replace(key, body, { etag: this.#etag });
      return result.outcome === 'replaced' ? result.etag : undefined;
    } catch (error) {
      if (isStoreError(error) && error.transient) return undefined;
      throw error;
    }
  }

  #fenced(found: ReplicaState | undefined): ReplicaFenced {
    return new ReplicaFenced({
      machineId: this.#machineId,
      holder: found?.holder ?? '',
      fence: found?.fence ?? 0,
      ours: this.#state.fence,
    });
  }
}

interface StoredState {
  state: ReplicaState;
  etag: string;
  bytes: Uint8Array;
}

async function readState(
  objects: ObjectStore,
  machineId: string,
): Promise<StoredState | undefined> {
  const key = vaultLayout.replicaState(machineId);
  const stored = await objects.get(key);
  if (stored === undefined) return undefined;
  return {
    state: decodeDocument(replicaStateSchema, key, stored.body),
    etag: stored.etag,
    bytes: stored.body,
  };
}

/**
 * Raises `fence` by one and enters the holder. A try that met somebody else's write (or our own, whose answer was lost: two processes
 * may carry the same name, so it is not taken for ours) starts over from what is found; with `onlyFrom`, it gives up instead.
 */
async function raiseState(
  objects: ObjectStore,
  options: { machineId: string; holder: string; onlyFrom?: number },
): Promise<{ state: ReplicaState; etag: string }> {
  const { machineId, holder, onlyFrom } = options;
  const key = vaultLayout.replicaState(machineId);
  let current: ReplicaState | undefined;
  for (let attempt = 0; attempt < CONTENTION_TRIES; attempt += 1) {
    const found = await readState(objects, machineId);
    current = found?.state;
    if (onlyFrom !== undefined && current?.fence !== onlyFrom) break;
    const before = current ?? { ...EMPTY_STATE, machineId };
    const state: ReplicaState = { ...before, fence: before.fence + 1, holder };
    const body = encodeDocument(replicaStateSchema, state);
    const result =
      found === undefined
        ? await objects.putIfAbsent(key, body)
        : await objects.replace(key, body, { etag: found.etag });
    if (result.outcome === 'created' || result.outcome === 'replaced')
      return { state, etag: result.etag };
  }
  throw new ReplicaFenced({
    machineId,
    holder: current?.holder ?? '',
    fence: current?.fence ?? 0,
    ours: onlyFrom ?? 0,
  });
}
