import { describe, expect, test } from 'vitest';
import { Dying } from '../test/fakes/dying.ts';
import { RecoverySite } from '../test/fixtures/recoverySite.ts';

describe('an operator killed at any call', () => {
  for (const type of ['Test', 'Unplanned'] as const)
    for (const when of ['before', 'after'] as const)
      test(`${type}, ${when} the call happens: its successor goes on, one create a resource, nothing left behind`, async () => {
        let callsSurvived = 0;
        for (let atCall = 1; ; atCall++) {
          const site = await RecoverySite.replicated();
          const died = await site.runAndDie({ type }, new Dying({ atCall, when }));
          if (!died) break;
          callsSurvived++;
          const document = await site.run({ type });
          expect(document.outcome, `killed at call ${atCall}`).toBe('FailedOver');
          site.expectDisksOf(0);
          expect(site.compute.creates.toSorted(), `killed at call ${atCall}`).toEqual(
            [...new Set(site.compute.creates)].toSorted(),
          );
          expect(site.compute.creates).toHaveLength(4);
          await site.finish(type === 'Test' ? 'CleanedUp' : 'Committed');
          expect(site.pages.keys().filter((key) => key.startsWith('failovers/'))).toEqual([]);
          if (type === 'Test') site.expectNothingLeft();
        }
        // Every ARM call, every ledger write, every copy: far more than this many.
        expect(callsSurvived).toBeGreaterThan(60);
      });
});
