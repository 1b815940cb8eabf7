import { describe, expect, test } from 'vitest';
import {
  afterBarrier,
  afterResyncBegan,
  afterVoided,
  type BarrierHistory,
  type BarrierSituation,
  decideBarrier,
  noBarriers,
} from './barrierSchedule.ts';

const calm: BarrierSituation = {
  nowMs: 1_000_000,
  policy: { crashConsistentSeconds: 60, appConsistentSeconds: 0 },
  pending: false,
  paused: false,
  resync: false,
  final: 'NotWanted',
};
const at = (nowMs: number, changes: Partial<BarrierSituation> = {}): BarrierSituation => ({
  ...calm,
  nowMs,
  ...changes,
});
const withApp = { policy: { crashConsistentSeconds: 60, appConsistentSeconds: 3600 } };

/** At once when it was asked for. */
function made(history: BarrierHistory, barrier: { atMs: number; consistency: 'Crash' | 'App' }) {
  const { atMs, consistency } = barrier;
  return afterBarrier(history, { ...calm, askedMs: atMs, nowMs: atMs, consistency });
}

describe('the barrier schedule', () => {
  test('asks for a first barrier at once, and then one every interval', () => {
    expect(decideBarrier(noBarriers, at(5_000))).toEqual({ ask: 'Crash', final: false });
    const history = made(noBarriers, { atMs: 6_000, consistency: 'Crash' });
    expect(decideBarrier(history, at(65_999))).toEqual({ ask: 'Nothing' });
    expect(decideBarrier(history, at(66_000))).toEqual({ ask: 'Crash', final: false });
  });

  test('keeps the interval while barriers are made within it, and lets the machine rest when one took longer', () => {
    const asked = { ...calm, askedMs: 100_000, consistency: 'Crash' } as const;
    const quick = afterBarrier(noBarriers, { ...asked, nowMs: 120_000 });
    expect(decideBarrier(quick, at(159_999)).ask).toBe('Nothing');
    expect(decideBarrier(quick, at(160_000)).ask).toBe('Crash');
    const slow = afterBarrier(noBarriers, { ...asked, nowMs: 180_000 });
    expect(decideBarrier(slow, at(219_999)).ask).toBe('Nothing');
    expect(decideBarrier(slow, at(219_999, { final: 'Wanted' })).ask).toBe('Crash');
    expect(decideBarrier(slow, at(220_000)).ask).toBe('Crash');
    const verySlow = afterBarrier(noBarriers, { ...asked, nowMs: 1_000_000 });
    expect(decideBarrier(verySlow, at(1_059_999)).ask).toBe('Nothing');
    expect(decideBarrier(verySlow, at(1_060_000)).ask).toBe('Crash');
  });

  test.each([{ pending: true }, { paused: true }, { resync: true }, { final: 'Done' as const }])(
    'asks for nothing while %j',
    (changes) => {
      expect(decideBarrier(noBarriers, at(5_000, changes))).toEqual({ ask: 'Nothing' });
    },
  );

  test('tries again after a voided barrier, later each time, at least once a minute', () => {
    let history = made(noBarriers, { atMs: 0, consistency: 'Crash' });
    const waits: number[] = [];
    let now = 60_000;
    for (let round = 0; round < 8; round += 1) {
      history = afterVoided(history, { ...calm, nowMs: now, consistency: 'Crash' });
      let wait = 0;
      while (decideBarrier(history, at(now + wait)).ask === 'Nothing') wait += 500;
      waits.push(wait);
      now += wait;
    }
    expect(waits).toEqual([2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    const after = made(history, { atMs: now, consistency: 'Crash' });
    expect(decideBarrier(after, at(now + 60_000)).ask).toBe('Crash');
  });

  test('waits no longer than the interval before it tries again', () => {
    const policy = { crashConsistentSeconds: 15, appConsistentSeconds: 0 };
    let history = made(noBarriers, { atMs: 0, consistency: 'Crash' });
    for (let round = 0; round < 8; round += 1)
      history = afterVoided(history, { nowMs: 100_000, consistency: 'Crash', policy });
    expect(decideBarrier(history, at(114_999, { policy })).ask).toBe('Nothing');
    expect(decideBarrier(history, at(115_000, { policy })).ask).toBe('Crash');
  });

  test('asks for application barriers by their own interval, after a first crash-consistent one', () => {
    expect(decideBarrier(noBarriers, at(0, withApp)).ask).toBe('Crash');
    const first = made(noBarriers, { atMs: 0, consistency: 'Crash' });
    expect(decideBarrier(first, at(1_000, withApp)).ask).toBe('App');
    const second = made(first, { atMs: 2_000, consistency: 'App' });
    expect(decideBarrier(second, at(61_999, withApp)).ask).toBe('Nothing');
    expect(decideBarrier(second, at(62_000, withApp)).ask).toBe('Crash');
    const third = made(second, { atMs: 3_600_000, consistency: 'Crash' });
    expect(decideBarrier(third, at(3_602_000, withApp)).ask).toBe('App');
  });

  test('goes on with crash-consistent barriers when application barriers fail', () => {
    let history = made(noBarriers, { atMs: 0, consistency: 'Crash' });
    history = afterVoided(history, { ...calm, nowMs: 1_000, consistency: 'App' });
    expect(decideBarrier(history, at(59_000, withApp)).ask).toBe('Nothing');
    expect(decideBarrier(history, at(60_000, withApp)).ask).toBe('Crash');
    history = made(history, { atMs: 60_500, consistency: 'Crash' });
    expect(decideBarrier(history, at(61_000, withApp)).ask).toBe('App');
  });

  test('asks for the final barrier at once, whatever the interval', () => {
    const history = made(noBarriers, { atMs: 0, consistency: 'Crash' });
    expect(decideBarrier(history, at(1, { final: 'Wanted' }))).toEqual({
      ask: 'Crash',
      final: true,
    });
  });

  test('asks for a barrier as soon as a resync ended', () => {
    const history = afterResyncBegan(made(noBarriers, { atMs: 0, consistency: 'Crash' }));
    expect(decideBarrier(history, at(1, { resync: true })).ask).toBe('Nothing');
    expect(decideBarrier(history, at(2)).ask).toBe('Crash');
  });
});
