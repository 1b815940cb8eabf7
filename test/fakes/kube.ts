/**
 * A Kubernetes API in memory, for unit tests: versions, generations, finalizers, watches that can be cut or made to forget, and
 * answers that fail when the script says so. What only the real server decides (schemas and their defaults, CEL, which namespaces
 * exist, garbage collection) it leaves out; those are tested on the real one. Passes test/conformance/kubeClient.ts.
 */
import {
  type AppliedObject,
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
import { jsonPatched } from './jsonPatch.ts';
import { KubeHistory, type StoredObject } from './kubeHistory.ts';
import {
  asSent,
  createdFrom,
  type Half,
  invalid,
  refused,
  stamped,
  updatedBy,
  withoutSystemFields,
} from './kubeObjects.ts';
import { type KubeSelection, selected } from './kubeSelection.ts';
import { mergePatched } from './mergePatch.ts';
import { applied, contested } from './ownedFields.ts';
import { unlessAborted } from './unlessAborted.ts';

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

interface Failure {
  verb: Verb;
  plural?: string;
  error: Error;
  /** The call happens all the same, and only its answer is lost. */
  afterwards: boolean;
}

export interface FakeCall {
  verb: Verb;
  plural: string;
  name: string;
  body?: unknown;
}

interface Pin {
  uid?: string | undefined;
  resourceVersion?: string | undefined;
}

export class FakeKube implements KubeClient {
  /** Every call, in order. */
  readonly calls: FakeCall[] = [];
  readonly #history = new KubeHistory();
  /** What was stated by the last apply of each half of each object. */
  readonly #stated = new Map<string, Partial<Record<Half, object>>>();
  readonly #failures: Failure[] = [];
  #uids = 0;
  #cuts = 0;
  #held: Promise<void> | undefined;

  // ------------------------------------------------------------------------------------------------------------ the script

  /** Puts an object in place, as somebody else would; keeps a status that is given. Returns it as stored. */
  seed<T extends KubeObject>(type: ResourceType, object: T): T {
    const before = this.#history.get(idOf(type, object.metadata));
    const sent = asSent(object);
    return this.#store<T>(type, {
      ...sent,
      metadata: { ...before?.metadata, ...sent.metadata },
    });
  }

  /** As stored, without counting as a call. */
  peek<T extends KubeObject>(type: ResourceType, name: ObjectName): T | undefined {
    return structuredClone(this.#history.get(idOf(type, name))) as T | undefined;
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
    this.#history.wake();
  }

  /** Watches and pages from before now answer 410. */
  compact(): void {
    this.#history.compact();
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
    const id = pathOf(type, name);
    return await this.#call(
      { verb: 'get', plural: type.plural, name: name.name },
      () => structuredClone(this.#history.get(id)) as T | undefined,
    );
  }

  async list<T extends KubeObject>(
    type: ResourceType,
    options: KubeSelection & { limit: number; continue?: string; signal?: AbortSignal },
  ): Promise<ListPage<T>> {
    const call: FakeCall = { verb: 'list', plural: type.plural, name: '' };
    const answering = this.#call(call, () => {
      const token = options.continue ?? `${this.#history.version}:0`;
      const [startedAt = 0, offset = 0] = token.split(':').map(Number);
      if (options.continue !== undefined && this.#history.hasForgotten(startedAt))
        throw refused('Gone', 'the continue token is too old', 410);
      const all = this.#history.at(startedAt, type).filter(selected(options));
      const end = options.limit > 0 ? offset + options.limit : all.length;
      return {
        items: structuredClone(all.slice(offset, end)) as unknown as T[],
        resourceVersion: String(startedAt),
        ...(end < all.length ? { continue: `${startedAt}:${end}` } : {}),
      };
    });
    return await unlessAborted(answering, options.signal);
  }

  async *watch<T extends KubeObject>(
    type: ResourceType,
    options: KubeSelection & {
      resourceVersion: string;
      timeoutSeconds: number;
      signal: AbortSignal;
    },
  ): AsyncGenerator<WatchEvent<T>, void, void> {
    const selects = selected(options);
    const opening = this.#call({ verb: 'watch', plural: type.plural, name: '' }, () => undefined);
    await unlessAborted(opening, options.signal);
    const cuts = this.#cuts;
    let at = Number(options.resourceVersion);
    if (this.#history.hasForgotten(at)) throw refused('Gone', 'too old resource version', 410);
    const timeUp = AbortSignal.timeout(options.timeoutSeconds * 1000);
    const over = AbortSignal.any([timeUp, options.signal]);
    while (!over.aborted) {
      if (cuts !== this.#cuts) throw new KubeError('Unreachable', 'the watch was cut');
      const next = this.#history.next(at, { type, selects });
      if (next === undefined) {
        await this.#history.changed(over);
        continue;
      }
      at = next.version;
      yield next.event as WatchEvent<KubeObject> as WatchEvent<T>;
    }
    if (options.signal.aborted) throw options.signal.reason;
  }

  async create<T extends KubeObject>(type: ResourceType, object: T): Promise<T> {
    const { name } = object.metadata;
    return await this.#call({ verb: 'create', plural: type.plural, name, body: object }, () => {
      const made = createdFrom(type, asSent(object));
      if (this.#history.get(idOf(type, made.metadata)) !== undefined)
        throw refused('AlreadyExists', `${type.plural} "${made.metadata.name}" exists`, 409);
      return this.#store<T>(type, made);
    });
  }

  async replace<T extends KubeObject>(type: ResourceType, object: T): Promise<T> {
    const { name, resourceVersion, uid } = object.metadata;
    pathOf(type, object.metadata);
    return await this.#call({ verb: 'replace', plural: type.plural, name, body: object }, () => {
      const before = this.#existing(type, object.metadata, { resourceVersion, uid });
      if (resourceVersion === undefined)
        throw invalid('metadata.resourceVersion: must be specified for an update');
      return this.#store<T>(type, updatedBy(before, asSent(object), 'main'));
    });
  }

  async apply<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options: { force?: boolean } = {},
  ): Promise<T> {
    const { name } = object.metadata;
    const id = pathOf(type, object.metadata);
    return await this.#call({ verb: 'apply', plural: type.plural, name, body: object }, () => {
      const { metadata, status: _, ...rest } = asSent(object);
      const stated = { ...rest, metadata: withoutSystemFields(metadata) };
      const current = this.#target(type, object);
      const wanted = this.#applied(id, { half: 'main', force: options.force, stated, current });
      return this.#store<T>(
        type,
        current === undefined ? createdFrom(type, wanted) : updatedBy(current, wanted, 'main'),
      );
    });
  }

  async applyStatus<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options: { force?: boolean } = {},
  ): Promise<T> {
    const { name, resourceVersion } = object.metadata;
    const id = pathOf(type, object.metadata);
    return await this.#call(
      { verb: 'applyStatus', plural: type.plural, name, body: object },
      () => {
        // As the server does, which ignores a uid here.
        const current = this.#existing(type, object.metadata, { resourceVersion });
        const { status } = asSent(object);
        const stated = status === undefined ? {} : { status };
        const wanted = this.#applied(id, { half: 'status', force: options.force, stated, current });
        return this.#store<T>(type, updatedBy(current, wanted, 'status'));
      },
    );
  }

  async patch<T extends KubeObject>(
    type: ResourceType,
    name: ObjectName,
    patch: { merge: Record<string, unknown> } | { json: JsonPatch },
    options: { subresource?: 'status' | 'scale' } = {},
  ): Promise<T> {
    const body = 'merge' in patch ? patch.merge : patch.json;
    pathOf(type, name);
    return await this.#call({ verb: 'patch', plural: type.plural, name: name.name, body }, () => {
      if (options.subresource === 'scale') throw new Error('the fake knows no scale');
      const before = this.#existing(type, name, {});
      const wanted = patched(before, patch);
      const { resourceVersion, uid } = wanted.metadata;
      this.#existing(type, name, { resourceVersion });
      if (uid !== before.metadata.uid) throw invalid('metadata.uid: field is immutable');
      return this.#store<T>(type, updatedBy(before, wanted, options.subresource ?? 'main'));
    });
  }

  async remove(
    type: ResourceType,
    name: ObjectName,
    options: { uid?: string; resourceVersion?: string } = {},
  ): Promise<'removed' | 'missing'> {
    const id = pathOf(type, name);
    return await this.#call({ verb: 'remove', plural: type.plural, name: name.name }, () => {
      if (this.#history.get(id) === undefined) return 'missing';
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

  #existing(type: ResourceType, name: ObjectName, expected: Pin): StoredObject {
    const object = this.#history.get(idOf(type, name));
    if (object === undefined)
      throw refused('NotFound', `${type.plural} "${name.name}" not found`, 404);
    const { uid, resourceVersion } = object.metadata;
    if (
      (expected.uid !== undefined && expected.uid !== uid) ||
      (expected.resourceVersion !== undefined && expected.resourceVersion !== resourceVersion)
    )
      throw refused('Conflict', `${type.plural} "${name.name}" has changed`, 409);
    return object;
  }

  #store<T extends KubeObject>(type: ResourceType, object: StoredObject): T {
    const id = idOf(type, object.metadata);
    const before = this.#history.get(id);
    if (before === undefined) this.#uids += 1;
    const stored = stamped(type, object, { before, uid: `uid-${this.#uids}` });
    const { deletionTimestamp, finalizers = [] } = stored.metadata;
    const gone = deletionTimestamp !== undefined && finalizers.length === 0;
    if (gone) this.#stated.delete(id);
    return structuredClone(this.#history.put(type, stored, { id, gone })) as unknown as T;
  }

  /** The object that an apply is about; `undefined` when it has to be made. */
  #target(type: ResourceType, { metadata }: AppliedObject): StoredObject | undefined {
    const { uid, resourceVersion } = metadata;
    const current = this.#history.get(idOf(type, metadata));
    if (current === undefined && uid !== undefined)
      throw refused('Conflict', `${type.plural} "${metadata.name}" is gone`, 409);
    if (current === undefined) return undefined;
    if (uid !== undefined && uid !== current.metadata.uid)
      throw invalid('metadata.uid: field is immutable');
    return this.#existing(type, metadata, { resourceVersion });
  }

  /** What an apply makes of the object, and remembers to have stated. */
  #applied(
    id: string,
    apply: {
      half: Half;
      force: boolean | undefined;
      stated: object;
      current: StoredObject | undefined;
    },
  ): StoredObject {
    const { half, stated, current } = apply;
    const statements = this.#stated.get(id) ?? {};
    const change = { current, before: statements[half], stated };
    const others = apply.force === false ? contested(change) : [];
    if (others.length > 0) throw refused('Conflict', `others set ${others.join(', ')}`, 409);
    this.#stated.set(id, { ...statements, [half]: stated });
    return applied(change) as StoredObject;
  }
}

function patched(
  before: StoredObject,
  patch: { merge: Record<string, unknown> } | { json: JsonPatch },
): StoredObject {
  if ('merge' in patch) return mergePatched(before, asSent(patch.merge)) as StoredObject;
  try {
    return jsonPatched(before, patch.json);
  } catch (error) {
    throw invalid(String(error));
  }
}

function idOf(type: ResourceType, name: ObjectName): string {
  const namespace = type.namespaced ? (name.namespace ?? '') : '';
  return `${type.group}/${type.plural}/${namespace}/${name.name}`;
}

/** The id of what a call is about, which must be named whole. */
function pathOf(type: ResourceType, name: ObjectName): string {
  if (type.namespaced && name.namespace === undefined)
    throw new TypeError(`${type.kind} ${name.name} needs a namespace`);
  if (name.name === '.' || name.name === '..') throw invalid(`${name.name} is no name`);
  return idOf(type, name);
}
