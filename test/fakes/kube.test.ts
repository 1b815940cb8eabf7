import { describe } from 'vitest';
import { kubeClientConformance } from '../conformance/kubeClient.ts';
import { FakeKube } from './kube.ts';

describe('FakeKube', () => {
  const kube = new FakeKube();
  kubeClientConformance(() => ({
    client: kube,
    namespace: 'conformance',
    forget: async () => kube.compact(),
  }));
});
