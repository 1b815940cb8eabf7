import { expect, it } from 'vitest';
import { type DecidedCondition, holdsNow, stampConditions } from './conditions.ts';

const decided = { type: 'Ready', status: 'True', reason: 'Succeeded', message: '' } as const;

it('a condition keeps its time while its status does, and takes a new one when it turns', () => {
  const before = { ...decided, lastTransitionTime: '2026-01-01T00:00:00Z' };
  const stamp = (status: 'True' | 'False') =>
    stampConditions({
      previous: [before],
      decided: [{ ...decided, status, reason: 'Other' }],
      generation: 3,
      nowMs: Date.UTC(2026, 5, 1, 12, 30, 15, 999),
    })[0];
  expect(stamp('True')).toMatchObject({
    lastTransitionTime: '2026-01-01T00:00:00Z',
    reason: 'Other',
  });
  expect(stamp('False')?.lastTransitionTime).toBe('2026-06-01T12:30:15Z');
});

it('a condition that was computed from an older spec does not hold now', () => {
  const object = (observedGeneration: number) => ({
    apiVersion: 'v1',
    kind: 'X',
    metadata: { name: 'm', generation: 2 },
    status: { conditions: [{ ...decided, lastTransitionTime: '', observedGeneration }] },
  });
  expect(holdsNow(object(2), 'Ready')).toBe(true);
  expect(holdsNow(object(1), 'Ready')).toBe(false);
  expect(holdsNow(object(2), 'Reachable')).toBe(false);
});

it('a message that is longer than the API takes is cut, so that the rest of the status is written', () => {
  const decided = { type: 'Ready', status: 'False', reason: 'Told', message: 'x'.repeat(70_000) };
  const [stamped] = stampConditions({
    previous: [],
    decided: [decided as DecidedCondition],
    generation: 1,
    nowMs: 0,
  });
  expect(stamped?.message).toHaveLength(32_768);
});
