import { describe, expect, test } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { expectCode, type KubeMaker, type Policy, type Watching } from './kubeMaker.ts';

const { configMap } = kubeTypes;
const { replicationPolicy } = farshoreTypes;

/** What every KubeClient's list and watch must do: what an informer builds its cache upon. */
export function kubeWatchesConformance(fresh: () => KubeMaker): void {
  describe('a list', () => {
    test('is of its kind and namespace, of all namespaces, or empty', async () => {
      const maker = fresh();
      const { client } = maker;
      const { namespace } = maker.site;
      const a = await maker.createMap('a');
      const elsewhere = maker.configMap('b', {});
      elsewhere.metadata = { ...elsewhere.metadata, namespace: 'default' };
      await client.create(configMap, elsewhere);
      await client.create(kubeTypes.secret, maker.secret('c', {}));
      const listed = await client.list(configMap, { namespace, limit: 0 });
      expect(listed.items.filter(({ metadata }) => metadata.uid === a.metadata.uid)).toEqual([a]);
      expect(await maker.names()).toEqual(['a']);
      expect(maker.own((await client.list(configMap, { limit: 0 })).items).sort()).toEqual([
        'a',
        'b',
      ]);
      const none = await client.list(configMap, { namespace: 'nowhere', limit: 0 });
      expect(none).toEqual({ items: [], resourceVersion: expect.stringMatching(/^[0-9]+$/) });
    });

    test('in pages is of one moment, whatever happens between them', async () => {
      const maker = fresh();
      const { client } = maker;
      const made = [];
      for (const name of ['a', 'b', 'c', 'd', 'e'])
        made.push(await maker.createMap(name, {}, { list: 'pages' }));
      const selection = { namespace: maker.site.namespace, labelSelector: 'list=pages' };
      const page = (more: { limit: number; continue?: string }) =>
        client.list<KubeObject>(configMap, { ...selection, ...more });
      const first = await page({ limit: 2 });
      await client.remove(configMap, maker.named('a'));
      await client.remove(configMap, maker.named('d'));
      await client.patch(configMap, maker.named('e'), { merge: { data: { changed: 'yes' } } });
      await maker.createMap('ca', {}, { list: 'pages' });
      const second = await page({ limit: 2, continue: first.continue ?? '' });
      const third = await page({ limit: 2, continue: second.continue ?? '' });
      const pages = [first, second, third];
      expect(pages.map(({ items }) => items.length)).toEqual([2, 2, 1]);
      expect(pages.flatMap(({ items }) => items)).toEqual(made);
      expect(new Set(pages.map(({ resourceVersion }) => resourceVersion)).size).toBe(1);
      expect(third).not.toHaveProperty('continue');
      const watching = maker.watch({ ...selection, resourceVersion: first.resourceVersion });
      expect(told(maker, await watching.take(4))).toEqual(['-a', '-d', '~e', '+ca']);
      await watching.close();
    });

    test('is of what the selectors say', async () => {
      const maker = fresh();
      await maker.createMap('a', {}, { tier: 'web', env: 'live' });
      await maker.createMap('b', {}, { tier: 'db', env: 'live' });
      await maker.createMap('c', {}, { tier: 'web' });
      await maker.createMap('d');
      const selected = (labelSelector: string) => maker.names({ labelSelector });
      expect(await selected('tier=web')).toEqual(['a', 'c']);
      expect(await selected('tier==web,env=live')).toEqual(['a']);
      expect(await selected('tier!=web')).toEqual(['b', 'd']);
      expect(await selected('env')).toEqual(['a', 'b']);
      expect(await selected('!env')).toEqual(['c', 'd']);
      expect(await selected('tier in (web, db),env')).toEqual(['a', 'b']);
      expect(await selected('tier notin (db)')).toEqual(['a', 'c', 'd']);
      const { name } = maker.named('b');
      expect(await maker.names({ fieldSelector: `metadata.name=${name}` })).toEqual(['b']);
      expect(await maker.names({ fieldSelector: `metadata.name!=${name}` })).not.toContain('b');
    });

    test('that is not wanted any more ends with the reason', async () => {
      const { client } = fresh();
      const reason = new Error('shutting down');
      const signal = AbortSignal.abort(reason);
      await expect(client.list(configMap, { limit: 0, signal })).rejects.toBe(reason);
    });
  });

  describe('a watch', () => {
    test('tells every change after its version, in order and as it was then', async () => {
      const maker = fresh();
      const { client } = maker;
      const target = maker.named('a');
      await maker.createPolicy('before');
      const resourceVersion = await maker.now(replicationPolicy);
      const watching = maker.watch<Policy>({ type: replicationPolicy, resourceVersion });
      const made = await maker.createPolicy('a', { rpoThreshold: '30m' }, ['farshore.dev/a']);
      const asked = { merge: { spec: { rpoThreshold: '31m' } } };
      const changed = await client.patch<Policy>(replicationPolicy, target, asked);
      const object = { ...maker.policy('a'), status: { machines: 1 } };
      const found = await client.applyStatus<Policy>(replicationPolicy, object);
      await client.remove(replicationPolicy, target);
      const leaving = await maker.getPolicy('a');
      await client.patch(replicationPolicy, target, { merge: { metadata: { finalizers: [] } } });
      await maker.createPolicy('b');
      const events = await watching.take(6);
      expect(told(maker, events)).toEqual(['+a', '~a', '~a', '~a', '-a', '+b']);
      expect(events.slice(0, 4).map((event) => event.object)).toEqual([
        made,
        changed,
        found,
        leaving,
      ]);
      // Later than all before, so that whoever goes on from there hears nothing twice.
      const versions = events.map((event) => BigInt(event.object.metadata.resourceVersion ?? 0));
      expect(versions).toEqual([...versions].sort((a, b) => (a < b ? -1 : 1)));
      expect(new Set(versions).size).toBe(6);
      await watching.close();
    });

    test('goes on from any version that it told', async () => {
      const maker = fresh();
      const resourceVersion = await maker.now();
      await maker.createMap('a');
      await maker.createMap('b');
      await maker.client.remove(configMap, maker.named('a'));
      await maker.createMap('c');
      const first = maker.watch({ resourceVersion });
      const all = await first.take(4);
      await first.close();
      expect(told(maker, all)).toEqual(['+a', '+b', '-a', '+c']);
      for (const [index, { object }] of all.slice(0, 3).entries()) {
        const again = maker.watch({ resourceVersion: object.metadata.resourceVersion ?? '' });
        expect(await again.take(3 - index)).toEqual(all.slice(index + 1));
        await again.close();
      }
    });

    test('tells nothing of a change that changed nothing', async () => {
      const maker = fresh();
      await maker.client.apply(configMap, maker.configMap('a', { x: '1' }));
      const watching = maker.watch({ resourceVersion: await maker.now() });
      await maker.client.apply(configMap, maker.configMap('a', { x: '1' }));
      await maker.client.patch(configMap, maker.named('a'), { merge: { data: { x: '1' } } });
      await maker.createMap('b');
      expect(told(maker, await watching.take(1))).toEqual(['+b']);
      await watching.close();
    });

    test('hears of its own kind and namespace alone', async () => {
      const maker = fresh();
      const watching = maker.watch({ resourceVersion: await maker.now() });
      await maker.client.create(kubeTypes.secret, maker.secret('a', {}));
      const elsewhere = maker.configMap('b', {});
      elsewhere.metadata = { ...elsewhere.metadata, namespace: 'default' };
      await maker.client.create(configMap, elsewhere);
      await maker.createMap('c');
      expect(told(maker, await watching.take(1))).toEqual(['+c']);
      await watching.close();
    });

    test('by selectors tells what comes to be selected as added, and what stops as deleted', async () => {
      const maker = fresh();
      const { client } = maker;
      await maker.createMap('a', {}, { tier: 'web' });
      await maker.createMap('b', {}, { tier: 'db' });
      const watching = maker.watch({
        resourceVersion: await maker.now(),
        labelSelector: 'tier=web',
      });
      const tier = (name: string, value: string) =>
        client.patch(configMap, maker.named(name), {
          merge: { metadata: { labels: { tier: value } } },
        });
      await tier('b', 'web');
      await tier('a', 'db');
      await client.patch(configMap, maker.named('a'), { merge: { data: { unseen: 'yes' } } });
      await client.remove(configMap, maker.named('a'));
      await client.patch(configMap, maker.named('b'), { merge: { data: { seen: 'yes' } } });
      await client.remove(configMap, maker.named('b'));
      const events = await watching.take(4);
      expect(told(maker, events)).toEqual(['+b', '-a', '~b', '-b']);
      await watching.close();

      const { name } = maker.named('d');
      const one = maker.watch({
        resourceVersion: await maker.now(),
        fieldSelector: `metadata.name=${name}`,
      });
      await maker.createMap('c');
      await maker.createMap('d');
      expect(told(maker, await one.take(1))).toEqual(['+d']);
      await one.close();
    });

    test('ends without an error after the time that it was given', async () => {
      const maker = fresh();
      const watching = maker.watch({ resourceVersion: await maker.now(), timeoutSeconds: 1 });
      await maker.createMap('a');
      expect(told(maker, await watching.take(1))).toEqual(['+a']);
      expect(await watching.next()).toBeUndefined();
    });

    test('ends with the reason once it is not wanted any more', async () => {
      const maker = fresh();
      const reason = new Error('shutting down');
      const watching = maker.watch({ resourceVersion: await maker.now() });
      await maker.createMap('a');
      await watching.take(1);
      const next = watching.next();
      watching.stop.abort(reason);
      await expect(next).rejects.toBe(reason);
      const never = maker.watch({ resourceVersion: await maker.now() });
      never.stop.abort(reason);
      await expect(never.next()).rejects.toBe(reason);
    });
  });

  test('a place in history that is forgotten is refused: a new list is needed', async () => {
    const maker = fresh();
    const { client } = maker;
    const { namespace } = maker.site;
    await maker.createMap('a');
    await maker.createMap('b');
    const first = await client.list(configMap, { namespace, limit: 1 });
    expect(first.continue).toBeDefined();
    await maker.createMap('c');
    await maker.site.forget();
    const { resourceVersion, continue: next = '' } = first;
    await expectCode(client.list(configMap, { namespace, limit: 1, continue: next }), 'Gone');
    await expectCode(maker.watch({ resourceVersion }).next(), 'Gone');
    const watching = maker.watch({ resourceVersion: await maker.now() });
    await maker.createMap('d');
    expect(told(maker, await watching.take(1))).toEqual(['+d']);
    await watching.close();
  });
}

const signs = { added: '+', modified: '~', deleted: '-' };

function told<T extends KubeObject>(
  maker: KubeMaker,
  events: Awaited<ReturnType<Watching<T>['take']>>,
): string[] {
  return events.map(({ type, object }) => `${signs[type]}${maker.short(object.metadata.name)}`);
}
