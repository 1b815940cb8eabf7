import { describe, expect } from 'vitest';
import { FakeJournalCache } from '../../test/fakes/fakeJournal.ts';
import { freshMemory, type ScriptedAgent, wholeLeaf } from '../../test/fakes/scriptedAgent.ts';
import { type ScriptedSite, test } from '../../test/fixtures/scriptedSite.ts';
import { machineIdentity } from '../../vault/identity.ts';
import { FrameType, RefusalCode } from '../wire/messages.ts';

describe('who may begin a session', () => {
  const refusalOf = async (site: ScriptedSite, answer: ReturnType<ScriptedAgent['hello']>) => {
    const received = await site.passing(answer);
    return received?.type === FrameType.Refused ? received.message.code : received?.type;
  };

  test('not somebody without a certificate', async ({ site }) => {
    const stranger = site.stranger(undefined);
    expect(await refusalOf(site, stranger.hello())).toBe(RefusalCode.CertificateRequired);
  });

  test('not the holder of another machine’s certificate; the machine’s status says who tried', async ({
    site,
  }) => {
    const impostor = site.stranger(machineIdentity('99'.repeat(16)));
    expect(await refusalOf(site, impostor.hello())).toBe(RefusalCode.CertificateOfAnotherMachine);
    expect((await site.machineStatus())?.errors).toMatchObject([
      { code: RefusalCode.CertificateOfAnotherMachine },
    ]);
  });

  test('not a process server’s certificate', async ({ site }) => {
    const impostor = site.stranger('farshore:processserver:ps2');
    expect(await refusalOf(site, impostor.hello())).toBe(RefusalCode.CertificateOfAnotherMachine);
  });

  test('not a machine that is not assigned; one whose owner is known is sent there', async ({
    site,
  }) => {
    const other = '77'.repeat(16);
    expect(await refusalOf(site, site.agent(freshMemory(other)).hello())).toBe(
      RefusalCode.NotAssigned,
    );
    await site.assignAndWait('ps1', [{ machineId: site.machineId }], {
      redirects: { [other]: ['ps2.example:9443'] },
    });
    const sent = await site.passing(site.agent(freshMemory(other)).hello());
    expect(sent).toMatchObject({
      type: FrameType.Redirect,
      message: { endpoints: ['ps2.example:9443'] },
    });
  });

  test('not an agent that speaks another version', async ({ site }) => {
    const answer = site.agent().hello({ protocol: { min: 2, max: 3 } });
    expect(await refusalOf(site, answer)).toBe(RefusalCode.VersionUnsupported);
  });
});

describe('a session', () => {
  test('takes data, barriers and tells what is uploaded', async ({ site }) => {
    const db1 = site.agent();
    const welcome = await site.passing(db1.begin());
    expect(welcome).toMatchObject({
      writerEpoch: 1,
      resync: { required: true, reason: 'Initial' },
    });
    await site.passing(db1.resync(7));
    const { lsn, timeMs } = await site.passing(db1.barrier());
    expect(site.journal().barriers).toMatchObject([{ timeMs, consistency: 'Crash' }]);
    expect(site.journal().disks()).toEqual([{ index: 0, name: 'root', sizeBytes: 1 << 20 }]);
    site.journal().upload();
    await site.passing(db1.waitForUploaded(lsn));
    expect(await site.machineStatus()).toMatchObject({
      agent: { connected: true, hostname: 'db1' },
      disks: [{ index: 0, sizeBytes: 1 << 20 }],
      positions: { journaledLsn: lsn, uploadedLsn: lsn },
      uploadedBarrier: { lsn, timeMs },
      barriers: { count: 1, voided: 0, lastFreezeMs: 5 },
    });
  });

  test('asks for no barrier before a resync ended, nor while paused', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    let barriers = 0;
    const taking = (async () => {
      for (;;) {
        await db1.barrier();
        barriers += 1;
      }
    })().catch(() => undefined);
    await site.clock.advance(120_000);
    expect(barriers).toBe(0);
    await site.assignAndWait('ps1', [{ machineId: site.machineId, paused: true }]);
    await db1.resync(1);
    await site.clock.advance(60_000);
    expect(barriers).toBe(0);
    await site.assignAndWait('ps1', [{ machineId: site.machineId }]);
    await site.settleUntil(() => barriers === 1);
    await db1.connection.close();
    await site.passing(taking);
  });

  test('gives barriers times that never go back, even when the wall clock does', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    const first = await site.passing(db1.barrier());
    site.clock.jumpWallClock(-3_600_000);
    const second = await site.passing(db1.barrier());
    expect(second.timeMs).toBeGreaterThan(first.timeMs);
  });

  test('counts a voided barrier and asks again', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    const { message: prepare } = await site.passing(db1.waitFor(FrameType.BarrierPrepare));
    await db1.connection.send(FrameType.BarrierVoided, {
      id: prepare.id,
      code: 'FreezeTimeout',
      message: 'too much dirt',
    });
    await site.passing(db1.barrier());
    expect((await site.machineStatus())?.barriers).toMatchObject({
      count: 1,
      voided: 1,
      lastVoid: 'FreezeTimeout: too much dirt',
    });
  });

  test('stops taking data while the cache is full, and goes on when there is room', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    let free: () => void = () => undefined;
    site.journal().full = new Promise((resolve) => {
      free = resolve;
    });
    let sent = 0;
    const sending = (async () => {
      for (let leaf = 0; leaf < 300; leaf += 1) {
        await db1.sendRecords([wholeLeaf(leaf % 16, 3)]);
        sent += 1;
      }
    })();
    await site.clock.advance(5_000);
    expect(sent).toBeLessThan(130);
    expect((await site.machineStatus())?.errors).toMatchObject([{ code: 'CacheFull' }]);
    site.journal().full = undefined;
    free();
    await site.passing(sending);
    expect(sent).toBe(300);
  });

  test('ends a session that sends more than it was given credit for', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    let free: () => void = () => undefined;
    site.journal().full = new Promise((resolve) => {
      free = resolve;
    });
    const records = Array.from({ length: 60 }, () => wholeLeaf(0, 9));
    const flood = (async () => {
      for (let round = 0n; round < 10n; round += 1n)
        await db1.connection.sendData({ firstLsn: 1n + round * 60n, count: 60, records });
    })();
    flood.catch(() => undefined);
    const { message } = await site.passing(db1.waitFor(FrameType.Refused));
    expect(message).toMatchObject({ code: RefusalCode.ProtocolBroken });
    expect(message.message).toContain('CreditExceeded');
    free();
  });

  test.for<[string, string, (bytes: Uint8Array) => Uint8Array]>([
    ['flipped', 'FrameDamaged', (bytes) => bytes.map((byte, at) => (at === 40 ? byte ^ 4 : byte))],
    ['too long', 'FrameTooLong', (bytes) => bytes.fill(0xff, 0, 4)],
    ['of an unknown type', 'FrameUnknown', (bytes) => bytes.fill(99, 4, 5)],
  ])(
    'ends with a clear error at a frame that is %s, and loses nothing',
    async ([, code, tamper], { site }) => {
      const db1 = site.agent();
      await site.passing(db1.begin());
      await site.passing(db1.resync(5));
      await site.passing(db1.barrier());
      const before = site.journal().positions();
      db1.near.tamper = tamper;
      await db1.sendRecords([wholeLeaf(1, 6)]);
      const { message } = await site.passing(db1.waitFor(FrameType.Refused));
      expect(message).toMatchObject({ code: RefusalCode.ProtocolBroken });
      expect(message.message).toContain(code);
      expect((await site.machineStatus())?.errors).toMatchObject([
        { code: RefusalCode.ProtocolBroken },
      ]);
      expect(site.journal().positions()).toEqual(before);
      db1.memory.cacheId = site.cache.cacheId;
      const again = site.agent(db1.memory);
      const welcome = await site.passing(again.begin());
      expect(welcome).toMatchObject({
        journaledLsn: before.journaledLsn,
        resync: { required: false },
      });
      await again.sendRecords([wholeLeaf(1, 6)]);
      await site.passing(again.barrier());
      expect((await site.machineStatus())?.errors).toEqual([]);
    },
  );

  test('ends when records are refused by the journal, and says why', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await db1.connection.sendData({ firstLsn: 9n, count: 1, records: [wholeLeaf(0, 1)] });
    const { message } = await site.passing(db1.waitFor(FrameType.Refused));
    expect(message).toMatchObject({ code: RefusalCode.DataInvalid });
    expect(message.message).toContain('LsnGap');
  });

  test('gives way to a newer connection only after what it sent is journaled', async ({ site }) => {
    const first = site.agent();
    await site.passing(first.begin());
    let free: () => void = () => undefined;
    site.journal().full = new Promise((resolve) => {
      free = resolve;
    });
    await first.sendRecords([wholeLeaf(0, 1)]);
    const memory = { ...first.memory };
    const second = site.agent(memory);
    let welcomed = false;
    const begun = second.begin().then((welcome) => {
      welcomed = true;
      return welcome;
    });
    await site.clock.advance(40_000);
    expect(welcomed).toBe(false);
    site.journal().full = undefined;
    free();
    expect(await site.passing(begun)).toMatchObject({ journaledLsn: 1n });
    expect((await site.passing(first.waitFor(FrameType.Refused))).message.code).toBe(
      RefusalCode.Superseded,
    );
  });

  test('demands a resync of a machine that went back in time', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    db1.memory.cacheId = site.cache.cacheId;
    await site.passing(db1.barrier());
    const snapshot = { ...db1.memory };
    await site.passing(db1.barrier());
    await db1.connection.close();
    const welcome = await site.passing(site.agent(snapshot).begin());
    expect(welcome.resync).toEqual({ required: true, reason: 'SourceReverted' });
  });

  test('takes a lost acknowledgement for no revert', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    db1.memory.cacheId = site.cache.cacheId;
    const { lsn } = await site.passing(db1.barrier());
    await site.passing(db1.barrier());
    await db1.connection.close();
    db1.memory.acknowledgedBarrierLsn = lsn;
    expect((await site.passing(site.agent(db1.memory).begin())).resync.required).toBe(false);
  });

  test('ends after 30 s of silence, and the status says when the agent was last seen', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    const seen = site.clock.now();
    await site.clock.advance(40_000);
    const status = await site.machineStatus();
    expect(status?.agent.connected).toBe(false);
    expect(Math.abs((status?.agent.lastSeenMs ?? 0) - seen)).toBeLessThan(5_000);
  });
});

describe('fencing', () => {
  test('sends the agent away, is told in the status, and ends with a higher writer epoch', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    site.journal().fence({ by: 'Seal', failover: 'move-db1' });
    expect((await site.passing(db1.waitFor(FrameType.Refused))).message.code).toBe(
      RefusalCode.Sealed,
    );
    expect((await site.machineStatus())?.fenced).toEqual({ by: 'Seal', failover: 'move-db1' });
    const refused = await site.passing(site.agent(db1.memory).hello());
    expect(refused).toMatchObject({ message: { code: RefusalCode.Sealed } });
    await site.assignAndWait('ps1', [{ machineId: site.machineId, paused: true }]);
    expect((await site.machineStatus())?.fenced).toBeDefined();
    await site.assignAndWait('ps1', [{ machineId: site.machineId, writerEpoch: 2 }]);
    const welcome = await site.passing(site.agent(db1.memory).begin());
    expect(welcome.writerEpoch).toBe(2);
    expect((await site.machineStatus())?.fenced).toBeUndefined();
  });
});

describe('a machine that lost its process server’s cache and then went back in time', () => {
  test('must be resynced, also when the new cache has data of it and no barrier yet', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await db1.connection.close();
    // Of before the loss: it knows of as many records, but of none that this cache has.
    const before = { ...db1.memory, cacheId: 'ab'.repeat(16), capturedLsn: 1_000n };
    const welcome = await site.passing(site.agent(before).begin());
    expect(welcome.resync).toEqual({ required: true, reason: 'SourceReverted' });
  });

  test('goes on when the new cache never had anything of it', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    site.journal().upload();
    await db1.connection.close();
    await site.stopServer();
    const kept = site.journal();
    site.cache = new FakeJournalCache('cb'.repeat(16));
    site.cache.journals.set(site.machineId, kept);
    await site.startServer();
    await site.clock.advance(4_000);
    const welcome = await site.passing(
      site.agent({ ...db1.memory, cacheId: 'ca'.repeat(16) }).begin(),
    );
    expect(welcome.resync).toEqual({ required: false });
  });
});
