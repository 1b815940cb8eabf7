import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KubeError, kubeTypes, type SecretObject } from '../../platform/kubernetes.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { Controller, type Reconcile, type ReconcileObservation } from './controller.ts';
import { Informer } from './informer.ts';

const type = kubeTypes.secret;
let kube: FakeKube;
let clock: ManualClock;
let stop: AbortController;
let seen: ReconcileObservation[];
let running: Promise<unknown>;

beforeEach(() => {
  kube = new FakeKube();
  clock = new ManualClock();
  stop = new AbortController();
  seen = [];
});

afterEach(async () => {
  stop.abort(new Error('the test has ended'));
  await running;
});

const deps = () => ({ client: kube, clock, random: new SeededRandom(1), logger: silentLogger });

function secret(name: string, data: Record<string, string> = {}): SecretObject {
  return { apiVersion: 'v1', kind: 'Secret', metadata: { namespace: 'n', name }, data };
}

async function run(reconcile: Reconcile, workers = 2) {
  const informer = new Informer<SecretObject>(deps(), { type });
  const controller = new Controller(deps(), {
    name: 'secrets',
    workers,
    reconcile,
    observe: (observation) => seen.push(observation),
  }).watch(informer);
  running = Promise.all([informer.run(stop.signal), controller.run(stop.signal)]);
  await clock.advance(0);
  return { informer, controller };
}

describe('Controller', () => {
  it('does nothing before its caches are complete', async () => {
    kube.seed(type, secret('a'));
    kube.failNext('list', 'Unreachable');
    const keys: string[] = [];
    await run(async (key) => {
      keys.push(key);
      return undefined;
    });
    expect(keys).toEqual([]);
    await clock.advance(1_000);
    expect(keys).toEqual(['n/a']);
  });

  it('reconciles what changed, and what went', async () => {
    const keys: string[] = [];
    await run(async (key) => {
      keys.push(key);
      return undefined;
    });
    kube.seed(type, secret('a'));
    await clock.advance(0);
    await kube.remove(type, { namespace: 'n', name: 'a' });
    await clock.advance(0);
    expect(keys).toEqual(['n/a', 'n/a']);
    expect(seen.map((observation) => observation.outcome)).toEqual(['success', 'success']);
  });

  it('tries again after an error, later each time, and tells the code', async () => {
    kube.seed(type, secret('a'));
    let tries = 0;
    await run(async () => {
      tries += 1;
      if (tries < 4) throw new KubeError('Forbidden', 'no');
      return undefined;
    });
    expect(tries).toBe(1);
    await clock.advance(10_000);
    expect(tries).toBe(4);
    expect(seen.map(({ outcome, code }) => `${outcome} ${code}`)).toEqual([
      'error Forbidden',
      'error Forbidden',
      'error Forbidden',
      'success undefined',
    ]);
  });

  it('takes a conflict for what it is: the object changed meanwhile', async () => {
    kube.seed(type, secret('a'));
    let tries = 0;
    await run(async () => {
      tries += 1;
      if (tries === 1) throw new KubeError('Conflict', 'changed');
      return undefined;
    });
    await clock.advance(1_000);
    expect(seen.map(({ outcome }) => outcome)).toEqual(['conflict', 'success']);
  });

  it('looks again after the time that the reconcile asked for', async () => {
    kube.seed(type, secret('a'));
    let tries = 0;
    await run(async () => {
      tries += 1;
      return { requeueAfterMs: 5_000 };
    });
    await clock.advance(4_999);
    expect(tries).toBe(1);
    await clock.advance(1);
    expect(tries).toBe(2);
  });

  it('never has two workers on one object, however often it changes', async () => {
    let atWork = 0;
    let most = 0;
    const gates: (() => void)[] = [];
    await run(async () => {
      atWork += 1;
      most = Math.max(most, atWork);
      await new Promise<void>((resolve) => gates.push(resolve));
      atWork -= 1;
      return undefined;
    }, 4);
    for (let i = 0; i < 5; i++) {
      kube.seed(type, secret('a', { i: String(i) }));
      await clock.advance(0);
    }
    expect(most).toBe(1);
    gates.shift()?.();
    await clock.advance(0);
    expect(gates.length).toBe(1);
    gates.shift()?.();
    await clock.advance(0);
    expect(gates.length).toBe(0);
  });

  it('maps a change to other keys by its old and its new content', async () => {
    const informer = new Informer<SecretObject>(deps(), { type });
    const keys: string[] = [];
    const controller = new Controller(deps(), {
      name: 'owners',
      reconcile: async (key) => {
        keys.push(key);
        return undefined;
      },
    }).watch(informer, (object) => [`n/${object.data?.owner}`]);
    kube.seed(type, secret('a', { owner: 'x' }));
    running = Promise.all([informer.run(stop.signal), controller.run(stop.signal)]);
    await clock.advance(0);
    expect(keys).toEqual(['n/x']);
    kube.seed(type, secret('a', { owner: 'y' }));
    await clock.advance(0);
    expect(keys).toEqual(['n/x', 'n/x', 'n/y']);
  });

  it('lets what is under way end before it stops', async () => {
    kube.seed(type, secret('a'));
    const gate = Promise.withResolvers<void>();
    let stopped = false;
    await run(async () => {
      await gate.promise;
      return undefined;
    });
    stop.abort(new Error('enough'));
    void running.then(() => {
      stopped = true;
    });
    await clock.advance(0);
    expect(stopped).toBe(false);
    gate.resolve();
    await clock.advance(0);
    expect(stopped).toBe(true);
  });

  it('looks at everything again when it is run anew, as after a lost lease', async () => {
    kube.seed(type, secret('a'));
    const informer = new Informer<SecretObject>(deps(), { type });
    const keys: string[] = [];
    const controller = new Controller(deps(), {
      name: 'again',
      reconcile: async (key) => {
        keys.push(key);
        return undefined;
      },
    }).watch(informer);
    const term = new AbortController();
    const caching = informer.run(stop.signal);
    const first = controller.run(term.signal);
    await clock.advance(0);
    term.abort(new Error('lost'));
    await first;
    kube.seed(type, secret('a', { changed: 'yes' }));
    await clock.advance(0);
    expect(keys).toEqual(['n/a']);
    running = Promise.all([caching, controller.run(stop.signal)]);
    await clock.advance(0);
    expect(keys).toEqual(['n/a', 'n/a']);
  });
});
