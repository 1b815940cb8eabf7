/** The Kubernetes adapter on a real API server: its answers by stable codes, patches, ownership, watches. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { HttpKubeClient } from '../../platform/kube/client.ts';
import { type KubeObject, kubeTypes, type WatchEvent } from '../../platform/kubernetes.ts';
import { kubeClientConformance } from '../conformance/kubeClient.ts';
import { type FarshoreCluster, startFarshoreCluster } from '../servers/farshoreCluster.ts';
import type { KubernetesServer } from '../servers/kubernetes.ts';

type ConfigMap = KubeObject & { data?: Record<string, string> };

const type = kubeTypes.configMap;
let cluster: FarshoreCluster;
let server: KubernetesServer;
let client: HttpKubeClient;
let namespace: string;
let count = 0;

beforeAll(async () => {
  cluster = await startFarshoreCluster();
  ({ client, server } = cluster);
});

afterAll(async () => {
  await cluster?.close();
});

beforeEach(() => {
  count += 1;
  namespace = `client-${count}`;
  server.kubectl(['create', 'namespace', namespace]);
});

function configMap(name: string, value: string): ConfigMap {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { namespace, name }, data: { value } };
}

describe('the client', () => {
  it('tells what the server refuses by stable codes', async () => {
    const created = await client.create(type, configMap('a', '1'));
    await expect(client.create(type, configMap('a', '1'))).rejects.toMatchObject({
      code: 'AlreadyExists',
    });
    await client.replace(type, { ...created, data: { value: '2' } });
    await expect(client.replace(type, created)).rejects.toMatchObject({ code: 'Conflict' });
    await expect(client.create(type, configMap('Not A Name', '1'))).rejects.toMatchObject({
      code: 'Invalid',
    });
    const name = { namespace, name: 'a' };
    await expect(client.remove(type, name, { uid: 'another' })).rejects.toMatchObject({
      code: 'Conflict',
    });
    expect(await client.remove(type, name, { uid: created.metadata.uid ?? '' })).toBe('removed');
    expect(await client.remove(type, name)).toBe('missing');
    expect(await client.get(type, name)).toBeUndefined();
    const unknown = { ...type, group: 'nobody.example', plural: 'things' };
    await expect(client.get(unknown, name)).rejects.toMatchObject({ code: 'NotServed' });
    await expect(client.list(unknown, { limit: 0 })).rejects.toMatchObject({ code: 'NotServed' });
  });

  it('applies as one owner: what it does not state any more goes, what others set stays', async () => {
    await client.apply(type, configMap('a', '1'));
    server.kubectl(['label', '-n', namespace, 'configmap/a', 'team=shop']);
    await client.apply(type, { ...configMap('a', '1'), data: { other: 'x' } });
    const after = await client.get<ConfigMap>(type, { namespace, name: 'a' });
    expect(after?.data).toEqual({ other: 'x' });
    expect(after?.metadata.labels).toEqual({ team: 'shop' });
    const contested = {
      ...configMap('a', '1'),
      metadata: { namespace, name: 'a', labels: { team: 'ours' } },
    };
    await expect(client.apply(type, contested, { force: false })).rejects.toMatchObject({
      code: 'Conflict',
    });
    await client.apply(type, contested);
  });

  it('gets bookmarks that move its place on, and an orderly end, from a watch on which nothing happens', async () => {
    const { resourceVersion } = await client.list(type, { namespace, limit: 0 });
    const events: WatchEvent<ConfigMap>[] = [];
    const stream = client.watch<ConfigMap>(type, {
      namespace,
      resourceVersion,
      timeoutSeconds: 6,
      signal: AbortSignal.timeout(30_000),
    });
    await client.apply(type, configMap('seen', '1'));
    let elsewhere = '';
    for await (const event of stream) {
      events.push(event);
      if (events.length > 1) continue;
      const other = { ...configMap('a', '1'), metadata: { namespace: 'default', name: namespace } };
      elsewhere = (await client.create<ConfigMap>(type, other)).metadata.resourceVersion ?? '';
    }
    expect(events[0]).toMatchObject({ type: 'added', object: { metadata: { name: 'seen' } } });
    const last = events.at(-1);
    expect(last?.type).toBe('bookmark');
    expect(BigInt(last?.type === 'bookmark' ? last.resourceVersion : 0)).toBeGreaterThanOrEqual(
      BigInt(elsewhere),
    );
  });
});

describe('as every client', () => {
  kubeClientConformance(() => ({
    client,
    namespace,
    forget: async () => {
      await server.compact();
      // It would go on from its own memory.
      await server.restartApiServer();
    },
  }));
});
