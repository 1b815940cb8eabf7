import { describe, expect } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { test } from '../../test/fixtures/scriptedSite.ts';
import { generateSigningKey } from '../../vault/signing.ts';
import { FrameType } from '../wire/messages.ts';

describe('assignments', () => {
  test('that change are told to the agent', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.assignAndWait('ps1', [
      { machineId: site.machineId, paused: true, resyncToken: 'again' },
    ]);
    const { message } = await site.passing(db1.waitFor(FrameType.Configure));
    expect(message).toMatchObject({ paused: true, resyncToken: 'again' });
  });

  test('whose resync window is closed hold resyncs back until it opens, and say so', async ({
    site,
  }) => {
    const timeOfDay = (ms: number) => new Date(ms).toISOString().slice(11, 16);
    const opensMs = Math.ceil(site.clock.now() / 60_000) * 60_000 + 1_800_000;
    const resyncWindow = {
      from: timeOfDay(opensMs),
      to: timeOfDay(opensMs + 3_600_000),
      timeZone: 'UTC',
      urgent: ['AfterReboot' as const],
    };
    const policy = { crashConsistentSeconds: 60, appConsistentSeconds: 0, resyncWindow };
    const repair = [{ disk: 0, leaf: 7 }];
    await site.assignAndWait('ps1', [{ machineId: site.machineId, policy, repair }]);
    const db1 = site.agent();
    const { configuration } = await site.passing(db1.begin());
    const resyncWaits = ['TrackingLost', 'SourceReverted', 'DiskResized', 'VaultGap'];
    expect(configuration).toMatchObject({ resyncWaits, repair });
    await site.passing(db1.resync(1));
    await site.journal().requireResync('DiskResized');
    expect((await site.machineStatus())?.resyncRequired).toEqual({
      reason: 'DiskResized',
      waitsUntilMs: opensMs,
    });
    while (site.clock.now() < opensMs) {
      await db1.reportStatus();
      await site.clock.advance(10_000);
    }
    const { message } = await site.passing(db1.waitFor(FrameType.Configure));
    expect(message.resyncWaits).toBeUndefined();
    expect((await site.machineStatus())?.resyncRequired).toEqual({ reason: 'DiskResized' });
  });

  test('that name others who would take over are told to an agent that is connected already', async ({
    site,
  }) => {
    const db1 = site.agent();
    expect((await site.passing(db1.begin())).peers).toEqual([]);
    await site.assignAndWait('ps1', [{ machineId: site.machineId }], {
      peers: ['two.example:9443'],
    });
    const { message } = await site.passing(db1.waitFor(FrameType.Configure));
    expect(message).toMatchObject({ paused: false, peers: ['two.example:9443'] });
  });

  test('that are older, forged or for another are refused and named; the last good ones stay', async ({
    site,
  }) => {
    await site.assignAndWait('ps1', [{ machineId: site.machineId }], { generation: 9 });
    for (const [changes, code] of [
      [{ generation: 4 }, 'DocumentStale'],
      [{ generation: 20, signer: generateSigningKey(site.random) }, 'SignerNotTrusted'],
      [{ generation: 21, vaultId: 'cd'.repeat(16) }, 'AssignmentsMisdirected'],
    ] as const) {
      await site.assignAndWait('ps1', [], changes);
      await site.clock.advance(6_000);
      const status = await site.operator.status('ps1');
      expect(status?.errors).toMatchObject([{ code }]);
      expect(status?.assignments?.generation).toBe(9);
      expect(status?.machines.length).toBe(1);
    }
    await site.assignAndWait('ps1', [{ machineId: site.machineId }], { generation: 22 });
    await site.clock.advance(6_000);
    expect((await site.operator.status('ps1'))?.errors).toEqual([]);
  });

  test('are followed after a restart although the vault is dead', async ({ site }) => {
    await site.stopServer();
    site.store.fault = () => ({
      when: 'before',
      error: new StoreError('VaultUnreachable', 'dead'),
    });
    await site.startServer();
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(2));
    await site.passing(db1.barrier());
    site.store.fault = undefined;
  });

  test('that drop a machine end its session and forget it', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.assignAndWait('ps1', []);
    await site.passing(db1.waitFor(FrameType.Refused));
    expect(site.cache.machines()).toEqual([]);
  });
});

describe('the limit of uploads', () => {
  test('follows the list and the time of day without a restart, and is told in the status', async ({
    site,
  }) => {
    const windows = [{ from: '00:10', to: '00:20', timeZone: 'UTC', bytesPerSecond: 5_000 }];
    await site.operator.assign('ps1', [{ machineId: site.machineId }], {
      bandwidth: { bytesPerSecond: 70_000, windows },
    });
    await site.settleUntil(() => site.cache.uploadLimit() === 70_000);
    const told = async () => (await site.operator.status('ps1'))?.uploadLimitBytesPerSecond;
    await site.settleUntil(async () => (await told()) === 70_000);
    expect(site.server.figures().status.uploadLimitBytesPerSecond).toBe(70_000);
    // The border of the window, by the wall clock alone.
    const untilMs = Date.UTC(2026, 0, 1, 0, 10) - site.clock.now();
    expect(untilMs).toBeGreaterThan(0);
    site.clock.jumpWallClock(untilMs - 1);
    expect(site.cache.uploadLimit()).toBe(70_000);
    site.clock.jumpWallClock(1);
    expect(site.cache.uploadLimit()).toBe(5_000);
    await site.settleUntil(async () => (await told()) === 5_000);
    site.clock.jumpWallClock(600_000);
    expect(site.cache.uploadLimit()).toBe(70_000);
    await site.operator.assign('ps1', [{ machineId: site.machineId }]);
    await site.settleUntil(() => site.cache.uploadLimit() === undefined);
    await site.settleUntil(async () => (await told()) === undefined);
  });

  test('leaves out windows of a time zone that is not known, and says so', async ({ site }) => {
    const windows = [{ from: '00:00', to: '00:00', timeZone: 'Mars/Olympus', bytesPerSecond: 1 }];
    await site.operator.assign('ps1', [{ machineId: site.machineId }], {
      bandwidth: { bytesPerSecond: 9, windows },
    });
    await site.settleUntil(() => site.cache.uploadLimit() === 9);
    const errors = async () => (await site.operator.status('ps1'))?.errors ?? [];
    await site.settleUntil(async () => (await errors()).length > 0);
    expect((await errors())[0]).toMatchObject({ code: 'TimeZoneUnknown' });
  });
});
