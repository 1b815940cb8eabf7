import { expect, test } from 'vitest';
import { ResyncWatch, type ResyncWindow, waitingResyncs } from './resyncWindow.ts';

const nights: ResyncWindow = {
  from: '20:00',
  to: '06:00',
  timeZone: 'Europe/Zurich',
  urgent: ['TrackingLost', 'AfterReboot', 'SourceReverted', 'VaultGap'],
};
const noon = Date.parse('2026-07-01T10:00:00Z');
const night = Date.parse('2026-07-01T18:00:00Z');

test('in office hours a resync that is not urgent waits until the window opens, by the clocks of its time zone', () => {
  expect(waitingResyncs(nights, noon)).toEqual({ reasons: ['DiskResized'], untilMs: night });
  expect(waitingResyncs(nights, night)).toBeUndefined();
  const winter = Date.parse('2026-12-01T10:00:00Z');
  expect(waitingResyncs(nights, winter)?.untilMs).toBe(Date.parse('2026-12-01T19:00:00Z'));
});

test('what is urgent is the policy’s to say; the first copy and one that is asked for never wait', () => {
  expect(waitingResyncs({ ...nights, urgent: [] }, noon)?.reasons).toEqual([
    'TrackingLost',
    'AfterReboot',
    'SourceReverted',
    'DiskResized',
    'VaultGap',
  ]);
  const urgent = [...nights.urgent, 'DiskResized' as const];
  expect(waitingResyncs({ ...nights, urgent }, noon)).toBeUndefined();
});

test('without a window, or with one that nobody can read, nothing waits', () => {
  expect(waitingResyncs(undefined, noon)).toBeUndefined();
  expect(waitingResyncs({ ...nights, timeZone: 'Europe/Atlantis' }, noon)).toBeUndefined();
});

test('whoever asks often is told of the opening at its minute, and of another window at once', () => {
  const watch = new ResyncWatch();
  expect(watch.waiting(nights, night - 1)?.reasons).toEqual(['DiskResized']);
  expect(watch.waiting(nights, night)).toBeUndefined();
  expect(watch.waiting({ ...nights, from: '21:00' }, night)?.reasons).toEqual(['DiskResized']);
  expect(watch.waiting(undefined, night)).toBeUndefined();
});
