import { expect, test } from 'vitest';
import { type Bandwidth, bandwidthSchema, limitInForce, unknownTimeZones } from './bandwidth.ts';

const bandwidth: Bandwidth = {
  bytesPerSecond: 1_000_000,
  windows: [
    { days: ['Sat', 'Sun'], from: '00:00', to: '00:00', timeZone: 'Europe/Zurich' },
    { from: '20:00', to: '06:00', timeZone: 'Europe/Zurich', bytesPerSecond: 9_000_000 },
    { from: '05:00', to: '07:00', timeZone: 'Europe/Zurich', bytesPerSecond: 5_000_000 },
  ],
};

test.each([
  ['a working day', '2026-01-07T11:00:00Z', 1_000_000],
  ['a night', '2026-01-07T19:00:00Z', 9_000_000],
  ['where two hold, the first', '2026-01-07T04:30:00Z', 9_000_000],
  ['where only the last holds', '2026-01-07T05:30:00Z', 5_000_000],
  ['a weekend without a limit', '2026-01-10T11:00:00Z', undefined],
])('the limit in force is that of the first window that holds: %s', (_, moment, limit) => {
  expect(limitInForce(bandwidth, Date.parse(moment))).toBe(limit);
});

test('without windows and default there is no limit', () => {
  expect(limitInForce({ windows: [] }, 0)).toBeUndefined();
});

test('a window of a time zone that is not known here never holds, and is told', () => {
  const strange: Bandwidth = {
    bytesPerSecond: 7,
    windows: [{ from: '00:00', to: '00:00', timeZone: 'Mars/Olympus', bytesPerSecond: 1 }],
  };
  expect(limitInForce(strange, 0)).toBe(7);
  expect(unknownTimeZones(strange)).toEqual(['Mars/Olympus']);
  expect(unknownTimeZones(bandwidth)).toEqual([]);
});

test.each([
  ['no rate at all', { bytesPerSecond: 0, windows: [] }],
  ['a time that is none', { windows: [{ from: '24:00', to: '06:00', timeZone: 'UTC' }] }],
  ['no day', { windows: [{ days: [], from: '20:00', to: '06:00', timeZone: 'UTC' }] }],
])('a document with %s is refused', (_, document) => {
  expect(bandwidthSchema.safeParse(document).success).toBe(false);
});
