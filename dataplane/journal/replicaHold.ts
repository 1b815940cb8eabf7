/**
 * Holding a replica, from its opening to its end: leases are renewed, and after a write whose outcome is unknown the fence is raised before
 * anything else is written.
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Logger } from '../../platform/ports.ts';
import { isStoreError } from '../../platform/storeErrors.ts';
import type { ReplicaFence } from './replicaFence.ts';
import type { LeafChunkCache } from './replicaLeaves.ts';

export interface ReplicaHoldDeps {
  fence: ReplicaFence;
  leafCache: LeafChunkCache;
  clock: Clock;
  logger: Logger;
}

export class ReplicaHold {
  readonly #deps: ReplicaHoldDeps;
  readonly #fence: ReplicaFence;
  readonly #leafCache: LeafChunkCache;
  readonly #options: { leaseSeconds: number; tries: number };
  readonly #closed = new AbortController();
  /** Set once an error left writes with an unknown outcome behind: only a new `open` may go on. */
  #failed: unknown;

  constructor(deps: ReplicaHoldDeps, options: { leaseSeconds: number; tries: number }) {
    this.#deps = deps;
    this.#fence = deps.fence;
    this.#leafCache = deps.leafCache;
    this.#options = options;
  }

  /** Nothing may be written any more: the replica must be opened anew. */
  get isLost(): boolean {
    return this.#failed !== undefined;
  }

  checkUsable(): void {
    if (this.#closed.signal.aborted) throw new Error('the replica is closed');
    if (this.#failed !== undefined)
      throw new Error('the replica failed and must be opened anew', { cause: this.#failed });
  }

  /**
   * Runs what may be repeated. When a write's outcome is unknown or a lease was lost, the fence is raised first, so that no delayed
   * write can land on top of what comes next; that throws ReplicaFenced when somebody else has the replica.
   */
  async run<T>(act: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await act();
      } catch (error) {
        this.#failed = error;
        if (!leavesFenceInDoubt(error)) throw error;
        this.#deps.logger.warn(
          {
            machineId: this.#fence.state.machineId,
            attempt,
            code: errorCode(error),
            reason: errorMessage(error),
          },
          'a write to the replica has an unknown outcome',
        );
        await this.#fence.raise();
        this.#leafCache.clear();
        if (attempt >= this.#options.tries) throw error;
        this.#failed = undefined;
      }
    }
  }

  /** Until `close`. Never rejects. */
  async keepLeases(): Promise<void> {
    const { signal } = this.#closed;
    while (!signal.aborted) {
      try {
        await this.#deps.clock.sleep((this.#options.leaseSeconds * 1000) / 3, signal);
        await this.#fence.renew();
      } catch (error) {
        if (signal.aborted) return;
        // The next write finds out whether the replica is still ours.
        this.#deps.logger.debug(
          { machineId: this.#fence.state.machineId, code: errorCode(error) },
          'a lease of the replica could not be renewed',
        );
      }
    }
  }

  /** Gives the leases back, so that others need not wait. Safe after any error. */
  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new Error('the replica was closed'));
    try {
      await this.#fence.release();
    } catch (error) {
      // Another holder has it, or the leases run out by themselves.
      this.#deps.logger.debug(
        {
          machineId: this.#fence.state.machineId,
          code: errorCode(error),
          reason: errorMessage(error),
        },
        'the leases of the replica were not given back',
      );
    }
  }
}

/** After these, a request may still take effect, or a lease may have run out. */
function leavesFenceInDoubt(error: unknown): boolean {
  return (
    isStoreError(error) &&
    (error.transient || error.code === 'FenceLost' || error.code === 'StoreAnswerInvalid')
  );
}
