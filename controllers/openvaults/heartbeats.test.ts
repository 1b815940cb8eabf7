import { expect, test } from 'vitest';
import { Heartbeats, SILENT_MS } from './heartbeats.ts';

const EVERY_MS = 5_000;

function reporting(heartbeats: Heartbeats, name: string, period: { from: number; to: number }) {
  for (let atMs = period.from; atMs <= period.to; atMs += EVERY_MS) heartbeats.note(name, atMs);
}

test('a process server is silent once it stopped reporting for longer than the limit, not before', () => {
  const heartbeats = new Heartbeats();
  reporting(heartbeats, 'ps-0', { from: 0, to: 100_000 });
  expect(heartbeats.isSilent('ps-0', 100_000 + SILENT_MS)).toBe(false);
  expect(heartbeats.isSilent('ps-0', 100_001 + SILENT_MS)).toBe(true);
});

test('one that never reported is new, neither silent nor steady', () => {
  const heartbeats = new Heartbeats();
  expect(heartbeats.isSilent('ps-0', 1e9)).toBe(false);
  expect(heartbeats.isSteady('ps-0', 1e9)).toBe(false);
});

test('the first one to report after an outage of the vault is not steady before the others could report, too', () => {
  const heartbeats = new Heartbeats();
  reporting(heartbeats, 'ps-1', { from: 0, to: 100_000 });
  expect(heartbeats.isSteady('ps-1', 100_000)).toBe(true);
  heartbeats.note('ps-1', 400_000);
  expect(heartbeats.isSteady('ps-1', 400_000)).toBe(false);
  reporting(heartbeats, 'ps-1', { from: 405_000, to: 430_000 });
  expect(heartbeats.isSteady('ps-1', 430_000)).toBe(true);
});

test('a status that is read twice or late makes nobody look younger', () => {
  const heartbeats = new Heartbeats();
  reporting(heartbeats, 'ps-1', { from: 0, to: 60_000 });
  heartbeats.note('ps-1', 20_000);
  expect(heartbeats.isSteady('ps-1', 60_000)).toBe(true);
  expect(heartbeats.isSilent('ps-1', 60_000 + SILENT_MS)).toBe(false);
});
