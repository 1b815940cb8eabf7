/** Process servers that run in the cluster. */
import { describe, expect } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { create, named, protectedVM, replicationPolicy, statefulServer } from './manifests.ts';
import { test } from './memoryWorld.ts';
import { bootstrapOf } from './peers.ts';
import { eventually } from './waiting.ts';

describe('a process server of mode StatefulSet', () => {
  test('gets a StatefulSet, a Service and a bootstrap file for each replica, and grows its volumes', async ({
    world,
  }) => {
    const { kube } = world;
    world.operate();
    await create(
      kube,
      world.vault(),
      replicationPolicy(),
      statefulServer({ size: '10Gi' }),
      protectedVM('web', { processServerRef: { name: 'sts' } }),
    );
    expect((await bootstrapOf(kube, 'sts-0-bootstrap')).endpoints).toEqual([
      'sts-0.default.svc:9443',
    ]);
    expect((await bootstrapOf(kube, 'sts-1-bootstrap')).name).toBe('sts-1');
    const set = await eventually(() => {
      const found = kube.peek<StatefulSet>(kubeTypes.statefulSet, named('sts'));
      if (found === undefined) throw new Error('no StatefulSet yet');
      return found;
    });
    expect(set.spec).toMatchObject({ replicas: 2, serviceName: 'sts' });
    expect(set.spec.volumeClaimTemplates[0]?.spec.resources.requests.storage).toBe('10Gi');
    for (const name of ['sts', 'sts-0', 'sts-1'])
      expect(kube.peek(kubeTypes.service, named(name))).toBeDefined();
    kube.seed(kubeTypes.persistentVolumeClaim, {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'cache-sts-0', namespace: 'default' },
      spec: { resources: { requests: { storage: '10Gi' } } },
    } as never);
    await kube.patch(farshoreTypes.processServer, named('sts'), {
      merge: { spec: { cache: { size: '20Gi' } } },
    });
    await eventually(() => {
      const now = kube.peek<StatefulSet>(kubeTypes.statefulSet, named('sts'));
      expect(now?.spec.volumeClaimTemplates[0]?.spec.resources.requests.storage).toBe('20Gi');
    });
    expect(kube.peek(kubeTypes.persistentVolumeClaim, named('cache-sts-0'))).toMatchObject({
      spec: { resources: { requests: { storage: '20Gi' } } },
    });
  });
});

interface StatefulSet extends KubeObject {
  spec: {
    replicas: number;
    volumeClaimTemplates: { spec: { resources: { requests: { storage: string } } } }[];
  };
}
