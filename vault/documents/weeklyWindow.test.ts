import { describe, expect, test } from 'vitest';
import { isTimeZone, type WeeklyWindow, windowChanges, windowHolds } from './weeklyWindow.ts';

const at = (text: string) => Date.parse(text);
const office: WeeklyWindow = {
  days: ['Mon', 'Tue', 'Wed', 'Thu', 'Fri'],
  from: '08:00',
  to: '18:00',
  timeZone: 'Europe/Zurich',
};

describe('a weekly window', () => {
  test.each([
    ['2026-01-05T06:59:59.999Z', false],
    ['2026-01-05T07:00:00Z', true],
    ['2026-01-05T16:59:59.999Z', true],
    ['2026-01-05T17:00:00Z', false],
    // Saturday.
    ['2026-01-10T12:00:00Z', false],
    // Summer time: an hour earlier by the sun.
    ['2026-07-06T06:00:00Z', true],
    ['2026-07-06T16:00:00Z', false],
  ])('of days follows the wall clock of its time zone: %s', (moment, holds) => {
    expect(windowHolds(office, at(moment))).toBe(holds);
  });

  test('over midnight belongs to the day on which it began', () => {
    const night: WeeklyWindow = { days: ['Fri'], from: '22:00', to: '06:00', timeZone: 'UTC' };
    expect(windowHolds(night, at('2026-01-09T21:59:00Z'))).toBe(false);
    expect(windowHolds(night, at('2026-01-09T22:00:00Z'))).toBe(true);
    expect(windowHolds(night, at('2026-01-10T05:59:00Z'))).toBe(true);
    expect(windowHolds(night, at('2026-01-10T06:00:00Z'))).toBe(false);
    // Friday's own small hours belong to Thursday.
    expect(windowHolds(night, at('2026-01-09T03:00:00Z'))).toBe(false);
    const sunday: WeeklyWindow = { ...night, days: ['Sun'] };
    expect(windowHolds(sunday, at('2026-01-12T03:00:00Z'))).toBe(true);
  });

  test('that ends when it begins holds the whole day', () => {
    const saturday: WeeklyWindow = { days: ['Sat'], from: '00:00', to: '00:00', timeZone: 'UTC' };
    expect(windowHolds(saturday, at('2026-01-09T23:59:00Z'))).toBe(false);
    expect(windowHolds(saturday, at('2026-01-10T00:00:00Z'))).toBe(true);
    expect(windowHolds(saturday, at('2026-01-10T23:59:00Z'))).toBe(true);
    expect(windowHolds(saturday, at('2026-01-11T00:00:00Z'))).toBe(false);
  });

  test('in the hour that clocks skip begins when the clock has passed it', () => {
    // 2026-03-29, 02:00 becomes 03:00 in Zurich, at 01:00 UTC.
    const early: WeeklyWindow = { from: '02:30', to: '04:00', timeZone: 'Europe/Zurich' };
    expect(windowHolds(early, at('2026-03-29T00:59:00Z'))).toBe(false);
    expect(windowHolds(early, at('2026-03-29T01:00:00Z'))).toBe(true);
    expect(windowHolds(early, at('2026-03-29T02:00:00Z'))).toBe(false);
    expect(windowChanges(early, at('2026-03-28T23:00:00Z'))).toBe(at('2026-03-29T01:00:00Z'));
  });

  test('in the hour that clocks show twice holds twice', () => {
    // 2026-10-25, 03:00 becomes 02:00 in Zurich, at 01:00 UTC.
    const early: WeeklyWindow = { from: '02:15', to: '02:45', timeZone: 'Europe/Zurich' };
    const changes = changesFrom(early, at('2026-10-24T23:00:00Z'), 4);
    expect(changes).toEqual([
      '2026-10-25T00:15:00.000Z',
      '2026-10-25T00:45:00.000Z',
      '2026-10-25T01:15:00.000Z',
      '2026-10-25T01:45:00.000Z',
    ]);
  });

  test('tells when it next begins or ends, over a weekend too', () => {
    expect(changesFrom(office, at('2026-01-09T12:34:56.789Z'), 3)).toEqual([
      '2026-01-09T17:00:00.000Z',
      '2026-01-12T07:00:00.000Z',
      '2026-01-12T17:00:00.000Z',
    ]);
    const always: WeeklyWindow = { from: '00:00', to: '00:00', timeZone: 'UTC' };
    expect(windowChanges(always, at('2026-01-09T12:00:00Z'))).toBeUndefined();
  });

  test.each([
    ['Europe/Zurich', '22:10', '06:05'],
    ['America/St_Johns', '01:59', '02:01'],
    ['Australia/Lord_Howe', '02:00', '02:31'],
    ['Asia/Kathmandu', '00:00', '12:00'],
    ['Africa/Casablanca', '23:59', '00:00'],
  ])(
    'tells of each change that a look at every minute of a year finds: %s %s to %s',
    (timeZone, from, to) => {
      const window: WeeklyWindow = { days: ['Mon', 'Wed', 'Sun'], from, to, timeZone };
      const seen: number[] = [];
      const end = at('2027-01-01T00:00:00Z');
      let before = windowHolds(window, at('2026-01-01T00:00:00Z'));
      for (let ms = at('2026-01-01T00:01:00Z'); ms < end; ms += 60_000) {
        const holds = windowHolds(window, ms);
        if (holds !== before) seen.push(ms);
        before = holds;
      }
      const told: number[] = [];
      let next = windowChanges(window, at('2026-01-01T00:00:00Z'));
      while (next !== undefined && next < end) {
        told.push(next);
        next = windowChanges(window, next);
      }
      expect(told).toEqual(seen);
      expect(told.length).toBeGreaterThan(300);
    },
    60_000,
  );

  test('of a time zone that nobody knows is refused by name', () => {
    expect(isTimeZone('Europe/Zurich')).toBe(true);
    expect(isTimeZone('Europe/Atlantis')).toBe(false);
    expect(() => windowHolds({ ...office, timeZone: 'Europe/Atlantis' }, 0)).toThrowError(
      expect.objectContaining({ code: 'TimeZoneUnknown' }),
    );
  });
});

function changesFrom(window: WeeklyWindow, fromMs: number, count: number): string[] {
  const changes: string[] = [];
  let next: number | undefined = fromMs;
  while (changes.length < count && next !== undefined) {
    next = windowChanges(window, next);
    if (next !== undefined) changes.push(new Date(next).toISOString());
  }
  return changes;
}
