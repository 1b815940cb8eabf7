import {
  type AppliedObject,
  apiVersionOf,
  FIELD_MANAGER,
  isKubeError,
  type JsonPatch,
  type KubeClient,
  KubeError,
  type KubeObject,
  type ListPage,
  type ObjectName,
  type ResourceType,
  type WatchEvent,
} from '../kubernetes.ts';
import { errorOfAnswer, isRecord, statusOf } from './errors.ts';
import { type KubeLimits, KubeTransport, loadKubeConfig } from './transport.ts';

interface Selection {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

/** The Kubernetes API over HTTPS. `close` ends connections that are kept open. */
export class HttpKubeClient implements KubeClient {
  readonly #transport: KubeTransport;

  constructor(transport: KubeTransport) {
    this.#transport = transport;
  }

  /** The URL of the API server. */
  get url(): string {
    return this.#transport.url;
  }

  close(): void {
    this.#transport.close();
  }

  async get<T extends KubeObject>(type: ResourceType, name: ObjectName): Promise<T | undefined> {
    try {
      return objectOf<T>(
        type,
        await this.#transport.request({
          what: `get ${described(type, name)}`,
          method: 'GET',
          path: objectPath(type, name),
        }),
      );
    } catch (error) {
      if (isKubeError(error, 'NotFound')) return undefined;
      throw error;
    }
  }

  async list<T extends KubeObject>(
    type: ResourceType,
    options: Selection & { limit: number; continue?: string; signal?: AbortSignal },
  ): Promise<ListPage<T>> {
    const what = `list ${type.plural}`;
    const body = await this.#transport.request({
      what,
      method: 'GET',
      path: collectionPath(type, options.namespace),
      query: {
        ...selectors(options),
        limit: options.limit > 0 ? String(options.limit) : undefined,
        continue: options.continue,
      },
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    if (!isRecord(body) || !isRecord(body.metadata) || !Array.isArray(body.items ?? []))
      throw new KubeError('BadAnswer', `Kubernetes answered with no list when asked to ${what}.`);
    const { resourceVersion, continue: next } = body.metadata;
    const items = (body.items ?? []) as unknown[];
    return {
      items: items.map((item) => objectOf<T>(type, item)),
      resourceVersion: String(resourceVersion ?? ''),
      ...(typeof next === 'string' && next !== '' ? { continue: next } : {}),
    };
  }

  async *watch<T extends KubeObject>(
    type: ResourceType,
    options: Selection & { resourceVersion: string; timeoutSeconds: number; signal: AbortSignal },
  ): AsyncGenerator<WatchEvent<T>, void, void> {
    const what = `watch ${type.plural}`;
    const lines = this.#transport.lines({
      what,
      method: 'GET',
      path: collectionPath(type, options.namespace),
      query: {
        ...selectors(options),
        watch: 'true',
        allowWatchBookmarks: 'true',
        resourceVersion: options.resourceVersion,
        timeoutSeconds: String(options.timeoutSeconds),
      },
      signal: options.signal,
    });
    for await (const line of lines) yield watchEventOf<T>(what, type, line);
  }

  async create<T extends KubeObject>(type: ResourceType, object: T): Promise<T> {
    const { name, namespace } = object.metadata;
    return objectOf<T>(
      type,
      await this.#transport.request({
        what: `create ${described(type, { name: name || `${object.metadata.generateName}…`, ...inNamespace(namespace) })}`,
        method: 'POST',
        path: collectionPath(type, namespace),
        query: { fieldManager: FIELD_MANAGER },
        body: object,
      }),
    );
  }

  async replace<T extends KubeObject>(type: ResourceType, object: T): Promise<T> {
    const { name, namespace } = object.metadata;
    const target = { name, ...inNamespace(namespace) };
    return objectOf<T>(
      type,
      await this.#transport.request({
        what: `replace ${described(type, target)}`,
        method: 'PUT',
        path: objectPath(type, target),
        query: { fieldManager: FIELD_MANAGER },
        body: object,
      }),
    );
  }

  async apply<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options: { force?: boolean } = {},
  ): Promise<T> {
    return await this.#apply<T>(type, object, { ...options, subresource: '' });
  }

  async applyStatus<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options: { force?: boolean } = {},
  ): Promise<T> {
    return await this.#apply<T>(type, object, { ...options, subresource: '/status' });
  }

  async patch<T extends KubeObject>(
    type: ResourceType,
    name: ObjectName,
    patch: { merge: Record<string, unknown> } | { json: JsonPatch },
    options: { subresource?: 'status' | 'scale' } = {},
  ): Promise<T> {
    const subresource = options.subresource === undefined ? '' : `/${options.subresource}`;
    return objectOf<T>(
      type,
      await this.#transport.request({
        what: `patch ${described(type, name)}${subresource}`,
        method: 'PATCH',
        path: objectPath(type, name) + subresource,
        query: { fieldManager: FIELD_MANAGER },
        ...('merge' in patch
          ? { body: patch.merge, contentType: 'application/merge-patch+json' }
          : { body: patch.json, contentType: 'application/json-patch+json' }),
      }),
    );
  }

  async remove(
    type: ResourceType,
    name: ObjectName,
    options: {
      uid?: string;
      resourceVersion?: string;
      propagation?: 'Background' | 'Foreground' | 'Orphan';
    } = {},
  ): Promise<'removed' | 'missing'> {
    const { uid, resourceVersion, propagation } = options;
    try {
      await this.#transport.request({
        what: `delete ${described(type, name)}`,
        method: 'DELETE',
        path: objectPath(type, name),
        body: {
          apiVersion: 'v1',
          kind: 'DeleteOptions',
          propagationPolicy: propagation ?? 'Background',
          preconditions: {
            ...(uid === undefined ? {} : { uid }),
            ...(resourceVersion === undefined ? {} : { resourceVersion }),
          },
        },
      });
      return 'removed';
    } catch (error) {
      if (isKubeError(error, 'NotFound')) return 'missing';
      throw error;
    }
  }

  async #apply<T extends KubeObject>(
    type: ResourceType,
    object: AppliedObject,
    options: { force?: boolean; subresource: '' | '/status' },
  ): Promise<T> {
    const { name, namespace } = object.metadata;
    const target = { name, ...inNamespace(namespace) };
    return objectOf<T>(
      type,
      await this.#transport.request({
        what: `apply ${described(type, target)}${options.subresource}`,
        method: 'PATCH',
        path: objectPath(type, target) + options.subresource,
        query: { fieldManager: FIELD_MANAGER, force: String(options.force ?? true) },
        body: object,
        contentType: 'application/apply-patch+yaml',
      }),
    );
  }
}

/** Connects as kubectl would, or with the given file. Throws when there is no configuration. */
export function connectKubernetes(
  options: { kubeconfig?: string; context?: string; limits?: Partial<KubeLimits> } = {},
): HttpKubeClient {
  const config = loadKubeConfig({
    ...(options.kubeconfig === undefined ? {} : { file: options.kubeconfig }),
    ...(options.context === undefined ? {} : { context: options.context }),
  });
  return new HttpKubeClient(new KubeTransport(config, options.limits));
}

function watchEventOf<T extends KubeObject>(
  what: string,
  type: ResourceType,
  line: string,
): WatchEvent<T> {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch (cause) {
    throw new KubeError('BadAnswer', `Kubernetes sent an event that is not JSON on ${what}.`, {
      cause,
    });
  }
  if (!isRecord(event) || !isRecord(event.object))
    throw new KubeError('BadAnswer', `Kubernetes sent an event without an object on ${what}.`);
  switch (event.type) {
    case 'ADDED':
      return { type: 'added', object: objectOf<T>(type, event.object) };
    case 'MODIFIED':
      return { type: 'modified', object: objectOf<T>(type, event.object) };
    case 'DELETED':
      return { type: 'deleted', object: objectOf<T>(type, event.object) };
    case 'BOOKMARK': {
      const metadata = isRecord(event.object.metadata) ? event.object.metadata : {};
      return { type: 'bookmark', resourceVersion: String(metadata.resourceVersion ?? '') };
    }
    default:
      throw errorOfAnswer(what, {
        status: statusOf(event.object)?.code ?? 500,
        retryAfter: undefined,
        body: event.object,
        text: line,
      });
  }
}

/** Items of a list lack what the list says once. */
function objectOf<T extends KubeObject>(type: ResourceType, body: unknown): T {
  if (!isRecord(body) || !isRecord(body.metadata) || typeof body.metadata.name !== 'string')
    throw new KubeError('BadAnswer', `Kubernetes answered with no object of ${type.plural}.`);
  return { apiVersion: apiVersionOf(type), kind: type.kind, ...body } as unknown as T;
}

function collectionPath(type: ResourceType, namespace: string | undefined): string {
  const group = type.group === '' ? '/api' : `/apis/${type.group}`;
  const scope =
    type.namespaced && namespace !== undefined
      ? `/namespaces/${encodeURIComponent(namespace)}`
      : '';
  return `${group}/${type.version}${scope}/${type.plural}`;
}

function objectPath(type: ResourceType, name: ObjectName): string {
  if (type.namespaced && name.namespace === undefined)
    throw new TypeError(`${type.kind} ${name.name} needs a namespace`);
  // The only names that stay special in a path when encoded.
  if (/^\.{1,2}$/.test(name.name))
    throw new KubeError('Invalid', `${JSON.stringify(name.name)} is no name of ${type.plural}.`);
  return `${collectionPath(type, name.namespace)}/${encodeURIComponent(name.name)}`;
}

function selectors(options: Selection): Record<string, string | undefined> {
  return { labelSelector: options.labelSelector, fieldSelector: options.fieldSelector };
}

function described(type: ResourceType, name: ObjectName): string {
  return `${type.plural} ${name.namespace === undefined ? '' : `${name.namespace}/`}${name.name}`;
}

function inNamespace(namespace: string | undefined): { namespace?: string } {
  return namespace === undefined ? {} : { namespace };
}
