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

  const ends = [
    { type: 'Test', desired: 'CleanedUp' },
    { type: 'Unplanned', desired: 'Committed' },
  ] as const;
  for (const { type, desired } of ends)
    for (const when of ['before', 'after'] as const)
      test(`${type} on its way to ${desired}, ${when} the call happens: its successor ends it, with the same left as ever`, async () => {
        let callsSurvived = 0;
        for (let atCall = 1; ; atCall++) {
          const at = `killed at call ${atCall}`;
          const site = await RecoverySite.replicated();
          await site.run({ type });
          const made = site.compute.creates.length;
          const died = await site.finishAndDie(desired, new Dying({ atCall, when }));
          if (!died) break;
          callsSurvived++;
          await site.finish(desired);
          expect(site.compute.creates, at).toHaveLength(made);
          expect(site.pages.keys().filter((key) => key.startsWith('failovers/'))).toEqual([]);
          const catalog = await site.catalog();
          expect(catalog.activeFailover, at).toBeUndefined();
          expect(catalog.activeSide, at).toBe(desired === 'Committed' ? 'Azure' : 'Source');
          if (desired === 'CleanedUp') site.expectNothingLeft();
        }
        expect(callsSurvived).toBeGreaterThan(8);
      });
});
