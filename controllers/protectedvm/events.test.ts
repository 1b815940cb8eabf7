import { describe, expect, test } from 'vitest';
import { ConditionType, Reason } from '../../crds/index.ts';
import type { Condition } from '../../platform/kubernetes.ts';
import type { Decided } from '../decisions.ts';
import { happeningsOf } from './events.ts';

const lastTransitionTime = '2026-01-01T00:00:00Z';

function resync(status: 'True' | 'False', reason: Reason): Decided {
  return { type: ConditionType.ResyncRequired, status, reason, message: `because ${reason}` };
}

function shown(decided: Decided): Condition[] {
  return [{ ...decided, lastTransitionTime }];
}

describe('an Event is recorded', () => {
  test('when a condition turns, a warning when it turns bad', () => {
    const lost = resync('True', Reason.TrackingLost);
    const fine = resync('False', Reason.TrackingComplete);
    expect(happeningsOf(shown(fine), [lost])).toEqual([
      { type: 'Warning', reason: Reason.TrackingLost, message: lost.message },
    ]);
    expect(happeningsOf(shown(lost), [fine])).toMatchObject([{ type: 'Normal' }]);
  });

  test('when something else goes wrong while a condition is bad already', () => {
    const lost = resync('True', Reason.TrackingLost);
    const rotten = resync('True', Reason.ChecksumMismatch);
    expect(happeningsOf(shown(lost), [rotten])).toEqual([
      { type: 'Warning', reason: Reason.ChecksumMismatch, message: rotten.message },
    ]);
  });

  test('not while nothing changes, nor for another reason of being well', () => {
    const lost = resync('True', Reason.TrackingLost);
    expect(happeningsOf(shown(lost), [{ ...lost, message: 'half of it is done' }])).toEqual([]);
    const fine = resync('False', Reason.TrackingComplete);
    expect(happeningsOf(shown(fine), [{ ...fine, reason: Reason.Pending }])).toEqual([]);
  });

  test('of a new resource only when it is refused', () => {
    const lost = resync('True', Reason.TrackingLost);
    const refused: Decided = {
      ...{ type: ConditionType.Accepted, status: 'False', reason: Reason.VaultNotFound },
      message: 'there is no such vault',
    };
    expect(happeningsOf([], [lost, refused])).toMatchObject([{ reason: Reason.VaultNotFound }]);
  });
});
