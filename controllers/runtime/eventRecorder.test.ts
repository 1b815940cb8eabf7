import { beforeEach, describe, expect, it } from 'vitest';
import { type KubeObject, kubeTypes } from '../../platform/kubernetes.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { EventRecorder } from './eventRecorder.ts';

let kube: FakeKube;
let clock: ManualClock;
let recorder: EventRecorder;

beforeEach(() => {
  kube = new FakeKube();
  clock = new ManualClock();
  recorder = new EventRecorder(
    { client: kube, clock, random: new SeededRandom(1), logger: silentLogger },
    { controller: 'farshore.dev/operator', instance: 'operator-0' },
  );
});

const machine = (uid = 'u'): KubeObject => ({
  apiVersion: 'farshore.dev/v1alpha1',
  kind: 'ProtectedVM',
  metadata: { namespace: 'n', name: 'm', uid },
});
const lost = {
  type: 'Warning',
  reason: 'TrackingLost',
  message: 'The tracer of m lost writes.',
} as const;

async function events() {
  await recorder.flush();
  const page = await kube.list<KubeObject & { note: string; series?: { count: number } }>(
    kubeTypes.event,
    { limit: 0 },
  );
  return page.items;
}

describe('EventRecorder', () => {
  it('tells what happened to which object', async () => {
    recorder.record(machine(), lost);
    expect(await events()).toMatchObject([
      {
        metadata: { namespace: 'n' },
        reason: 'TrackingLost',
        action: 'TrackingLost',
        note: 'The tracer of m lost writes.',
        type: 'Warning',
        regarding: { kind: 'ProtectedVM', name: 'm', uid: 'u' },
        eventTime: '2026-01-01T00:00:00.000000Z',
      },
    ]);
  });

  it('counts a repetition instead of telling it again', async () => {
    for (let i = 0; i < 3; i++) recorder.record(machine(), lost);
    const all = await events();
    expect(all.length).toBe(1);
    expect(all[0]?.series?.count).toBe(3);
  });

  it('tells it again after a while, and to another object', async () => {
    recorder.record(machine(), lost);
    await recorder.flush();
    await clock.advance(11 * 60_000);
    recorder.record(machine(), lost);
    recorder.record(machine('other'), lost);
    expect((await events()).length).toBe(3);
  });

  it('makes the Event anew when the API server has dropped it', async () => {
    recorder.record(machine(), lost);
    const [first] = await events();
    await kube.remove(kubeTypes.event, { namespace: 'n', name: first?.metadata.name ?? '' });
    recorder.record(machine(), lost);
    expect((await events()).length).toBe(1);
  });

  it('survives an API server that refuses, and goes on', async () => {
    kube.failNext('create', 'Forbidden');
    recorder.record(machine(), lost);
    recorder.record(machine(), { ...lost, message: 'another' });
    expect((await events()).map((event) => event.note)).toEqual(['another']);
  });

  it('cuts an object short that has too much to say, and lets it speak again later', async () => {
    for (let i = 0; i < 100; i++) recorder.record(machine(), { ...lost, message: String(i) });
    expect((await events()).length).toBe(25);
    recorder.record(machine('quiet'), lost);
    await clock.advance(120_000);
    for (let i = 0; i < 10; i++) recorder.record(machine(), { ...lost, message: `later ${i}` });
    expect((await events()).length).toBe(28);
  });

  it('keeps a note within what the API takes', async () => {
    recorder.record(machine(), { ...lost, message: 'x'.repeat(5_000) });
    expect((await events())[0]?.note.length).toBe(1_024);
  });
});
