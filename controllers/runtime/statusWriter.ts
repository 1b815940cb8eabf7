/**
 * Writes status by server-side apply: at once when a condition changed, else at most once a minute, never when nothing changed,
 * and within a budget for the whole process. So a thousand machines whose figures change all the time cost about 15 writes a second.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  apiVersionOf,
  type Condition,
  isKubeError,
  type KubeClient,
  type KubeObject,
  type ResourceType,
} from '../../platform/kubernetes.ts';
import type { Clock, Random } from '../../platform/ports.ts';
import { fraction } from './backoff.ts';
import { type DecidedCondition, stampConditions } from './conditions.ts';
import { WriteBudget } from './writeBudget.ts';

const WRITES_PER_SECOND = 50;
const VALUE_INTERVAL_MS = 60_000;
/** Objects whose last write is remembered; of one that was forgotten the cache is believed. */
const MAX_REMEMBERED = 20_000;

export type DecidedStatus<Status extends object> = Omit<
  Status,
  'conditions' | 'observedGeneration'
> & {
  conditions: readonly DecidedCondition[];
};

export type StatusOutcome =
  | { outcome: 'written' }
  | { outcome: 'unchanged' }
  /** Only figures changed, and it is too early to write them: ask again after that time. */
  | { outcome: 'deferred'; retryAfterMs: number }
  /** The object is not there any more, or another one has its name. */
  | { outcome: 'gone' };

interface Written {
  status: Record<string, unknown>;
  resourceVersion: string | undefined;
  nextValuesMs: number;
}

type WithStatus = KubeObject & { status?: object };

export class StatusWriter {
  readonly #deps: { client: KubeClient; clock: Clock; random: Random };
  readonly #budget: WriteBudget;
  readonly #valueIntervalMs: number;
  /** By uid. */
  readonly #written = new Map<string, Written>();

  constructor(
    deps: { client: KubeClient; clock: Clock; random: Random },
    options: { writesPerSecond?: number; valueIntervalMs?: number } = {},
  ) {
    this.#deps = deps;
    this.#budget = new WriteBudget(deps.clock, {
      perSecond: options.writesPerSecond ?? WRITES_PER_SECOND,
    });
    this.#valueIntervalMs = options.valueIntervalMs ?? VALUE_INTERVAL_MS;
  }

  /**
   * Makes the object's status be this one. `object` is the cached one that the status was computed from. Fields of `promptly`
   * are written at once when they change, as conditions are. Throws KubeError; NotFound is told as `gone`.
   */
  async write<Status extends object>(
    type: ResourceType,
    object: WithStatus,
    decided: DecidedStatus<Status>,
    options: { promptly?: readonly (keyof Status & string)[]; signal?: AbortSignal } = {},
  ): Promise<StatusOutcome> {
    const { clock } = this.#deps;
    const uid = object.metadata.uid ?? '';
    const before = this.#known(uid, object);
    const status = this.#complete(object, decided, before);
    const prompt = changed(before, status, [
      'conditions',
      'observedGeneration',
      ...(options.promptly ?? []),
    ]);
    if (!prompt && isDeepStrictEqual(before, status)) return { outcome: 'unchanged' };
    if (prompt) await this.#budget.take(options.signal);
    else {
      const waitMs = (this.#written.get(uid)?.nextValuesMs ?? 0) - clock.monotonic();
      if (waitMs > 0) return { outcome: 'deferred', retryAfterMs: Math.ceil(waitMs) };
      if (!this.#budget.tryTake())
        return {
          outcome: 'deferred',
          retryAfterMs: 1_000 + Math.round(4_000 * fraction(this.#deps.random)),
        };
    }
    return await this.#apply(type, object, status);
  }

  /** Forgets a deleted object. */
  forget(uid: string | undefined): void {
    this.#written.delete(uid ?? '');
  }

  async #apply(
    type: ResourceType,
    object: WithStatus,
    status: Record<string, unknown>,
  ): Promise<StatusOutcome> {
    const { name, namespace, uid = '' } = object.metadata;
    try {
      const answer = await this.#deps.client.applyStatus<WithStatus>(type, {
        apiVersion: apiVersionOf(type),
        kind: type.kind,
        metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
        status,
      });
      // The API server ignores a uid in an apply of the status. A namesake that was made meanwhile has now our status, until its
      // own reconcile, which its appearance has caused, states its own.
      if (answer.metadata.uid !== object.metadata.uid) return this.#gone(uid);
      const nowMs = this.#deps.clock.monotonic();
      this.#remember(uid, {
        status,
        resourceVersion: answer.metadata.resourceVersion,
        nextValuesMs: nowMs + this.#valueIntervalMs * (1 + fraction(this.#deps.random) / 5),
      });
      return { outcome: 'written' };
    } catch (error) {
      if (isKubeError(error, 'NotFound')) return this.#gone(uid);
      throw error;
    }
  }

  #gone(uid: string): StatusOutcome {
    this.#written.delete(uid);
    return { outcome: 'gone' };
  }

  #remember(uid: string, written: Written): void {
    this.#written.delete(uid);
    this.#written.set(uid, written);
    const oldest = this.#written.keys().next();
    if (this.#written.size > MAX_REMEMBERED && !oldest.done) this.#written.delete(oldest.value);
  }

  /**
   * What the server holds, as far as we know: what the cache says, unless our own last write has not reached the cache yet.
   */
  #known(uid: string, object: WithStatus): Record<string, unknown> {
    const written = this.#written.get(uid);
    const cached = plain(object.status ?? {});
    if (written === undefined) return cached;
    const caughtUp = isAtLeast(object.metadata.resourceVersion, written.resourceVersion);
    return caughtUp ? cached : written.status;
  }

  #complete<Status extends object>(
    object: WithStatus,
    decided: DecidedStatus<Status>,
    before: Record<string, unknown>,
  ): Record<string, unknown> {
    const { generation } = object.metadata;
    const previous = Array.isArray(before.conditions) ? (before.conditions as Condition[]) : [];
    return plain({
      ...decided,
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      conditions: stampConditions({
        previous,
        decided: decided.conditions,
        generation,
        nowMs: this.#deps.clock.now(),
      }),
    });
  }
}

/** Versions of one object are numbers that rise (promised since Kubernetes 1.35, and so with etcd always). */
function isAtLeast(version: string | undefined, other: string | undefined): boolean {
  const decimal = /^[0-9]{1,20}$/;
  if (version === undefined || other === undefined) return true;
  if (!decimal.test(version) || !decimal.test(other)) return version === other;
  return BigInt(version) >= BigInt(other);
}

function changed(
  before: Record<string, unknown>,
  after: Record<string, unknown>,
  fields: readonly string[],
): boolean {
  return fields.some((field) => !isDeepStrictEqual(before[field], after[field]));
}

/** As it travels: without what is undefined. */
function plain(value: object): Record<string, unknown> {
  return JSON.parse(JSON.stringify(value)) as Record<string, unknown>;
}
