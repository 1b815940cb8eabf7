import { beforeEach, describe, expect, it } from 'vitest';
import { farshoreTypes, type ProtectedVM, type ProtectedVMStatus } from '../../crds/index.ts';
import { FakeKube } from '../../test/fakes/kube.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import type { DecidedCondition } from './conditions.ts';
import { StatusWriter } from './statusWriter.ts';

const type = farshoreTypes.protectedVM;
let kube: FakeKube;
let clock: ManualClock;
let writer: StatusWriter;

beforeEach(() => {
  kube = new FakeKube();
  clock = new ManualClock();
  writer = new StatusWriter({ client: kube, clock, random: new SeededRandom(1) });
  kube.seed(type, machine());
});

function machine(name = 'm'): ProtectedVM {
  return {
    apiVersion: 'farshore.dev/v1alpha1',
    kind: 'ProtectedVM',
    metadata: { namespace: 'n', name },
    spec: { paused: false } as ProtectedVM['spec'],
  };
}

function cached(name = 'm'): ProtectedVM {
  const object = kube.peek<ProtectedVM>(type, { namespace: 'n', name });
  if (object === undefined) throw new Error('gone');
  return object;
}

function ready(status: 'True' | 'False', message = ''): DecidedCondition {
  return { type: 'Ready', status, reason: 'Tested', message };
}

const write = (
  object: ProtectedVM,
  conditions: DecidedCondition[],
  values: Partial<ProtectedVMStatus> = {},
) =>
  writer.write<ProtectedVMStatus>(type, object, { ...values, conditions }, { promptly: ['phase'] });

describe('StatusWriter', () => {
  it('stamps conditions with the generation, and with the time only when the status turned', async () => {
    await write(cached(), [ready('False', 'one')]);
    const first = cached().status?.conditions?.[0];
    expect(first).toMatchObject({
      lastTransitionTime: '2026-01-01T00:00:00Z',
      observedGeneration: 1,
    });
    clock.jumpWallClock(5_000);
    await write(cached(), [ready('False', 'two')]);
    expect(cached().status?.conditions?.[0]).toMatchObject({
      message: 'two',
      lastTransitionTime: '2026-01-01T00:00:00Z',
    });
    await write(cached(), [ready('True')]);
    expect(cached().status?.conditions?.[0]?.lastTransitionTime).toBe('2026-01-01T00:00:05Z');
  });

  it('writes nothing when nothing changed', async () => {
    await write(cached(), [ready('True')], { machineId: 'x' });
    expect(await write(cached(), [ready('True')], { machineId: 'x' })).toEqual({
      outcome: 'unchanged',
    });
    expect(kube.count('applyStatus')).toBe(1);
  });

  it('does not write again what the cache has not shown yet', async () => {
    const stale = cached();
    await write(stale, [ready('True')]);
    expect(await write(stale, [ready('True')])).toEqual({ outcome: 'unchanged' });
  });

  it('writes figures at most once a minute, and then the newest', async () => {
    await write(cached(), [ready('True')], { lastBarrierTime: '1' });
    const early = await write(cached(), [ready('True')], { lastBarrierTime: '2' });
    expect(early).toMatchObject({ outcome: 'deferred' });
    const wait = early.outcome === 'deferred' ? early.retryAfterMs : 0;
    expect(wait).toBeGreaterThanOrEqual(60_000);
    expect(wait).toBeLessThanOrEqual(72_000);
    await clock.advance(wait);
    expect(await write(cached(), [ready('True')], { lastBarrierTime: '3' })).toEqual({
      outcome: 'written',
    });
    expect(cached().status?.lastBarrierTime).toBe('3');
  });

  it('writes a changed condition, generation or prompt field at once, with the figures of that moment', async () => {
    await write(cached(), [ready('True')], { lastBarrierTime: '1', phase: 'A' });
    await write(cached(), [ready('False')], { lastBarrierTime: '2', phase: 'A' });
    expect(cached().status?.lastBarrierTime).toBe('2');
    await write(cached(), [ready('False')], { lastBarrierTime: '3', phase: 'B' });
    expect(cached().status?.lastBarrierTime).toBe('3');
    kube.seed(type, { ...cached(), spec: { paused: true } as ProtectedVM['spec'] });
    await write(cached(), [ready('False')], { lastBarrierTime: '4', phase: 'B' });
    expect(cached().status).toMatchObject({ lastBarrierTime: '4', observedGeneration: 2 });
  });

  it('drops fields and conditions that are not stated any more', async () => {
    await write(cached(), [ready('True'), { ...ready('True'), type: 'Reachable' }], {
      machineId: 'x',
    });
    await write(cached(), [ready('False')]);
    expect(cached().status?.conditions?.map((condition) => condition.type)).toEqual(['Ready']);
    expect(cached().status?.machineId).toBeUndefined();
  });

  it('repairs what somebody else wrote over', async () => {
    await write(cached(), [ready('True')]);
    await kube.patch(
      type,
      { namespace: 'n', name: 'm' },
      { merge: { status: { conditions: [] } } },
      { subresource: 'status' },
    );
    expect(await write(cached(), [ready('True')])).toEqual({ outcome: 'written' });
    expect(cached().status?.conditions?.length).toBe(1);
  });

  it('tells when the object has gone, or another has its name, which then states its own status', async () => {
    const before = cached();
    await kube.remove(type, { namespace: 'n', name: 'm' });
    expect(await write(before, [ready('True')])).toEqual({ outcome: 'gone' });
    kube.seed(type, machine());
    expect(await write(before, [ready('True')])).toEqual({ outcome: 'gone' });
    expect(await write(cached(), [ready('False')])).toEqual({ outcome: 'written' });
    expect(cached().status?.conditions).toMatchObject([{ status: 'False' }]);
  });

  it('spends at most 50 writes a second, and lets changed conditions wait rather than be lost', async () => {
    for (let i = 0; i < 120; i++) kube.seed(type, machine(`m${i}`));
    const writes = Array.from({ length: 120 }, (_, i) => write(cached(`m${i}`), [ready('True')]));
    await clock.advance(0);
    expect(kube.count('applyStatus')).toBe(50);
    await clock.advance(1_000);
    expect(kube.count('applyStatus')).toBe(100);
    await clock.advance(1_000);
    await Promise.all(writes);
    expect(kube.count('applyStatus')).toBe(120);
  });

  it('puts figures off when the budget is spent', async () => {
    await write(cached(), [ready('True')], { lastBarrierTime: '1' });
    await clock.advance(100_000);
    for (let i = 0; i < 50; i++) {
      kube.seed(type, machine(`m${i}`));
      await write(cached(`m${i}`), [ready('True')]);
    }
    expect(await write(cached(), [ready('True')], { lastBarrierTime: '2' })).toMatchObject({
      outcome: 'deferred',
    });
  });

  it('throws what the server says, and tries again when asked again', async () => {
    kube.failNext('applyStatus', 'Unreachable');
    await expect(write(cached(), [ready('True')])).rejects.toThrow(/Unreachable/);
    expect(await write(cached(), [ready('True')])).toEqual({ outcome: 'written' });
  });
});
