/**
 * A Kubernetes API in memory, for unit tests: versions, generations, finalizers, watches that can be cut or made to forget, and
 * answers that fail when the script says so. What only the real server decides (schemas, CEL, field ownership) it leaves out;
 * those are tested on the real one.
 */
import {
  type AppliedObject,
  apiVersionOf,
  type JsonPatch,
  type KubeClient,
  KubeError,
  type KubeErrorCode,
  type KubeObject,
  type ListPage,
  type ObjectName,
  type ResourceType,
  type WatchEvent,
} from '../../platform/kubernetes.ts';

type Verb =
  | 'get'
  | 'list'
  | 'watch'
  | 'create'
  | 'replace'
  | 'apply'
  | 'applyStatus'
  | 'patch'
  | 'remove';
type AnyObject = KubeObject & Record<string, unknown>;

interface Failure {
  verb: Verb;
  plural?: string;
  error: Error;
  /** The call happens all the same, and only its answer is lost. */
  afterwards: boolean;
}

interface HistoryEntry {
  version: number;
  type: 'added' | 'modified' | 'deleted';
  plural: string;
  object: AnyObject;
}

export interface FakeCall {
  verb: Verb;
  plural: string;
  name: string;
  body?: unknown;
}

export class FakeKube implements KubeClient {
  /** Every call, in order. */
  readonly calls: FakeCall[] = [];
  readonly #objects = new Map<string, AnyObject>();
  readonly #history: HistoryEntry[] = [];
  readonly #failures: Failure[] = [];
  readonly #wakers = new Set<() => void>();
  #version = 100;
  #uids = 0;
  #oldest = 0;
  #cuts = 0;
  #held: Promise<void> | undefined;

  // ------------------------------------------------------------------------------------------------------------ the script

  /** Puts an object in place, as somebody else would; keeps a status that is given. Returns it as stored. */
  seed<T extends KubeObject>(type: ResourceType, object: T): T {
    const before = this.#objects.get(idOf(type, object.metadata));
    return this.#store<T>(type, {
      ...structuredClone(object),
      metadata: { ...before?.metadata, ...structuredClone(object.metadata) },
    } as unknown as AnyObject);
  }

  /** As stored, without counting as a call. */
  peek<T extends KubeObject>(type: ResourceType, name: ObjectName): T | undefined {
    return structuredClone(this.#objects.get(idOf(type, name))) as T | undefined;
  }

  /** The next call of that verb (of that type, if given) fails so. `afterwards`: it happens, and the answer is lost. */
  failNext(
    verb: Verb,
    code: KubeErrorCode,
    options: { type?: ResourceType; afterwards?: boolean; retryAfterMs?: number } = {},
  ): void {
    this.#failures.push({
      verb,
      ...(options.type === undefined ? {} : { plural: options.type.plural }),
      error: new KubeError(code, `scripted ${code} of ${verb}`, {
        ...(options.retryAfterMs === undefined ? {} : { retryAfterMs: options.retryAfterMs }),
      }),
      afterwards: options.afterwards ?? false,
    });
  }

  /** Breaks every watch that is open. */
  cutWatches(): void {
    this.#cuts += 1;
    this.#wake();
  }

  /** Watches and pages from before now answer 410. */
  compact(): void {
    this.#oldest = this.#version;
  }

  /** Calls wait, unanswered, until the returned function is called. */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held = promise;
    return () => {
      this.#held = undefined;
      resolve();
    };
  }

  /** Calls of one verb so far. */
  count(verb: Verb, type?: ResourceType): number {
    return this.calls.filter(
      (call) => call.verb === verb && (type === undefined || call.plural === type.plural),
    ).length;
  }

  // --------------------------------------------------------------------------------------------------------------- the port

  async get<T extends KubeObject>(type: ResourceType, name: ObjectName): Promise<T | undefined> {
    return await this.#call({ verb: 'get', plural: type.plural, name: name.name }, () =>
      this.peek<T>(type, name),
    );
  }

  async list<T extends KubeObject>(
    type: ResourceType,
    options: { namespace?: string; labelSelector?: string; limit: number; continue?: string },
  ): Promise<ListPage<T>> {
    return await this.#call({ verb: 'list', plural: type.plural, name: '' }, () => {
      const [startedAt, offset] = (options.continue ?? `${this.#version}:0`).split(':').map(Number);
      if (options.continue !== undefined && (startedAt ?? 0) < this.#oldest)
        throw new KubeError('Gone', 'the continue token is too old', { status: 410 });
      const all = this.#select(type, options).map(
        (object) => structuredClone(object) as unknown as T,
      );
      const end = options.limit > 0 ? (offset ?? 0) + options.limit : all.length;
      return {
        items: all.slice(offset, end),
        resourceVersion: String(startedAt),
        ...(end < all.length ? { continue: `${startedAt}:${end}` } : {}),
      };
    });
  }

  async *watch<T extends KubeObject>(
    type: ResourceType,
    options: {
      namespace?: string;
      labelSelector?: string;
      resourceVersion: string;
      signal: AbortSignal;
    },
  ): AsyncGenerator<WatchEvent<T>, void, void> {
    await this.#call({ verb: 'watch', plural: type.plural, name: '' }, () => undefined);
    const cuts = this.#cuts;
    let at = Number(options.resourceVersion);
    if (at < this.#oldest) throw new KubeError('Gone', 'too old resource version', { status: 410 });
    while (!options.signal.aborted) {
      if (cuts !== this.#cuts) throw new KubeError('Unreachable', 'the watch was cut');
      const next = this.#history.find(
        (entry) => entry.version > at && entry.plural === type.plural,
      );
      if (next === undefined) {
        await this.#nextChange(options.signal);
        continue;
      }
      at = next.version;
      if (matches(next.object, options))
        yield { type: next.type, object: structuredClone(next.object) as unknown as T };
    }
    throw options.signal.reason;
  }

  async create<T extends KubeObject>(type: ResourceType, object: T): Promise<T> {
    const { name } = object.metadata;
    return await this.#call({ verb: 'create', plural: type.plural, name, body: object }, () => {
      if (this.#objects.has(idOf(type, object.metadata)))
        throw new KubeError('AlreadyExists', `${type.plural} "${name}" already exists`);
      return this.#store<T>(type, structuredClone(object) as unknown as AnyObject);
    });
  }

  async replace<T extends KubeObject>(type: ResourceType, object: T): Promise<T> {
    const { name, resourceVersion } = object.metadata;
    return await this.#call({ verb: 'replace', plural: type.plural, name, body: object }, () => {
      this.#existing(type, object.metadata, { resourceVersion });
      return this.#store<T>(type, structuredClone(object) as unknown as AnyObject);
    });
  }

  async apply<T extends KubeObject>(type: ResourceType, object: AppliedObject): Promise<T> {
    const { name } = object.metadata;
    return await this.#call({ verb: 'apply', plural: type.plural, name, body: object }, () => {
      const before = this.#objects.get(idOf(type, object.metadata));
      const status = before?.status;
      return this.#store<T>(type, {
        ...structuredClone(object),
        metadata: { ...before?.metadata, ...structuredClone(object.metadata) },
        ...(status === undefined ? {} : { status }),
      } as unknown as AnyObject);
    });
  }

  async applyStatus<T extends KubeObject>(type: ResourceType, object: AppliedObject): Promise<T> {
    const { name } = object.metadata;
    return await this.#call(
      { verb: 'applyStatus', plural: type.plural, name, body: object },
      () => {
        const before = this.#existing(type, object.metadata, {});
        return this.#store<T>(type, {
          ...before,
          status: structuredClone('status' in object ? object.status : undefined),
        });
      },
    );
  }

  async patch<T extends KubeObject>(
    type: ResourceType,
    name: ObjectName,
    patch: { merge: Record<string, unknown> } | { json: JsonPatch },
  ): Promise<T> {
    const body = 'merge' in patch ? patch.merge : patch.json;
    return await this.#call({ verb: 'patch', plural: type.plural, name: name.name, body }, () => {
      if (!('merge' in patch)) throw new Error('the fake knows merge patches only');
      const metadata = (patch.merge.metadata ?? {}) as { resourceVersion?: string; uid?: string };
      const before = this.#existing(type, name, metadata);
      return this.#store<T>(type, merged(before, patch.merge) as AnyObject);
    });
  }

  async remove(
    type: ResourceType,
    name: ObjectName,
    options: { uid?: string; resourceVersion?: string } = {},
  ): Promise<'removed' | 'missing'> {
    return await this.#call({ verb: 'remove', plural: type.plural, name: name.name }, () => {
      if (!this.#objects.has(idOf(type, name))) return 'missing';
      const before = this.#existing(type, name, options);
      this.#store(type, {
        ...before,
        metadata: { ...before.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' },
      });
      return 'removed';
    });
  }

  // ---------------------------------------------------------------------------------------------------------------- inside

  async #call<R>(call: FakeCall, happen: () => R): Promise<R> {
    this.calls.push(call);
    while (this.#held !== undefined) await this.#held;
    const index = this.#failures.findIndex(
      (failure) =>
        failure.verb === call.verb &&
        (failure.plural === undefined || failure.plural === call.plural),
    );
    const failure = index === -1 ? undefined : this.#failures.splice(index, 1)[0];
    if (failure !== undefined && !failure.afterwards) throw failure.error;
    const answer = happen();
    if (failure !== undefined) throw failure.error;
    return answer;
  }

  #existing(
    type: ResourceType,
    name: ObjectName,
    expected: { uid?: string | undefined; resourceVersion?: string | undefined },
  ): AnyObject {
    const object = this.#objects.get(idOf(type, name));
    if (object === undefined)
      throw new KubeError('NotFound', `${type.plural} "${name.name}" not found`, { status: 404 });
    const { uid, resourceVersion } = object.metadata;
    if (
      (expected.uid !== undefined && expected.uid !== uid) ||
      (expected.resourceVersion !== undefined && expected.resourceVersion !== resourceVersion)
    )
      throw new KubeError('Conflict', `${type.plural} "${name.name}" has changed`, { status: 409 });
    return object;
  }

  #store<T extends KubeObject>(type: ResourceType, object: AnyObject): T {
    const id = idOf(type, object.metadata);
    const before = this.#objects.get(id);
    const stored = this.#stamped(type, object, before);
    const gone =
      stored.metadata.deletionTimestamp !== undefined &&
      (stored.metadata.finalizers ?? []).length === 0;
    if (before !== undefined && !gone && sameContent(before, stored))
      return structuredClone(before) as unknown as T;
    this.#version += 1;
    stored.metadata.resourceVersion = String(this.#version);
    if (gone) this.#objects.delete(id);
    else this.#objects.set(id, stored);
    this.#history.push({
      version: this.#version,
      type: gone ? 'deleted' : before === undefined ? 'added' : 'modified',
      plural: type.plural,
      object: structuredClone(stored),
    });
    this.#wake();
    return structuredClone(stored) as unknown as T;
  }

  #stamped(type: ResourceType, object: AnyObject, before: AnyObject | undefined): AnyObject {
    if (before === undefined) this.#uids += 1;
    const specChanged = JSON.stringify(before?.spec) !== JSON.stringify(object.spec);
    const generation = before?.metadata.generation ?? 0;
    return {
      ...object,
      apiVersion: apiVersionOf(type),
      kind: type.kind,
      metadata: {
        ...object.metadata,
        uid: before?.metadata.uid ?? object.metadata.uid ?? `uid-${this.#uids}`,
        creationTimestamp: before?.metadata.creationTimestamp ?? '2026-01-01T00:00:00Z',
        generation: generation + (specChanged || before === undefined ? 1 : 0),
      },
    };
  }

  #select(
    type: ResourceType,
    options: { namespace?: string; labelSelector?: string },
  ): AnyObject[] {
    return [...this.#objects]
      .filter(([id, object]) => id.startsWith(`${type.plural}|`) && matches(object, options))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);
  }

  #nextChange(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakers.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#wakers.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  #wake(): void {
    for (const wake of [...this.#wakers]) wake();
  }
}

function idOf(type: ResourceType, name: ObjectName): string {
  return `${type.plural}|${name.namespace ?? ''}|${name.name}`;
}

function matches(
  object: AnyObject,
  options: { namespace?: string; labelSelector?: string },
): boolean {
  if (options.namespace !== undefined && object.metadata.namespace !== options.namespace)
    return false;
  return (options.labelSelector ?? '')
    .split(',')
    .filter((term) => term !== '')
    .every((term) => {
      const [key = '', value] = term.split('=');
      return object.metadata.labels?.[key] === value;
    });
}

function sameContent(a: AnyObject, b: AnyObject): boolean {
  const content = (object: AnyObject) =>
    JSON.stringify({ ...object, metadata: { ...object.metadata, resourceVersion: '' } });
  return content(a) === content(b);
}

/** RFC 7386. */
function merged(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch))
    return structuredClone(patch);
  const result: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  return result;
}
