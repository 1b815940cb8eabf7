import { describe, expect, test } from 'vitest';
import { RecoverySite } from '../test/fixtures/recoverySite.ts';

describe('a failover', () => {
  test('planned: waits for the last barrier of the source and brings up exactly that', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', { afterMs: 20_000 });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document).toMatchObject({
      outcome: 'FailedOver',
      rpoSeconds: 0,
      finalBarrier: { lsn: site.machine.barriers[1]?.lsn, poweredOff: true },
    });
    site.expectDisksOf(1);
  });

  test('planned, whose source wrote on behind its last barrier: brings up nothing, and lets it go on', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', { afterMs: 20_000, goesOn: true });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document.failure).toMatchObject({ step: 'SealJournal', code: 'SourceWentOn' });
    expect(document.failure?.message).toContain('create a new Planned Failover');
    expect(site.compute.creates).toEqual([]);
    const catalog = await site.catalog();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
    expect(catalog.activeFailover).toBeUndefined();
    expect(catalog.finalSync).toBeUndefined();
    expect(catalog.writerEpoch).toBeGreaterThan(document.seal?.writerEpoch ?? 0);
  });

  test('planned, whose source is thawed before the journal is sealed: nothing is sealed, and it goes on', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', { afterMs: 20_000 });
    const document = await site.run(
      { type: 'Planned', powerOffSource: true },
      'first',
      ({ finalBarrier }) => {
        if (finalBarrier !== undefined) void site.sourceRunsAgain();
      },
    );
    expect(document.failure).toMatchObject({ step: 'SealJournal', code: 'SourceWentOn' });
    expect(document.seal).toBeUndefined();
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source', writerEpoch: 1 });
  });

  test('planned, whose source stays on: believes that it is frozen only while its process server says so', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', { afterMs: 20_000, frozen: { heartbeats: 1 } });
    const document = await site.run({ type: 'Planned', powerOffSource: false });
    expect(document.failure).toMatchObject({ step: 'FinalSync', code: 'FinalSyncTimedOut' });
    await site.sourceDelivers('second', { afterMs: 20_000, frozen: { heartbeats: 20 } });
    const second = await site.run({ type: 'Planned', powerOffSource: false }, 'second');
    expect(second).toMatchObject({ outcome: 'FailedOver', finalBarrier: { poweredOff: false } });
  });

  test('planned, whose process server is lost meanwhile: hears of the last barrier from the next one', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', { afterMs: 20_000, movesTo: 'ps-2' });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document).toMatchObject({
      outcome: 'FailedOver',
      finalBarrier: { lsn: site.machine.barriers[1]?.lsn },
    });
    site.expectDisksOf(1);
  });

  test('planned, whose source is frozen and can not be vouched for: ends at once and lets it go', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', {
      afterMs: 20_000,
      frozen: { heartbeats: 20 },
      unproven: true,
    });
    const document = await site.run({ type: 'Planned', powerOffSource: false });
    expect(document.failure).toMatchObject({ step: 'FinalSync', code: 'FinalSyncUnproven' });
    expect(document.seal).toBeUndefined();
    const catalog = await site.catalog();
    expect(catalog.finalSync).toBeUndefined();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
  });

  test('planned, whose process server falls silent before the journal is sealed: what it said last is not believed', async () => {
    const site = await RecoverySite.replicated();
    await site.sourceDelivers('first', { afterMs: 20_000, frozen: { heartbeats: 2 } });
    const document = await site.run({ type: 'Planned', powerOffSource: false });
    expect(document.finalBarrier).toMatchObject({ poweredOff: false });
    expect(document.failure).toMatchObject({ step: 'SealJournal', code: 'SourceWentOn' });
    expect(document.seal).toBeUndefined();
  });

  test('planned, whose source never answers: lets it go on and says to choose Unplanned', async () => {
    const site = await RecoverySite.replicated();
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document.failure).toMatchObject({ step: 'FinalSync', code: 'FinalSyncTimedOut' });
    expect(document.failure?.message).toContain('Unplanned');
    // Its agent may have turned it off and died with it.
    expect(document.failure?.message).toContain('start it again');
    const catalog = await site.catalog();
    expect(catalog.finalSync).toBeUndefined();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
    expect(site.compute.creates).toEqual([]);
  });

  test('planned, whose last barrier can not be proven: never an older point in its place', async () => {
    const site = await RecoverySite.replicated();
    site.machine.writeUnseen();
    await site.sourceDelivers('first', { afterMs: 20_000 });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document.failure).toMatchObject({
      step: 'ChoosePoint',
      code: 'FinalBarrierNotRecovered',
    });
    expect(document.failure?.message).toContain('start it again');
    expect(document.steps.find((step) => step.name === 'ApplyJournal')?.message).toContain(
      'is not offered',
    );
    expect(site.compute.creates).toEqual([]);
    const catalog = await site.catalog();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
    expect(catalog.activeFailover).toBeUndefined();
    expect(catalog.writerEpoch).toBeGreaterThan(document.seal?.writerEpoch ?? 0);
  });
});
