import { describe, expect, test } from 'vitest';
import type { JournalPositions } from '../journal/machineJournal.ts';
import { resyncDemanded } from './resyncDemand.ts';

type Hello = Parameters<typeof resyncDemanded>[0]['hello'];

const positions: JournalPositions = {
  journaledLsn: 120n,
  uploadedLsn: 100n,
  lastBarrierLsn: 110n,
  uploadedBarrier: undefined,
  uploadedAppBarrier: undefined,
};
const continued: Hello = {
  protocol: { min: 1, max: 1 },
  machineId: '00'.repeat(16),
  agentVersion: '1',
  hostname: 'h',
  kernel: 'k',
  bootId: 'b',
  capturedLsn: 130n,
  acknowledgedBarrierLsn: 110n,
  cacheId: 'here',
  tracking: { state: 'Continued' },
};

function demanded(hello: Partial<Hello>, cacheHasData = true) {
  return resyncDemanded({
    hello: { ...continued, ...hello },
    cacheId: 'here',
    cacheHasData,
    positions,
  });
}

describe('a resync is', () => {
  test('not demanded of an agent that goes on where it was', () => {
    expect(demanded({})).toBeUndefined();
  });

  test('not demanded when only the acknowledgement of the last barrier got lost', () => {
    expect(demanded({ acknowledgedBarrierLsn: 80n })).toBeUndefined();
  });

  test('demanded of an agent that knows of fewer records than the journal has', () => {
    expect(demanded({ capturedLsn: 119n, acknowledgedBarrierLsn: 80n })).toBe('SourceReverted');
  });

  test('demanded of an agent that knows nothing of a cache which has its barriers', () => {
    expect(demanded({ cacheId: 'elsewhere' })).toBe('SourceReverted');
    expect(demanded({ cacheId: undefined })).toBe('SourceReverted');
  });

  test('not demanded when the cache is new and has no barriers of its own', () => {
    expect(demanded({ cacheId: 'elsewhere' }, false)).toBeUndefined();
  });

  test('demanded for the agent’s own reason when its tracking is lost', () => {
    const tracking = { state: 'Lost', reason: 'AfterReboot', detail: 'boot' } as const;
    expect(demanded({ tracking })).toBe('AfterReboot');
    expect(demanded({ tracking, capturedLsn: 0n, acknowledgedBarrierLsn: 0n })).toBe('AfterReboot');
  });

  test('said to be for a revert when lost tracking goes with an older barrier', () => {
    const tracking = { state: 'Lost', reason: 'AfterReboot', detail: 'boot' } as const;
    expect(demanded({ tracking, capturedLsn: 85n, acknowledgedBarrierLsn: 80n })).toBe(
      'SourceReverted',
    );
  });
});
