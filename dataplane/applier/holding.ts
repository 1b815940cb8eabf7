/**
 * Whether an applier may take a machine's replica. Taking it is always safe (the one before is fenced); this keeps appliers from
 * fighting each other, and from slowing down a recovery that applies the journal itself.
 */
import type { ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { readReplicaState } from '../journal/replicaFence.ts';

/** A holder whose leases are free for so long is dead. They last a minute. */
const APPLIER_DEAD_MS = 120_000;
/** A recovery may wait for people between two steps. */
const RECOVERY_DEAD_MS = 600_000;

export class Holding {
  readonly #deps: { objects: ObjectStore; pages: PageBlobStore };
  readonly #machineId: string;
  readonly #holder: string;
  /** We held it and somebody took it: that one is newer than we are. */
  #fenced = false;
  /** The holder as last seen, and since when (monotonic) it showed no sign of life. */
  #quiet: { sign: string; since: number } | undefined;

  constructor(
    deps: { objects: ObjectStore; pages: PageBlobStore },
    options: { machineId: string; holder: string },
  ) {
    this.#deps = deps;
    this.#machineId = options.machineId;
    this.#holder = options.holder;
  }

  /** The replica was taken from us. */
  lost(): void {
    this.#fenced = true;
    this.#quiet = undefined;
  }

  /** Who must let go first; undefined when we may take it. `now` is monotonic. */
  async heldBy(now: number): Promise<string | undefined> {
    const state = await readReplicaState(this.#deps.objects, this.#machineId);
    const holder = state?.holder ?? '';
    const recovery = holder.startsWith('recovery:');
    if (state === undefined || holder === '' || holder === this.#holder) return undefined;
    // A fresh process takes over from the applier before it, which may be gone.
    if (!recovery && !this.#fenced) return undefined;
    const sign = `${holder} ${state.fence} ${state.applied.lsn}`;
    if ((await this.#leased(state)) || this.#quiet?.sign !== sign)
      this.#quiet = { sign, since: now };
    const patience = recovery ? RECOVERY_DEAD_MS : APPLIER_DEAD_MS;
    return now - this.#quiet.since >= patience ? undefined : holder;
  }

  async #leased(state: ReplicaState): Promise<boolean> {
    const [disk] = state.disks;
    if (disk === undefined) return false;
    const info = await this.#deps.pages.info(vaultLayout.replica(this.#machineId, disk.name));
    return info?.leased === true;
  }
}
