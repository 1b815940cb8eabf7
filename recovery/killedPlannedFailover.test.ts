import { describe, expect, test } from 'vitest';
import { Dying } from '../test/fakes/dying.ts';
import { RecoverySite } from '../test/fixtures/recoverySite.ts';

/** As in killedFailover.test.ts; a Planned one also asks the source for its last barrier, which must not be asked for twice. */
describe('an operator killed at any call', () => {
  for (const powerOffSource of [true, false])
    for (const when of ['before', 'after'] as const)
      test(`Planned, source ${powerOffSource ? 'powered off' : 'left frozen'}, ${when} the call happens: its successor goes on with the one last barrier`, async () => {
        const request = { type: 'Planned' as const, powerOffSource };
        let callsSurvived = 0;
        for (let atCall = 1; ; atCall++) {
          const at = `killed at call ${atCall}`;
          const site = await RecoverySite.replicated();
          const frozen = powerOffSource ? {} : { frozen: { heartbeats: 1_000 } };
          await site.sourceDelivers('first', { afterMs: 2_000, ...frozen });
          const died = await site.runAndDie(request, new Dying({ atCall, when }));
          if (!died) break;
          callsSurvived++;
          const document = await site.run(request);
          expect(document, at).toMatchObject({
            outcome: 'FailedOver',
            rpoSeconds: 0,
            finalBarrier: { lsn: site.machine.barriers[1]?.lsn, poweredOff: powerOffSource },
          });
          expect(site.machine.barriers, at).toHaveLength(2);
          site.expectDisksOf(1);
          expect(site.compute.creates.toSorted(), at).toEqual(
            [...new Set(site.compute.creates)].toSorted(),
          );
          expect(site.compute.creates).toHaveLength(4);
          await site.finish('Committed');
          expect(site.pages.keys().filter((key) => key.startsWith('failovers/'))).toEqual([]);
          const catalog = await site.catalog();
          expect(catalog, at).toMatchObject({ activeSide: 'Azure' });
          expect(catalog.activeFailover, at).toBeUndefined();
          expect(catalog.finalSync, at).toBeUndefined();
        }
        expect(callsSurvived).toBeGreaterThan(60);
      });
});
