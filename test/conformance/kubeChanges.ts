import { describe, expect, test } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { kubeTypes } from '../../platform/kubernetes.ts';
import { type ConfigMap, expectCode, type KubeMaker, type Policy } from './kubeMaker.ts';

const { configMap } = kubeTypes;
const { replicationPolicy } = farshoreTypes;

/** What every KubeClient's apply and patch must do: whose field is whose, and which half of an object a change reaches. */
export function kubeChangesConformance(fresh: () => KubeMaker): void {
  describe('an apply', () => {
    test('creates what is not there, and says again what is without a new version', async () => {
      const maker = fresh();
      const policy = maker.policy('a', { rpoThreshold: '30m' });
      const first = await maker.client.apply<Policy>(replicationPolicy, policy);
      expect(first).toMatchObject({ ...policy, metadata: { ...policy.metadata, generation: 1 } });
      expect(await maker.client.apply(replicationPolicy, policy)).toEqual(first);
      expect(await maker.getPolicy('a')).toEqual(first);
    });

    test('takes away what it does not state any more; what others set stays', async () => {
      const maker = fresh();
      const { client } = maker;
      await client.apply(
        configMap,
        maker.configMap('a', { ours: '1', was: '1', lost: '1' }, { app: 'x' }),
      );
      const theirs = { metadata: { labels: { team: 'shop' } }, data: { theirs: '1', lost: '2' } };
      await client.patch(configMap, maker.named('a'), { merge: theirs });
      const after = await client.apply<ConfigMap>(configMap, maker.configMap('a', { ours: '2' }));
      expect(after.data).toEqual({ ours: '2', theirs: '1', lost: '2' });
      expect(after.metadata.labels).toEqual({ team: 'shop' });
      expect(await maker.getMap('a')).toEqual(after);
    });

    test('takes over what another set, unless told not to', async () => {
      const maker = fresh();
      const { client } = maker;
      const ours = maker.configMap('a', { key: 'ours' });
      await client.apply(configMap, ours);
      await client.patch(configMap, maker.named('a'), { merge: { data: { key: 'theirs' } } });
      await expectCode(client.apply(configMap, ours, { force: false }), 'Conflict');
      expect((await maker.getMap('a'))?.data).toEqual({ key: 'theirs' });
      await client.apply(configMap, ours);
      expect((await maker.getMap('a'))?.data).toEqual({ key: 'ours' });
      await client.apply(configMap, maker.configMap('a', { key: 'again' }), { force: false });
    });

    test('makes nothing of a pinned object that is gone, and changes no namesake', async () => {
      const maker = fresh();
      const { client } = maker;
      const { uid = '', resourceVersion = '' } = (await maker.createPolicy('a')).metadata;
      const apply = (pin: object) =>
        client.apply(replicationPolicy, {
          ...maker.policy('a', { rpoThreshold: '30m' }),
          metadata: { ...maker.named('a'), ...pin },
        });
      await client.remove(replicationPolicy, maker.named('a'));
      await expectCode(apply({ uid }), 'Conflict');
      await expectCode(apply({ uid, resourceVersion }), 'Conflict');
      expect(await maker.getPolicy('a')).toBeUndefined();
      // A version alone names nothing once its object is gone: a trap that a double must not hide.
      await apply({ resourceVersion });
      const namesake = await maker.getPolicy('a');
      await expectCode(apply({ uid }), 'Invalid');
      await expectCode(apply({ resourceVersion }), 'Conflict');
      expect(namesake).toBeDefined();
      expect(await maker.getPolicy('a')).toEqual(namesake);
    });
  });

  describe('a patch', () => {
    test('merges: names what changes, and null takes away', async () => {
      const maker = fresh();
      await maker.createMap('a', { keep: '1', change: '1', drop: '1' });
      const merge = { data: { change: '2', drop: null, add: '1' } };
      const after = await maker.client.patch<ConfigMap>(configMap, maker.named('a'), { merge });
      expect(after.data).toEqual({ keep: '1', change: '2', add: '1' });
      expect(await maker.getMap('a')).toEqual(after);
    });

    test('does not send what is undefined', async () => {
      const maker = fresh();
      const before = await maker.createMap('a', { keep: '1' }, { app: 'x' });
      const merge = { data: undefined, metadata: { labels: undefined, finalizers: undefined } };
      const after = await maker.client.patch(configMap, maker.named('a'), { merge });
      expect(after).toStrictEqual(before);
    });

    test('of a version that is not the latest is refused', async () => {
      const maker = fresh();
      const { client } = maker;
      const { metadata } = await maker.createMap('a', { value: '1' });
      const { resourceVersion, uid } = metadata;
      const patch = (pin: object, value: string) =>
        client.patch(configMap, maker.named('a'), { merge: { metadata: pin, data: { value } } });
      await patch({ resourceVersion, uid }, '2');
      await expectCode(patch({ resourceVersion }, '3'), 'Conflict');
      const another = '00000000-0000-4000-8000-000000000000';
      await expectCode(patch({ uid: another }, '3'), 'Invalid');
      expect((await maker.getMap('a'))?.data).toEqual({ value: '2' });
    });

    test('by operations happens whole or, when a test fails, not at all', async () => {
      const maker = fresh();
      const before = await maker.createMap('a', { x: '1' });
      const note = 'farshore.dev/note';
      const annotations = { [note]: 'kept' };
      const patch = (json: Parameters<typeof maker.client.patch>[2]) =>
        maker.client.patch<ConfigMap>(configMap, maker.named('a'), json);
      const add = { op: 'add', path: '/data/y', value: '2' } as const;
      const failing = { op: 'test', path: '/data/x', value: '2' } as const;
      await expectCode(patch({ json: [add, failing] }), 'Invalid');
      await expectCode(patch({ json: [{ op: 'remove', path: '/data/none' }] }), 'Invalid');
      await expectCode(patch({ json: [{ op: 'test', path: '/data/none', value: '' }] }), 'Invalid');
      expect(await maker.getMap('a')).toEqual(before);
      const after = await patch({
        json: [
          { ...failing, value: '1' },
          add,
          { op: 'replace', path: '/data/x', value: '3' },
          { op: 'add', path: '/metadata/annotations', value: { drop: 'x', ...annotations } },
          { op: 'test', path: '/metadata/annotations/farshore.dev~1note', value: 'kept' },
          { op: 'remove', path: '/metadata/annotations/drop' },
          { op: 'add', path: '/metadata/finalizers', value: ['farshore.dev/a'] },
          { op: 'add', path: '/metadata/finalizers/-', value: 'farshore.dev/c' },
          { op: 'add', path: '/metadata/finalizers/1', value: 'farshore.dev/b' },
          { op: 'remove', path: '/metadata/finalizers/0' },
        ],
      });
      expect(after.data).toEqual({ x: '3', y: '2' });
      expect(after.metadata.annotations).toEqual(annotations);
      expect(after.metadata.finalizers).toEqual(['farshore.dev/b', 'farshore.dev/c']);
      await patch({ merge: { metadata: { finalizers: null } } });
    });
  });

  describe('the two halves of an object', () => {
    const status = { machines: 3, worstRpoSeconds: 10 };

    test('do not overwrite each other', async () => {
      const maker = fresh();
      const { client } = maker;
      const target = maker.named('a');
      await maker.createPolicy('a', { rpoThreshold: '30m' });
      const both = { ...maker.policy('a', { rpoThreshold: '59m' }), status };
      const found = await client.applyStatus<Policy>(replicationPolicy, both);
      expect([found.spec.rpoThreshold, found.status]).toEqual(['30m', status]);

      const lie = { machines: 99 };
      const merge = { spec: { rpoThreshold: '31m' }, status: lie };
      await client.patch(replicationPolicy, target, { merge });
      await client.apply(replicationPolicy, { ...maker.policy('a', {}), status: lie });
      const read = await maker.getPolicy('a');
      if (read === undefined) throw new Error('it is gone');
      expect([read.spec.rpoThreshold, read.status]).toEqual(['31m', status]);
      const replaced = { ...read, spec: { ...read.spec, rpoThreshold: '32m' }, status: lie };
      await client.replace(replicationPolicy, replaced);
      const { status: _, ...statusless } = (await maker.getPolicy('a')) ?? read;
      await client.replace(replicationPolicy, statusless);
      expect((await maker.getPolicy('a'))?.status).toEqual(status);

      const answer = await client.patch<Policy>(
        replicationPolicy,
        target,
        { merge: { spec: { rpoThreshold: '59m' }, status: { machines: 4 } } },
        { subresource: 'status' },
      );
      expect([answer.spec.rpoThreshold, answer.status]).toEqual([
        '32m',
        { ...status, machines: 4 },
      ]);
      expect(await maker.getPolicy('a')).toEqual(answer);
    });

    test('of the status, what is not stated any more goes, and what is the same makes no version', async () => {
      const maker = fresh();
      const { client } = maker;
      const { resourceVersion = '' } = (await maker.createPolicy('a')).metadata;
      const condition = (type: string, reason: string) => ({
        ...{ type, status: 'True' as const, reason, message: 'm' },
        lastTransitionTime: '2026-01-01T00:00:00Z',
      });
      const apply = (stated: Policy['status']) =>
        client.applyStatus<Policy>(replicationPolicy, {
          ...{ apiVersion: maker.policy('a').apiVersion, kind: 'ReplicationPolicy' },
          metadata: maker.named('a'),
          status: stated,
        });
      await apply({ ...status, conditions: [condition('Ready', 'A'), condition('Stalled', 'B')] });
      const fewer = { machines: 4, conditions: [condition('Ready', 'C')] };
      const after = await apply(fewer);
      expect(after.status).toEqual(fewer);
      expect(await apply(fewer)).toEqual(after);
      const stale = {
        ...maker.policy('a'),
        metadata: { ...maker.named('a'), resourceVersion },
        status,
      };
      await expectCode(client.applyStatus(replicationPolicy, stale), 'Conflict');
    });

    test('are told apart by the generation, which rises with what is asked for alone', async () => {
      const maker = fresh();
      const { client } = maker;
      const target = maker.named('a');
      const generation = async () => (await maker.getPolicy('a'))?.metadata.generation;
      await maker.createPolicy('a', { rpoThreshold: '30m' }, ['farshore.dev/a']);
      const labelled = { merge: { metadata: { labels: { team: 'shop' } } } };
      await client.patch(replicationPolicy, target, labelled);
      await client.applyStatus(replicationPolicy, { ...maker.policy('a'), status });
      expect(await generation()).toBe(1);
      const asked = { merge: { spec: { rpoThreshold: '31m' } } };
      await client.patch(replicationPolicy, target, asked);
      await client.patch(replicationPolicy, target, asked);
      expect(await generation()).toBe(2);
      const read = await maker.getPolicy('a');
      if (read === undefined) throw new Error('it is gone');
      const metadata = { ...read.metadata, generation: 77 };
      await client.replace(replicationPolicy, { ...read, metadata });
      expect(await generation()).toBe(2);
      await client.apply(replicationPolicy, maker.policy('a', { rpoThreshold: '32m' }));
      expect(await generation()).toBe(3);
      // To be gone is also asked for.
      await client.remove(replicationPolicy, target);
      expect(await generation()).toBe(4);
      await client.patch(replicationPolicy, target, { merge: { metadata: { finalizers: [] } } });
    });
  });
}
