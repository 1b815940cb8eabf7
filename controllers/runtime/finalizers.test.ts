import { expect, it } from 'vitest';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { addFinalizer, removeFinalizer } from './finalizers.ts';

const type = kubeTypes.configMap;
const finalizer = 'farshore.dev/finalizer';

function seeded(kube: FakeKube, finalizers: string[]): KubeObject {
  return kube.seed(type, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { namespace: 'n', name: 'm', finalizers },
  });
}

it('a finalizer is added once, beside those of others', async () => {
  const kube = new FakeKube();
  const object = await addFinalizer(kube, { type, object: seeded(kube, ['other']), finalizer });
  expect(object.metadata.finalizers).toEqual(['other', finalizer]);
  await addFinalizer(kube, { type, object, finalizer });
  expect(kube.count('patch')).toBe(1);
});

it('a finalizer is never written over another that was added meanwhile', async () => {
  const kube = new FakeKube();
  const stale = seeded(kube, []);
  seeded(kube, ['newcomer']);
  await expect(addFinalizer(kube, { type, object: stale, finalizer })).rejects.toMatchObject({
    code: 'Conflict',
  });
});

it('releasing the last finalizer lets a deleted object go', async () => {
  const kube = new FakeKube();
  const object = seeded(kube, [finalizer]);
  await kube.remove(type, object.metadata);
  const deleted = kube.peek(type, object.metadata);
  if (deleted === undefined) throw new Error('gone too soon');
  await removeFinalizer(kube, { type, object: deleted, finalizer });
  expect(kube.peek(type, object.metadata)).toBeUndefined();
});
