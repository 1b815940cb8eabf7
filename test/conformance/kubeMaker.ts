import { expect } from 'vitest';
import {
  API_GROUP_VERSION,
  farshoreTypes,
  type ReplicationPolicyStatus,
} from '../../crds/index.ts';
import {
  type KubeClient,
  type KubeErrorCode,
  type KubeObject,
  type KubeResource,
  kubeTypes,
  type ResourceType,
  type SecretObject,
  type WatchEvent,
} from '../../platform/kubernetes.ts';

/** A Kubernetes API that serves Farshore's kinds, and a namespace in it that exists. */
export interface KubeSite {
  client: KubeClient;
  namespace: string;
  /** Makes the server forget its history up to now. */
  forget(): Promise<void>;
}

export type ConfigMap = KubeObject & { data?: Record<string, string> };
/** A kind with both halves, as it is written: what is left out has defaults on the real server. */
export type Policy = KubeResource<{ rpoThreshold?: string }, ReplicationPolicyStatus>;
type Selection = { labelSelector?: string; fieldSelector?: string };

/** Makes the objects of one test, under names of its own. */
export class KubeMaker {
  readonly client: KubeClient;
  readonly site: KubeSite;
  readonly #prefix: string;

  constructor(site: KubeSite, prefix: string) {
    this.client = site.client;
    this.site = site;
    this.#prefix = prefix;
  }

  named(name: string): { namespace: string; name: string } {
    return { namespace: this.site.namespace, name: `${this.#prefix}-${name}` };
  }

  configMap(name: string, data: Record<string, string>, labels?: Record<string, string>) {
    return {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { ...this.named(name), ...(labels === undefined ? {} : { labels }) },
      data,
    } satisfies ConfigMap;
  }

  policy(name: string, spec: Policy['spec'] = {}) {
    return {
      apiVersion: API_GROUP_VERSION,
      kind: 'ReplicationPolicy',
      metadata: this.named(name),
      spec,
    } satisfies Policy;
  }

  async getMap(name: string): Promise<ConfigMap | undefined> {
    return await this.client.get<ConfigMap>(kubeTypes.configMap, this.named(name));
  }

  async getPolicy(name: string): Promise<Policy | undefined> {
    return await this.client.get(farshoreTypes.replicationPolicy, this.named(name));
  }

  async createMap(
    name: string,
    data: Record<string, string> = {},
    labels?: Record<string, string>,
  ): Promise<ConfigMap> {
    const object: ConfigMap = this.configMap(name, data, labels);
    return await this.client.create(kubeTypes.configMap, object);
  }

  async createPolicy(
    name: string,
    spec: Policy['spec'] = {},
    finalizers?: string[],
  ): Promise<Policy> {
    const made: Policy = this.policy(name, spec);
    if (finalizers !== undefined) made.metadata = { ...made.metadata, finalizers };
    return await this.client.create(farshoreTypes.replicationPolicy, made);
  }

  secret(name: string, content: Partial<SecretObject>): SecretObject {
    return { apiVersion: 'v1', kind: 'Secret', metadata: this.named(name), ...content };
  }

  /** Where the history of the test's namespace is now. */
  async now(type: ResourceType = kubeTypes.configMap): Promise<string> {
    const { client, site } = this;
    return (await client.list(type, { namespace: site.namespace, limit: 0 })).resourceVersion;
  }

  /** Names in the whole list, without the test's prefix. */
  async names(selection: Selection = {}): Promise<string[]> {
    const { items } = await this.client.list(kubeTypes.configMap, {
      namespace: this.site.namespace,
      limit: 0,
      ...selection,
    });
    return this.own(items);
  }

  own(items: readonly KubeObject[]): string[] {
    return items
      .map(({ metadata }) => metadata.name)
      .filter((name) => name.startsWith(`${this.#prefix}-`))
      .map((name) => this.short(name));
  }

  short(name: string): string {
    return name.slice(this.#prefix.length + 1);
  }

  watch<T extends KubeObject = ConfigMap>(
    from: { resourceVersion: string; type?: ResourceType; timeoutSeconds?: number } & Selection,
  ): Watching<T> {
    const { type = kubeTypes.configMap, timeoutSeconds = 60, ...selection } = from;
    const stop = new AbortController();
    const options = { timeoutSeconds, namespace: this.site.namespace, signal: stop.signal };
    const stream = this.client.watch<T>(type, { ...selection, ...options });
    return new Watching(stream, stop);
  }
}

/** What a watch tells, but for bookmarks, which may come or not. */
export class Watching<T extends KubeObject> {
  readonly stop: AbortController;
  readonly #events: AsyncIterator<WatchEvent<T>>;

  constructor(stream: AsyncIterable<WatchEvent<T>>, stop: AbortController) {
    this.#events = stream[Symbol.asyncIterator]();
    this.stop = stop;
  }

  /** The next change; `undefined` when the server ended the watch. */
  async next(): Promise<{ type: 'added' | 'modified' | 'deleted'; object: T } | undefined> {
    for (;;) {
      const { value, done } = await this.#events.next();
      if (done) return undefined;
      if (value.type !== 'bookmark') return value;
    }
  }

  async take(count: number): Promise<{ type: 'added' | 'modified' | 'deleted'; object: T }[]> {
    const taken = [];
    while (taken.length < count) {
      const event = await this.next();
      if (event === undefined) throw new Error(`the watch ended after ${taken.length} events`);
      taken.push(event);
    }
    return taken;
  }

  async close(): Promise<void> {
    this.stop.abort(new Error('seen enough'));
    await this.#events.return?.();
  }
}

export async function expectCode(call: Promise<unknown>, code: KubeErrorCode): Promise<void> {
  await expect(call).rejects.toMatchObject({ name: 'KubeError', code });
}
