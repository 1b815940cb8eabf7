import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kubeTypes, type LeaseObject } from '../../platform/kubernetes.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { LeaderElection } from './leaderElection.ts';

const lease = { namespace: 'n', name: 'operator' };
let kube: FakeKube;
let clock: ManualClock;
/** For how long the processes were, in all. */
let suspendedMs: number;
let candidates: { stop: AbortController; done: Promise<void> }[];

beforeEach(() => {
  kube = new FakeKube();
  clock = new ManualClock();
  suspendedMs = 0;
  candidates = [];
});

afterEach(async () => {
  for (const candidate of candidates) candidate.stop.abort(new Error('the test has ended'));
  await clock.advance(60_000);
  await Promise.all(candidates.map((candidate) => candidate.done));
});

function candidate(
  identity: string,
  options: { client?: FakeKube; work?: (signal: AbortSignal) => Promise<void> } = {},
) {
  const state = { terms: 0, atWork: false, reason: undefined as unknown };
  const election = new LeaderElection(
    {
      client: options.client ?? kube,
      clock: {
        now: () => clock.now() + suspendedMs,
        monotonic: () => clock.monotonic() + suspendedMs,
        sleep: (ms, signal) => clock.sleep(ms, signal),
      },
      random: new SeededRandom(identity.length),
      logger: silentLogger,
    },
    { lease, identity },
  );
  const stop = new AbortController();
  const done = election.run(stop.signal, async (signal) => {
    state.terms += 1;
    state.atWork = true;
    await new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true }),
    );
    state.reason = signal.reason;
    await options.work?.(signal);
    state.atWork = false;
  });
  const made = { state, election, stop, done };
  candidates.push(made);
  return made;
}

const holder = () => kube.peek<LeaseObject>(kubeTypes.lease, lease)?.spec?.holderIdentity;

describe('LeaderElection', () => {
  it('holds its lease no longer than it may, also when it was suspended and nobody could tell it', async () => {
    const { election, state } = candidate('first');
    await clock.advance(5_000);
    expect(election.isHeld).toBe(true);
    suspendedMs = 9_000;
    expect(election.isHeld).toBe(true);
    suspendedMs = 60_000;
    expect(election.isHeld).toBe(false);
    // Not told yet; and as nobody else took it meanwhile, it is renewed.
    expect(state.atWork).toBe(true);
    await clock.advance(5_000);
    expect(election.isHeld).toBe(true);
    expect(state).toMatchObject({ terms: 1, atWork: true });
  });

  it('lets one of two lead, and the other only after it has gone', async () => {
    const first = candidate('first');
    await clock.advance(0);
    const second = candidate('second-one');
    await clock.advance(120_000);
    expect(first.state.atWork).toBe(true);
    expect(second.state.terms).toBe(0);
    first.stop.abort(new Error('goodbye'));
    await first.done;
    expect(holder()).toBe('');
    await clock.advance(3_000);
    expect(second.state.atWork).toBe(true);
    expect(holder()).toBe('second-one');
  });

  it('stops the work when the lease can’t be renewed, before anybody else may begin', async () => {
    const first = candidate('first');
    await clock.advance(0);
    for (let i = 0; i < 20; i++) kube.failNext('get', 'Unreachable');
    const startedMs = clock.monotonic();
    while (first.state.atWork && clock.monotonic() - startedMs < 60_000) await clock.advance(100);
    expect(clock.monotonic() - startedMs).toBeLessThan(15_000);
    expect(first.state.reason).toMatchObject({ code: 'LeadershipLost' });
  });

  it('stops the work when the API server never answers at all', async () => {
    const first = candidate('first');
    await clock.advance(0);
    const release = kube.hold();
    await clock.advance(13_000);
    expect(first.state.atWork).toBe(false);
    release();
    await clock.advance(30_000);
    expect(first.state.terms).toBe(2);
  });

  it('takes over from one that died, not sooner than its lease runs out', async () => {
    kube.seed<LeaseObject>(kubeTypes.lease, {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: lease,
      spec: {
        holderIdentity: 'dead',
        leaseDurationSeconds: 15,
        renewTime: '2031-01-01T00:00:00.000000Z',
      },
    });
    const next = candidate('next');
    await clock.advance(14_000);
    expect(next.state.terms).toBe(0);
    await clock.advance(5_000);
    expect(next.state.atWork).toBe(true);
    expect(kube.peek<LeaseObject>(kubeTypes.lease, lease)?.spec?.leaseTransitions).toBe(1);
  });

  it('stops at once when it sees another’s name on the lease', async () => {
    const first = candidate('first');
    await clock.advance(0);
    const held = kube.peek<LeaseObject>(kubeTypes.lease, lease);
    if (held === undefined) throw new Error('no lease');
    kube.seed(kubeTypes.lease, { ...held, spec: { ...held.spec, holderIdentity: 'usurper' } });
    await clock.advance(2_500);
    expect(first.state.atWork).toBe(false);
    expect(holder()).toBe('usurper');
  });

  it('goes on when only the answer of a renewal was lost', async () => {
    const first = candidate('first');
    await clock.advance(0);
    kube.failNext('replace', 'Unreachable', { afterwards: true });
    await clock.advance(30_000);
    expect(first.state).toMatchObject({ terms: 1, atWork: true });
  });

  it('lets only one of two win that try in the same moment', async () => {
    const two = [candidate('first'), candidate('second-one')];
    await clock.advance(20_000);
    expect(two.filter(({ state }) => state.atWork).length).toBe(1);
  });

  it('gives the lease back only after the work has ended', async () => {
    const gate = Promise.withResolvers<void>();
    const first = candidate('first', { work: () => gate.promise });
    await clock.advance(0);
    first.stop.abort(new Error('goodbye'));
    await clock.advance(5_000);
    expect(holder()).toBe('first');
    gate.resolve();
    await first.done;
    expect(holder()).toBe('');
  });

  it('refuses times that would let two lead', () => {
    const make = (renewDeadlineMs: number) =>
      new LeaderElection(
        { client: kube, clock, random: new SeededRandom(1), logger: silentLogger },
        { lease, identity: 'x', leaseDurationMs: 10_000, renewDeadlineMs },
      );
    expect(() => make(10_000)).toThrow(/renewDeadline < leaseDuration/);
    expect(() => make(3_000)).toThrow(/2 × retryPeriod/);
  });
});
