/**
 * Names in a vault are held by one resource each: machines, process servers, failovers. A claim is put if absent before anything
 * is installed, so that two clusters which share a vault never mean two things by one name.
 */
import { FarshoreError } from '../platform/errors.ts';
import type { Clock, ObjectStore } from '../platform/ports.ts';
import { createDocument, readDocument, updateDocument } from './documentStore.ts';
import { type NameClaim, nameClaimSchema } from './documents/nameClaim.ts';
import { vaultLayout } from './layout.ts';

/** Which resource asks: the one with this uid, of this installation. */
export interface Claimant {
  installationId: string;
  namespace: string;
  uid: string;
}

export interface NameKey {
  kind: NameClaim['kind'];
  name: string;
}

/** `ours`: the claim as it stands in the vault, whose machineId is the machine's, whatever this try proposed. */
export type ClaimResult =
  | { outcome: 'ours'; claim: NameClaim }
  | { outcome: 'taken'; holder: NameClaim };

/** Code NameTaken: for callers that treat it as an error. */
export class NameTakenError extends FarshoreError {
  readonly holder: NameClaim;

  constructor(holder: NameClaim) {
    super(
      'NameTaken',
      `The ${holder.kind} name ${holder.name} is held in this vault by ${holder.namespace}/${holder.name} (uid ${holder.uid}) of installation ${holder.installationId} since ${new Date(holder.claimedAt).toISOString()}. Choose another name, or delete that resource first.`,
    );
    this.holder = holder;
  }
}

export class NameClaims {
  readonly #store: ObjectStore;
  readonly #clock: Clock;

  constructor(deps: { store: ObjectStore; clock: Clock }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
  }

  async holder(key: NameKey): Promise<NameClaim | undefined> {
    return (await this.#read(key))?.document;
  }

  /**
   * Claims the name, or finds it claimed. Asked again by the same resource it answers `ours` again, also when the first answer
   * was lost. `machineId` (16 random bytes, hex) goes with a machine's first claim.
   */
  async claim(key: NameKey, claimant: Claimant, machineId?: string): Promise<ClaimResult> {
    if ((key.kind === 'machine') !== (machineId !== undefined))
      throw new TypeError('a machine’s claim carries a machineId, and no other does');
    const document: NameClaim = {
      kind: key.kind,
      name: key.name,
      ...claimant,
      claimedAt: this.#clock.now(),
      ...(machineId === undefined ? {} : { machineId }),
    };
    const result = await createDocument({
      store: this.#store,
      key: vaultLayout.name(key.kind, key.name),
      schema: nameClaimSchema,
      document,
    });
    const claim = result.document;
    return heldBy(claim, claimant)
      ? { outcome: 'ours', claim }
      : { outcome: 'taken', holder: claim };
  }

  /**
   * Hands a claim on: to the resource that a cluster re-created under the same name, or to the installation that took control.
   * Only from the holder that the caller saw; `taken` when it is held by yet another.
   */
  async transfer(
    key: NameKey,
    options: { from: Claimant; to: Claimant },
  ): Promise<ClaimResult | { outcome: 'missing' }> {
    const result = await updateDocument({
      store: this.#store,
      key: vaultLayout.name(key.kind, key.name),
      schema: nameClaimSchema,
      change: (claim) =>
        heldBy(claim, options.from) && !heldBy(claim, options.to)
          ? { ...claim, ...options.to }
          : undefined,
    });
    if (result === undefined) return { outcome: 'missing' };
    const claim = result.document;
    return heldBy(claim, options.to)
      ? { outcome: 'ours', claim }
      : { outcome: 'taken', holder: claim };
  }

  /** Gives the name back. Another's claim is never touched. */
  async release(key: NameKey, claimant: Claimant): Promise<'released' | 'missing' | 'taken'> {
    const present = await this.#read(key);
    if (present === undefined) return 'missing';
    if (!heldBy(present.document, claimant)) return 'taken';
    const removed = await this.#store.remove(vaultLayout.name(key.kind, key.name), {
      etag: present.etag,
    });
    if (removed === 'conflict') return this.release(key, claimant);
    return removed === 'removed' ? 'released' : 'missing';
  }

  async #read(key: NameKey) {
    return await readDocument({
      store: this.#store,
      key: vaultLayout.name(key.kind, key.name),
      schema: nameClaimSchema,
    });
  }
}

function heldBy(claim: NameClaim, claimant: Claimant): boolean {
  return (
    claim.installationId === claimant.installationId &&
    claim.namespace === claimant.namespace &&
    claim.uid === claimant.uid
  );
}
