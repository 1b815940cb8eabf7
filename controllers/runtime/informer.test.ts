import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kubeTypes, type SecretObject } from '../../platform/kubernetes.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { Informer } from './informer.ts';

const type = kubeTypes.secret;
let kube: FakeKube;
let clock: ManualClock;
let stop: AbortController;
let running: Promise<void>;
let informer: Informer<SecretObject>;
let log: string[];

beforeEach(() => {
  kube = new FakeKube();
  clock = new ManualClock();
  stop = new AbortController();
  log = [];
});

afterEach(async () => {
  stop.abort(new Error('the test has ended'));
  await running;
});

function secret(name: string, value = '', labels: Record<string, string> = {}): SecretObject {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { namespace: 'n', name, labels },
    data: { value },
  };
}

async function start(options: { pageSize?: number } = {}): Promise<void> {
  informer = new Informer<SecretObject>(
    { client: kube, clock, random: new SeededRandom(1), logger: silentLogger },
    { type, indexes: { value: (object) => [object.data?.value ?? ''] }, ...options },
  );
  informer.onChange(({ key, before, after }) =>
    log.push(`${key} ${before?.data?.value ?? '-'}→${after?.data?.value ?? '-'}`),
  );
  running = informer.run(stop.signal);
  await clock.advance(0);
}

/** Lets the informer do all it would do in so many ms. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) await clock.advance(100);
  await clock.advance(0);
}

describe('Informer', () => {
  it('lists page by page, then follows every change', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) kube.seed(type, secret(name, '1'));
    await start({ pageSize: 2 });
    expect(informer.synced).toBe(true);
    expect(kube.count('list')).toBe(3);
    expect(informer.size).toBe(5);
    kube.seed(type, secret('a', '2'));
    kube.seed(type, secret('f', '1'));
    await kube.remove(type, { namespace: 'n', name: 'b' });
    await clock.advance(0);
    expect(log.slice(5)).toEqual(['n/a 1→2', 'n/f -→1', 'n/b 1→-']);
    expect(informer.get('n/a')?.data?.value).toBe('2');
    expect(kube.count('list')).toBe(3);
  });

  it('tells of nothing before the first list is complete, and not at all while it fails', async () => {
    kube.seed(type, secret('a', '1'));
    for (let i = 0; i < 3; i++) kube.failNext('list', 'Unreachable');
    await start();
    let synced = false;
    void informer.untilSynced(stop.signal).then(() => {
      synced = true;
    });
    await pass(300);
    expect(informer.synced).toBe(false);
    expect(synced).toBe(false);
    await pass(3_000);
    expect(synced).toBe(true);
    expect(log).toEqual(['n/a -→1']);
  });

  it('resumes a broken watch where it was, without a list', async () => {
    kube.seed(type, secret('a', '1'));
    await start();
    kube.cutWatches();
    kube.seed(type, secret('a', '2'));
    kube.seed(type, secret('a', '3'));
    await pass(1_000);
    expect(log).toEqual(['n/a -→1', 'n/a 1→2', 'n/a 2→3']);
    expect(kube.count('list')).toBe(1);
  });

  it('lists again after 410, and tells what changed and went meanwhile', async () => {
    kube.seed(type, secret('a', '1'));
    kube.seed(type, secret('b', '1'));
    kube.seed(type, secret('c', '1'));
    await start();
    for (let i = 0; i < 3; i++) kube.failNext('watch', 'Unreachable');
    kube.cutWatches();
    await clock.advance(0);
    kube.seed(type, secret('a', '2'));
    await kube.remove(type, { namespace: 'n', name: 'b' });
    kube.seed(type, secret('d', '1'));
    kube.compact();
    await pass(5_000);
    expect(kube.count('list')).toBe(2);
    expect(informer.synced).toBe(true);
    expect(log.slice(3).sort()).toEqual(['n/a 1→2', 'n/b 1→-', 'n/d -→1']);
  });

  it('does not list without pause when every list is answered by another 410', async () => {
    await start();
    for (let i = 0; i < 1_000; i++) kube.failNext('watch', 'Gone');
    kube.cutWatches();
    await pass(60_000);
    expect(kube.count('list')).toBeLessThan(15);
  });

  it('starts a list over when its continue token has become too old', async () => {
    for (const name of ['a', 'b', 'c']) kube.seed(type, secret(name, '1'));
    kube.failNext('list', 'Gone');
    await start({ pageSize: 2 });
    await pass(1_000);
    expect(informer.size).toBe(3);
  });

  it('keeps what it knows while the server is away', async () => {
    kube.seed(type, secret('a', '1'));
    await start();
    for (let i = 0; i < 50; i++) kube.failNext('watch', 'Unreachable');
    kube.cutWatches();
    await pass(60_000);
    expect(informer.get('n/a')?.data?.value).toBe('1');
    expect(kube.count('list')).toBe(1);
  });

  it('waits longer and longer for a server that is away, but not for ever', async () => {
    await start();
    for (let i = 0; i < 1_000; i++) kube.failNext('watch', 'Unreachable');
    kube.cutWatches();
    await pass(120_000);
    const tries = kube.count('watch');
    expect(tries).toBeGreaterThan(8);
    expect(tries).toBeLessThan(25);
  });

  it('does not believe a history that keeps being refused', async () => {
    kube.seed(type, secret('a', '1'));
    await start();
    for (let i = 0; i < 3; i++) kube.failNext('watch', 'ServerError');
    kube.cutWatches();
    await pass(10_000);
    expect(kube.count('list')).toBe(2);
  });

  it('finds objects by index, also after they changed and went', async () => {
    kube.seed(type, secret('a', 'x'));
    kube.seed(type, secret('b', 'x'));
    await start();
    expect(names('x')).toEqual(['a', 'b']);
    kube.seed(type, secret('a', 'y'));
    await kube.remove(type, { namespace: 'n', name: 'b' });
    await clock.advance(0);
    expect(names('x')).toEqual([]);
    expect(names('y')).toEqual(['a']);
    expect(() => informer.byIndex('other', 'x')).toThrow(/no index other/);
  });

  it('tells a late listener of everything there is', async () => {
    kube.seed(type, secret('a', '1'));
    await start();
    const heard: string[] = [];
    const leave = informer.onChange(({ key }) => heard.push(key));
    expect(heard).toEqual(['n/a']);
    leave();
    kube.seed(type, secret('b', '1'));
    await clock.advance(0);
    expect(heard).toEqual(['n/a']);
  });

  it('ends when told to, leaving no timer behind', async () => {
    await start();
    stop.abort(new Error('enough'));
    await running;
    expect(clock.sleeping).toBe(0);
  });
});

function names(value: string): string[] {
  return informer
    .byIndex('value', value)
    .map((object) => object.metadata.name)
    .sort();
}
