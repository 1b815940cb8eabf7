/**
 * How each call to Azure Resource Manager is made: with a deadline, its failure named by what was asked, creations that look
 * first, removals of what is gone.
 */
import { ComputeError, isComputeError } from '../computeErrors.ts';
import type { AzureResourceRef } from '../ports.ts';
import { armError, isAbsent } from './armErrors.ts';

/** The tag that says which failover made a resource. */
export const IDENTITY_TAG = 'farshore-failover';

interface Created {
  provisioning: 'Succeeded' | 'Failed' | 'InProgress';
  tags: Record<string, string>;
}

export interface Creation<T> {
  tags: Record<string, string>;
  deadlineMs: number;
  get(): Promise<T | undefined>;
  put(abortSignal: AbortSignal): Promise<T>;
}

export class ArmCalls {
  readonly #pollMs: number;
  readonly #readDeadlineMs: number;
  readonly #removeDeadlineMs: number;

  constructor(options: { pollMs: number; readDeadlineMs: number; removeDeadlineMs: number }) {
    this.#pollMs = options.pollMs;
    this.#readDeadlineMs = options.readDeadlineMs;
    this.#removeDeadlineMs = options.removeDeadlineMs;
  }

  /** Answers what exists with the same identity; throws Conflict for what exists with another. */
  async create<T extends Created>(
    kind: string,
    ref: AzureResourceRef,
    creation: Creation<T>,
  ): Promise<T> {
    const made = await this.#alreadyMade(kind, ref, creation);
    if (made !== undefined) return made;
    try {
      return await this.call(`create ${nameOf(kind, ref)}`, creation.deadlineMs, creation.put);
    } catch (error) {
      if (!isComputeError(error, 'Conflict')) throw error;
      // Another attempt of ours may have begun between our look and our call: then it is its creation that we wait for.
      const theirs = await this.#alreadyMade(kind, ref, creation);
      if (theirs === undefined) throw error;
      return theirs;
    }
  }

  /** What exists with our identity, once it is settled; undefined when it has to be created, or its creation failed. */
  async #alreadyMade<T extends Created>(
    kind: string,
    ref: AzureResourceRef,
    creation: Creation<T>,
  ): Promise<T | undefined> {
    const existing = await creation.get();
    if (existing === undefined) return undefined;
    refuseForeign(kind, ref, { found: existing.tags, ours: creation.tags });
    const settled = await this.#settled(kind, ref, creation, existing);
    return settled.provisioning === 'Succeeded' ? settled : undefined;
  }

  /** Waits for a creation that an earlier attempt, perhaps of a process that died, has begun. */
  async #settled<T extends Created>(
    kind: string,
    ref: AzureResourceRef,
    creation: Creation<T>,
    existing: T,
  ): Promise<T> {
    const what = `finish creating ${nameOf(kind, ref)}`;
    return this.call(what, creation.deadlineMs, async (abortSignal) => {
      let seen = existing;
      while (seen.provisioning === 'InProgress') {
        await new Promise((resolve) => setTimeout(resolve, this.#pollMs));
        abortSignal.throwIfAborted();
        seen = present(kind, ref, await creation.get());
      }
      return seen;
    });
  }

  async remove(
    kind: string,
    ref: AzureResourceRef,
    remove: (abortSignal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const what = `remove ${nameOf(kind, ref)}`;
    await this.call(what, this.#removeDeadlineMs, async (abortSignal) => {
      try {
        await remove(abortSignal);
      } catch (error) {
        if (!isAbsent(error)) throw error;
      }
    });
  }

  /** `undefined` for what does not exist. */
  read<T>(what: string, get: (abortSignal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    return this.call(what, this.#readDeadlineMs, async (abortSignal) => {
      try {
        return await get(abortSignal);
      } catch (error) {
        if (isAbsent(error)) return undefined;
        throw error;
      }
    });
  }

  async call<T>(
    what: string,
    deadlineMs: number,
    call: (abortSignal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    try {
      return await call(AbortSignal.timeout(deadlineMs));
    } catch (error) {
      throw armError(what, error);
    }
  }

  polling(abortSignal: AbortSignal): { updateIntervalInMs: number; abortSignal: AbortSignal } {
    return { updateIntervalInMs: this.#pollMs, abortSignal };
  }
}

/** What must be there because it was just made. */
export function present<T>(kind: string, ref: AzureResourceRef, found: T | undefined): T {
  if (found !== undefined) return found;
  throw new ComputeError(
    'OperationFailed',
    `The ${nameOf(kind, ref)} was being created and is gone: somebody removed it, or Azure gave it up. Try again; the activity log of the resource group may say who.`,
  );
}

export function nameOf(kind: string, ref: AzureResourceRef): string {
  return `${kind} ${ref.name} in resource group ${ref.resourceGroup}`;
}

function refuseForeign(
  kind: string,
  ref: AzureResourceRef,
  tags: { found: Record<string, string>; ours: Record<string, string> },
): void {
  if (tags.found[IDENTITY_TAG] === tags.ours[IDENTITY_TAG]) return;
  throw new ComputeError(
    'Conflict',
    `There is a ${nameOf(kind, ref)} already that this failover did not make (its tag ${IDENTITY_TAG} is ${tags.found[IDENTITY_TAG] ?? 'not set'}). Remove or rename it.`,
    { azureCode: 'NameInUse' },
  );
}
