import { expect, test } from 'vitest';
import { bandwidthOfEach } from './bandwidth.ts';

test('the limit of a process server is that of all replicas together, each with an equal part', () => {
  const windows = [{ from: '08:00', to: '18:00', timeZone: 'UTC', limit: '1G' }];
  expect(bandwidthOfEach({ bandwidth: { limit: '100M', windows }, replicas: 4 })).toEqual({
    bytesPerSecond: 3_125_000,
    windows: [{ from: '08:00', to: '18:00', timeZone: 'UTC', bytesPerSecond: 31_250_000 }],
  });
});

test('what is not limited has no limit in the list either', () => {
  const windows = [{ from: '08:00', to: '18:00', timeZone: 'UTC' }];
  expect(bandwidthOfEach({ bandwidth: undefined, replicas: 1 })).toBeUndefined();
  expect(bandwidthOfEach({ bandwidth: { windows }, replicas: 1 })).toEqual({ windows });
  expect(bandwidthOfEach({ bandwidth: {}, replicas: 1 })).toEqual({ windows: [] });
});
