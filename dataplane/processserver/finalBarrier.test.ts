import { describe, expect } from 'vitest';
import { test } from '../../test/fixtures/scriptedSite.ts';
import { FrameType } from '../wire/messages.ts';

describe('a planned failover', () => {
  const finalSync = { failover: 'move-db1', powerOff: true };

  test('gets its final barrier at once, reported when it is uploaded and the agent is done', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    const { lsn, prepare } = await site.passing(db1.barrier());
    expect(prepare.final).toEqual(finalSync);
    expect(site.journal().barriers.at(-1)?.final).toEqual({ failover: 'move-db1' });
    expect((await site.machineStatus())?.finalBarrier).toBeUndefined();
    site.journal().upload();
    await site.passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: true } });
    await db1.connection.close();
    const expected = { failover: 'move-db1', lsn, poweredOff: true };
    expect((await site.machineStatus())?.finalBarrier).toEqual(expected);
    await site.stopServer();
    await site.startServer();
    expect((await site.machineStatus())?.finalBarrier).toEqual(expected);
  });

  test('is over also when the process server forgot that it took the barrier', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    const { lsn } = await site.passing(db1.barrier());
    site.journal().upload();
    await db1.connection.close();
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    const again = site.agent({ ...db1.memory, cacheId: site.cache.cacheId });
    await site.passing(again.begin());
    await again.reportStatus({ final: { failover: 'move-db1', poweredOff: false } });
    expect((await site.machineStatus())?.finalBarrier).toEqual({
      failover: 'move-db1',
      lsn,
      poweredOff: false,
    });
  });

  test('is followed by no other barrier, and by barriers again once it is cancelled', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    await site.passing(db1.barrier());
    let asked = false;
    const next = db1.barrier().finally(() => {
      asked = true;
    });
    await site.clock.advance(120_000);
    expect(asked).toBe(false);
    await site.assignAndWait('ps1', [{ machineId: site.machineId }]);
    expect((await site.passing(next)).prepare.final).toBeUndefined();
  });

  test('asks again when the source was thawed after its final barrier was acknowledged', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    const { prepare } = await site.passing(db1.barrier());
    await db1.connection.send(FrameType.BarrierVoided, {
      id: prepare.id,
      code: 'FinalTimedOut',
      message: 'not in the vault in time',
    });
    site.journal().upload();
    expect((await site.machineStatus())?.finalBarrier).toBeUndefined();
    const { lsn, prepare: second } = await site.passing(db1.barrier());
    expect(second.final).toEqual(finalSync);
    site.journal().upload();
    await site.passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: true } });
    expect((await site.machineStatus())?.finalBarrier).toMatchObject({ lsn });
  });

  test('asks again when the connection ended before the source said that it stays frozen', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    await site.passing(db1.barrier());
    await db1.connection.close();
    await site.stopServer();
    await site.startServer();
    await site.clock.advance(4_000);
    const again = site.agent({ ...db1.memory, cacheId: site.cache.cacheId });
    await site.passing(again.begin());
    expect((await site.passing(again.barrier())).prepare.final).toEqual(finalSync);
  });

  test('takes back what it told of a frozen source that runs again, and asks again', async ({
    site,
  }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    const { lsn } = await site.passing(db1.barrier());
    site.journal().upload();
    await site.passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: true } });
    await db1.connection.close();
    expect((await site.machineStatus())?.finalBarrier).toMatchObject({ lsn });
    // Somebody turned it on again.
    const again = site.agent({ ...db1.memory, cacheId: site.cache.cacheId });
    await site.passing(again.begin());
    expect((await site.machineStatus())?.finalBarrier).toBeUndefined();
    expect((await site.passing(again.barrier())).prepare.final).toEqual(finalSync);
  });

  test('vouches for a frozen source only while it hears of it', async ({ site }) => {
    const db1 = site.agent();
    await site.passing(db1.begin());
    await site.passing(db1.resync(1));
    await site.passing(db1.barrier());
    await site.assignAndWait('ps1', [{ machineId: site.machineId, finalSync }]);
    const { lsn } = await site.passing(db1.barrier());
    site.journal().upload();
    await site.passing(db1.waitForUploaded(lsn));
    await db1.reportStatus({ final: { failover: 'move-db1', poweredOff: false } });
    expect((await site.machineStatus())?.finalBarrier).toMatchObject({ lsn, poweredOff: false });
    await db1.connection.close();
    expect((await site.machineStatus())?.finalBarrier).toBeUndefined();
    const again = site.agent({ ...db1.memory, cacheId: site.cache.cacheId });
    expect((await site.passing(again.hello()))?.type).toBe(FrameType.Welcome);
    // It is connected, and has said nothing of it yet.
    expect((await site.machineStatus())?.finalBarrier).toBeUndefined();
    await again.reportStatus({ final: { failover: 'move-db1', poweredOff: false } });
    expect((await site.machineStatus())?.finalBarrier).toMatchObject({ lsn, poweredOff: false });
  });
});
