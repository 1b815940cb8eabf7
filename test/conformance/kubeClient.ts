import { describe, expect, test } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { kubeTypes, type LeaseObject, type SecretObject } from '../../platform/kubernetes.ts';
import { kubeChangesConformance } from './kubeChanges.ts';
import { type ConfigMap, expectCode, KubeMaker, type KubeSite } from './kubeMaker.ts';
import { kubeWatchesConformance } from './kubeWatches.ts';

const { configMap, lease, secret } = kubeTypes;
const { replicationPolicy } = farshoreTypes;

/** What every KubeClient must do. Called inside a `describe`; names of each test are its own, so a site may be shared. */
export function kubeClientConformance(open: () => KubeSite): void {
  let tests = 0;
  const fresh = () => new KubeMaker(open(), `c${++tests}`);

  describe('what is there', () => {
    test('what is not there reads as undefined, and can’t be changed', async () => {
      const maker = fresh();
      const { client } = maker;
      expect(await client.get(configMap, maker.named('none'))).toBeUndefined();
      expect(await client.remove(configMap, maker.named('none'))).toBe('missing');
      expect(await client.remove(configMap, maker.named('none'), { uid: 'u' })).toBe('missing');
      const patch = { merge: { data: {} } };
      await expectCode(client.patch(configMap, maker.named('none'), patch), 'NotFound');
      const gone = await maker.createPolicy('gone');
      await client.remove(replicationPolicy, gone.metadata);
      await expectCode(client.replace(replicationPolicy, gone), 'NotFound');
      const status = { ...maker.policy('none'), status: { machines: 1 } };
      await expectCode(client.applyStatus(replicationPolicy, status), 'NotFound');
      expect(await maker.getPolicy('none')).toBeUndefined();
    });

    test('a name is looked for in its namespace and among its kind', async () => {
      const maker = fresh();
      const { client } = maker;
      await maker.createMap('a', { of: 'map' });
      await client.create(secret, maker.secret('a', { data: {} }));
      const elsewhere = { ...maker.configMap('a', { of: 'default' }) };
      elsewhere.metadata = { ...elsewhere.metadata, namespace: 'default' };
      await client.create(configMap, elsewhere);
      expect((await maker.getMap('a'))?.data).toEqual({ of: 'map' });
      expect(await client.remove(secret, maker.named('a'))).toBe('removed');
      expect(await client.remove(configMap, elsewhere.metadata)).toBe('removed');
      expect((await maker.getMap('a'))?.data).toEqual({ of: 'map' });
      const nameless = { name: maker.named('a').name };
      await expect(client.get(configMap, nameless)).rejects.toThrow(TypeError);
    });

    test('what was answered or given stays the caller’s', async () => {
      const maker = fresh();
      const given = maker.configMap('a', { key: 'value' });
      const answered = await maker.client.create<ConfigMap>(configMap, given);
      given.data.key = 'changed';
      answered.data = { key: 'changed' };
      const read = await maker.getMap('a');
      if (read?.data !== undefined) read.data.key = 'changed';
      expect((await maker.getMap('a'))?.data).toEqual({ key: 'value' });
    });
  });

  describe('a create', () => {
    test('answers what a read finds, with what the server adds', async () => {
      const maker = fresh();
      const made = await maker.createPolicy('a', { rpoThreshold: '30m' });
      expect(made).toMatchObject({
        ...maker.policy('a', { rpoThreshold: '30m' }),
        metadata: {
          ...maker.named('a'),
          uid: expect.any(String),
          resourceVersion: expect.stringMatching(/^[0-9]+$/),
          creationTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
          generation: 1,
        },
      });
      expect(await maker.getPolicy('a')).toEqual(made);
    });

    test('never replaces what is there', async () => {
      const maker = fresh();
      const first = await maker.createMap('a', { by: 'first' });
      await expectCode(maker.createMap('a', { by: 'second' }), 'AlreadyExists');
      expect(await maker.getMap('a')).toEqual(first);
    });

    test('by many at once makes one thing', async () => {
      const maker = fresh();
      const tries = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) => maker.createMap('a', { by: String(index) })),
      );
      const winners = tries.filter(({ status }) => status === 'fulfilled');
      expect(winners).toEqual([{ status: 'fulfilled', value: await maker.getMap('a') }]);
    });

    test('makes up a name that begins as it is told', async () => {
      const maker = fresh();
      const { name, namespace } = maker.named('made-');
      const nameless = { apiVersion: 'v1', kind: 'ConfigMap', data: {} };
      // The port's type wants a name, which the server takes for none when it is empty.
      const metadata = { name: '', namespace, generateName: name };
      const make = () => maker.client.create<ConfigMap>(configMap, { ...nameless, metadata });
      const [a, b] = [await make(), await make()];
      expect(a.metadata.name).toMatch(new RegExp(`^${name}.`));
      expect(b.metadata.name).not.toBe(a.metadata.name);
      expect(await maker.client.get(configMap, a.metadata)).toEqual(a);
    });

    test('is refused when the name is none', async () => {
      const maker = fresh();
      for (const name of ['Upper', 'under_score', 'a space', 'a-', 'a/b', 'x'.repeat(260)])
        await expectCode(maker.createMap(name), 'Invalid');
      await expectCode(maker.client.get(configMap, { ...maker.named(''), name: '..' }), 'Invalid');
    });

    test('sets no status: that is for whoever found it out', async () => {
      const maker = fresh();
      const object = { ...maker.policy('a'), status: { machines: 3 } };
      const made = await maker.client.create(replicationPolicy, object);
      expect(made).not.toHaveProperty('status');
      expect(await maker.getPolicy('a')).not.toHaveProperty('status');
    });

    test('under the name of what is gone makes another thing', async () => {
      const maker = fresh();
      const first = await maker.createMap('a');
      await maker.client.remove(configMap, first.metadata);
      const { uid } = first.metadata;
      const again = { ...maker.configMap('a', {}), metadata: { ...maker.named('a'), uid } };
      const second = await maker.client.create<ConfigMap>(configMap, again as ConfigMap);
      expect(second.metadata.uid).not.toBe(uid);
      expectLater(second, first);
    });

    test('takes a Secret’s plain text as what it stands for', async () => {
      const maker = fresh();
      const data = { kept: Buffer.from('as it is').toString('base64') };
      const stringData = { plain: 'text' };
      await maker.client.create(secret, maker.secret('a', { data, stringData }));
      const stored = await maker.client.get<SecretObject>(secret, maker.named('a'));
      expect(stored?.data).toEqual({ ...data, plain: Buffer.from('text').toString('base64') });
      expect(stored).not.toHaveProperty('stringData');
    });
  });

  describe('a replace', () => {
    test('needs the version that was read', async () => {
      const maker = fresh();
      const { client } = maker;
      const first = await maker.createMap('a', { value: '1' });
      const second = await client.replace(configMap, { ...first, data: { other: '2' } });
      expect(second.data).toEqual({ other: '2' });
      expectLater(second, first);
      await expectCode(client.replace(configMap, { ...first, data: {} }), 'Conflict');
      expect(await maker.getMap('a')).toEqual(second);
      const policy = await maker.createPolicy('a');
      const { resourceVersion, ...metadata } = policy.metadata;
      await expectCode(client.replace(replicationPolicy, { ...policy, metadata }), 'Invalid');
    });

    test('of the same version by many at once is made by one: so a lease has one holder', async () => {
      const maker = fresh();
      const { client } = maker;
      const free = await client.create<LeaseObject>(lease, {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: maker.named('lease'),
      });
      const tries = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) =>
          client.replace<LeaseObject>(lease, { ...free, spec: { holderIdentity: `${index}` } }),
        ),
      );
      const winners = tries.filter(({ status }) => status === 'fulfilled');
      const held = await client.get<LeaseObject>(lease, maker.named('lease'));
      expect(winners).toEqual([{ status: 'fulfilled', value: held }]);
      for (const one of tries)
        if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'Conflict' });
    });

    test('of a namesake is refused', async () => {
      const maker = fresh();
      const first = await maker.createPolicy('a');
      const metadata = { ...first.metadata, uid: '00000000-0000-4000-8000-000000000000' };
      await expectCode(maker.client.replace(replicationPolicy, { ...first, metadata }), 'Conflict');
    });

    test('that changes nothing makes no new version', async () => {
      const maker = fresh();
      const first = await maker.createMap('a', { x: '1', y: '2' });
      const same = { ...first, data: { y: '2', x: '1' } };
      expect(await maker.client.replace(configMap, same)).toEqual(first);
    });
  });

  describe('a removal', () => {
    test('is of the named object and version only', async () => {
      const maker = fresh();
      const { client } = maker;
      const first = await maker.createMap('a');
      const name = maker.named('a');
      const second = await client.replace(configMap, { ...first, data: { value: '2' } });
      await expectCode(client.remove(configMap, name, { uid: 'another' }), 'Conflict');
      const stale = { resourceVersion: first.metadata.resourceVersion ?? '' };
      await expectCode(client.remove(configMap, name, stale), 'Conflict');
      expect(await maker.getMap('a')).toEqual(second);
      const { uid = '', resourceVersion = '' } = second.metadata;
      expect(await client.remove(configMap, name, { uid, resourceVersion })).toBe('removed');
      expect(await maker.getMap('a')).toBeUndefined();
      expect(await client.remove(configMap, name)).toBe('missing');
    });

    test('waits for the finalizers, and can’t be taken back', async () => {
      const maker = fresh();
      const { client } = maker;
      const first = await maker.createPolicy('a', {}, ['farshore.dev/a', 'farshore.dev/b']);
      expect(await client.remove(replicationPolicy, first.metadata)).toBe('removed');
      const leaving = await maker.getPolicy('a');
      expect(leaving?.metadata.deletionTimestamp).toMatch(/Z$/);
      expect(await client.remove(replicationPolicy, first.metadata)).toBe('removed');
      expect(await maker.getPolicy('a')).toEqual(leaving);
      await expectCode(maker.createPolicy('a'), 'AlreadyExists');
      // What it says of itself does not count.
      const { deletionTimestamp, ...metadata } = leaving?.metadata ?? first.metadata;
      await client.replace(replicationPolicy, { ...first, metadata });
      await client.apply(replicationPolicy, maker.policy('a', { rpoThreshold: '1h' }));
      expect((await maker.getPolicy('a'))?.metadata.deletionTimestamp).toBe(deletionTimestamp);
      const finalizers = ['farshore.dev/b'];
      await client.patch(replicationPolicy, metadata, { merge: { metadata: { finalizers } } });
      expect((await maker.getPolicy('a'))?.metadata.finalizers).toEqual(finalizers);
      const none = { merge: { metadata: { finalizers: null } } };
      await client.patch(replicationPolicy, metadata, none);
      expect(await maker.getPolicy('a')).toBeUndefined();
    });

    test('lets no new finalizer hold the object up', async () => {
      const maker = fresh();
      const { client } = maker;
      const { metadata } = await maker.createPolicy('a', {}, ['farshore.dev/a']);
      await client.remove(replicationPolicy, metadata);
      const more = { merge: { metadata: { finalizers: ['farshore.dev/a', 'farshore.dev/b'] } } };
      await expectCode(client.patch(replicationPolicy, metadata, more), 'Invalid');
      const none = { merge: { metadata: { finalizers: [] } } };
      await client.patch(replicationPolicy, metadata, none);
      expect(await maker.getPolicy('a')).toBeUndefined();
    });
  });

  kubeChangesConformance(fresh);
  kubeWatchesConformance(fresh);
}

/** Versions of one object rise: by that the status writer knows what is older. */
export function expectLater(
  after: { metadata: { resourceVersion?: string } },
  before: { metadata: { resourceVersion?: string } },
): void {
  expect(BigInt(after.metadata.resourceVersion ?? 0)).toBeGreaterThan(
    BigInt(before.metadata.resourceVersion ?? 0),
  );
}
