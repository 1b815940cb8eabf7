import { describe, expect, test } from 'vitest';
import { trimJournal } from '../dataplane/journal/journalRetention.ts';
import { markPoint } from '../dataplane/journal/pointDamage.ts';
import { silentLogger } from '../test/fakes/silentLogger.ts';
import { RecoverySite } from '../test/fixtures/recoverySite.ts';
import { vaultLayout } from '../vault/layout.ts';

/** Three points, of which those are marked. */
async function damagedSite(marked: readonly number[]): Promise<RecoverySite> {
  const site = await RecoverySite.make();
  for (let round = 0; round < 3; round++) {
    site.machine.scribble();
    await site.machine.barrier();
    await site.clock.advance(60_000);
  }
  await site.run({ type: 'Test' }, 'before');
  await site.finish('CleanedUp', 'before');
  const { machineId, barriers } = site.machine;
  for (const at of marked) {
    const lsn = barriers[at]?.lsn ?? 0n;
    await markPoint(site.objects, { machineId, lsn, leaves: [{ disk: 0, leaf: 3 }] });
  }
  return site;
}

describe('a failover', () => {
  test('unplanned, to the latest point: the disks equal the source at its last barrier', async () => {
    const site = await RecoverySite.replicated();
    site.machine.scribble();
    await site.machine.barrier();
    site.machine.scribble();
    const document = await site.run({ type: 'Unplanned' });
    expect(document).toMatchObject({ outcome: 'FailedOver', rpoSeconds: expect.any(Number) });
    expect(document.disks?.map((disk) => disk.rootMatches)).toEqual([true, true]);
    site.expectDisksOf(1);
    expect((await site.catalog()).activeSide).toBe('Azure');
  });

  test('to the point at a time: not the newest one', async () => {
    const site = await RecoverySite.make();
    for (let round = 0; round < 3; round++) {
      site.machine.scribble();
      await site.machine.barrier();
      await site.clock.advance(60_000);
    }
    const timeMs = (site.machine.barriers[1]?.timeMs ?? 0) + 10_000;
    await site.run({ type: 'Test', recoveryPoint: { type: 'Time', timeMs } });
    site.expectDisksOf(1);
  });

  test('of a machine whose journal was trimmed: to an older point, and to the latest one', async () => {
    const site = await RecoverySite.make();
    for (let round = 0; round < 3; round++) {
      site.machine.scribble();
      await site.machine.barrier();
      await site.clock.advance(60_000);
    }
    await site.run({ type: 'Test' });
    await site.finish('CleanedUp');
    const { machineId, barriers } = site.machine;
    const trimmed = await trimJournal(
      { objects: site.objects, logger: silentLogger },
      { machineId, retentionMs: 0, nowMs: site.clock.now(), applied: { seq: 3 }, limit: 100 },
    );
    expect(trimmed.segments).toBe(3);
    const name = String(barriers[0]?.lsn);
    await site.run({ type: 'Test', recoveryPoint: { type: 'Name', name } }, 'older');
    site.expectDisksOf(0);
    await site.finish('CleanedUp', 'older');
    site.machine.scribble();
    await site.machine.barrier();
    await site.run({ type: 'Unplanned' }, 'latest');
    site.expectDisksOf(3);
  });

  test('whose point is retired before it can be pinned takes another one, and leaves no pin behind', async () => {
    const site = await RecoverySite.make();
    for (let round = 0; round < 2; round++) {
      site.machine.scribble();
      await site.machine.barrier();
      await site.clock.advance(60_000);
    }
    const { machineId, barriers } = site.machine;
    const lost = barriers[1]?.lsn ?? 0n;
    site.objects.interleave = async (operation, key) => {
      if (operation !== 'putIfAbsent' || key !== vaultLayout.pointPin(machineId, lost)) return;
      site.objects.interleave = undefined;
      await site.objects.remove(vaultLayout.point(machineId, lost));
    };
    await site.run({ type: 'Test' });
    expect(site.objects.interleave).toBeUndefined();
    site.expectDisksOf(0);
    await site.finish('CleanedUp');
    site.expectNothingLeft();
  });

  test('to the latest point, of which some are marked damaged: to the newest that is not', async () => {
    const site = await damagedSite([1, 2]);
    const document = await site.run({ type: 'Unplanned' });
    expect(document).toMatchObject({ outcome: 'FailedOver' });
    site.expectDisksOf(0);
  });

  test('to a point that is marked damaged: refused before anything is touched, unless nothing is to be verified', async () => {
    const site = await damagedSite([1]);
    const name = String(site.machine.barriers[1]?.lsn);
    const recoveryPoint = { type: 'Name' as const, name };
    const refused = await site.run({ type: 'Unplanned', recoveryPoint });
    expect(refused.failure).toMatchObject({ step: 'Validate', code: 'RecoveryPointDamaged' });
    expect(refused.failure?.message).toMatch(/leaf 3 of disk .* from byte 196608/);
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
    const taken = await site.run({ type: 'Unplanned', recoveryPoint, verify: 'None' }, 'second');
    expect(taken).toMatchObject({ outcome: 'FailedOver' });
    site.expectDisksOf(1);
  });

  test('of a machine whose points are all marked damaged: ends clearly, and goes on without verification', async () => {
    const site = await damagedSite([0, 1, 2]);
    const { timeMs = 0 } = site.machine.barriers[1] ?? {};
    const refused = await site.run({ type: 'Test', recoveryPoint: { type: 'Time', timeMs } });
    expect(refused.failure).toMatchObject({ code: 'RecoveryPointDamaged' });
    expect(site.objects.keys().filter((key) => key.endsWith('.pin'))).toEqual([]);
    await site.run(
      { type: 'Test', recoveryPoint: { type: 'Time', timeMs }, verify: 'None' },
      'second',
    );
    site.expectDisksOf(1);
  });

  test('of a name that is no recovery point: refused before the journal is sealed', async () => {
    const site = await RecoverySite.replicated();
    await site.run({ type: 'Test' });
    await site.finish('CleanedUp');
    const document = await site.run(
      { type: 'Unplanned', recoveryPoint: { type: 'Name', name: '1' } },
      'second',
    );
    expect(document.failure).toMatchObject({ step: 'Validate', code: 'RecoveryPointNotFound' });
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
  });

  test('of a test: cleaning up leaves nothing in Azure and the source side as it was', async () => {
    const site = await RecoverySite.replicated();
    const document = await site.run({ type: 'Test' });
    expect(document.vm?.name).toMatch(/^web-1-test-/);
    await site.finish('CleanedUp');
    site.expectNothingLeft();
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
    expect((await site.catalog()).activeFailover).toBeUndefined();
    // Replication goes on: the next barrier is accepted by the chain.
    site.machine.scribble();
    await site.machine.barrier();
  });

  test('whose disk does not hash to the root: nothing boots, what was made is removed, the source may go on', async () => {
    const site = await RecoverySite.replicated();
    const read = site.compute.read.bind(site.compute);
    site.compute.read = async (url, range) => {
      const bytes = (await read(url, range)).slice();
      bytes[100] = (bytes[100] ?? 0) ^ 1;
      return bytes;
    };
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure).toMatchObject({ step: 'VerifyDisks', code: 'RootMismatch' });
    expect(document.outcome).toBe('Failed');
    site.expectNothingLeft();
    const catalog = await site.catalog();
    expect(catalog.activeSide).toBe('Source');
    expect(catalog.writerEpoch).toBeGreaterThan(document.seal?.writerEpoch ?? 0);
  });

  test('whose machine somebody removes before it was heard: ends at its deadline, and says that it is gone', async () => {
    const site = await RecoverySite.replicated();
    site.compute.serial = 'booting';
    const asked = site.compute.vm.bind(site.compute);
    site.compute.vm = async (ref) => {
      const found = await asked(ref);
      if (found?.power === 'running') await site.compute.removeVm(ref);
      return found;
    };
    const document = await site.run({
      type: 'Unplanned',
      healthCheck: { serialContains: 'FARSHORE-RECOVERED', timeoutSeconds: 30 },
    });
    expect(document.failure?.code).toBe('HealthCheckFailed');
    expect(document.failure?.message).toContain('(gone)');
  });

  test('whose machine stays silent: fails its health check and leaves the machine to be looked at', async () => {
    const site = await RecoverySite.replicated();
    site.compute.serial = 'kernel panic';
    const document = await site.run({
      type: 'Unplanned',
      healthCheck: { serialContains: 'FARSHORE-RECOVERED', timeoutSeconds: 30 },
    });
    expect(document.failure?.code).toBe('HealthCheckFailed');
    expect(document.health?.evidence).toContain('kernel panic');
    expect([...site.compute.vms.keys()]).toEqual(['/recovery/vms/web-1']);
  });

  test('of a target that does not exist: refused with everything that is wrong, nothing touched', async () => {
    const site = await RecoverySite.replicated();
    site.compute.resourceGroups.clear();
    site.compute.sizes = [];
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure?.code).toBe('ResourceGroupNotFound');
    expect(document.failure?.message).toContain('VM size Standard_B2s is not offered');
    expect(site.compute.creates).toEqual([]);
    expect((await site.catalog()).activeFailover).toBeUndefined();
  });

  test('of a machine that is in another failover: refused', async () => {
    const site = await RecoverySite.replicated();
    await site.run({ type: 'Test' });
    const second = await site.run({ type: 'Unplanned' }, 'second');
    expect(second.failure).toMatchObject({ code: 'MachineBusy' });
    expect(second.failure?.message).toContain('first');
    expect((await site.catalog()).activeFailover).toBe('first');
  });

  test('applied again after its end: adopted, nothing made twice', async () => {
    const site = await RecoverySite.replicated();
    await site.run({ type: 'Unplanned' });
    const creates = [...site.compute.creates];
    const again = await site.run({ type: 'Unplanned' });
    expect(again.outcome).toBe('FailedOver');
    expect(site.compute.creates).toEqual(creates);
    await site.finish('Committed');
    expect(site.compute.creates).toEqual(creates);
  });

  test('to a named barrier that can not be proven, or past the end of the journal: says which', async () => {
    const site = await RecoverySite.replicated();
    site.machine.writeUnseen();
    const unproven = await site.machine.barrier();
    const name = String(unproven.lsn);
    const first = await site.run({ type: 'Test', recoveryPoint: { type: 'Name', name } });
    expect(first.failure).toMatchObject({ step: 'ApplyJournal', code: 'RecoveryPointNotProven' });
    const second = await site.run(
      { type: 'Test', recoveryPoint: { type: 'Name', name: '999999' } },
      'second',
    );
    expect(second.failure).toMatchObject({ step: 'ApplyJournal', code: 'RecoveryPointNotFound' });
    expect(second.failure?.message).toContain(`ends at LSN ${unproven.lsn}`);
  });

  test('over a damaged journal: ends clearly and frees the machine; what is whole is brought up next', async () => {
    const site = await RecoverySite.replicated();
    site.machine.scribble();
    await site.machine.barrier();
    await site.flipByteOfSegment(2);
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure?.code).toBe('JournalDamaged');
    expect(document.failure?.message).toContain('LatestProcessed');
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
    const second = await site.run(
      { type: 'Unplanned', recoveryPoint: { type: 'LatestProcessed' } },
      'second',
    );
    expect(second.outcome).toBe('FailedOver');
    site.expectDisksOf(0);
  });

  test('of a test that stays silent: keeps its machine until it is cleaned up, and then leaves nothing', async () => {
    const site = await RecoverySite.replicated();
    site.compute.serial = 'kernel panic';
    await site.run({
      type: 'Test',
      healthCheck: { serialContains: 'FARSHORE-RECOVERED', timeoutSeconds: 30 },
    });
    expect((await site.catalog()).activeFailover).toBe('first');
    await site.finish('CleanedUp');
    site.expectNothingLeft();
    expect((await site.catalog()).activeFailover).toBeUndefined();
  });

  test("of a name in Azure that is somebody else's: refused, and theirs stays", async () => {
    const site = await RecoverySite.replicated();
    await theirMachine(site);
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure).toMatchObject({ step: 'CreateVm', code: 'NameInUse' });
    expect([...site.compute.vms.keys()]).toEqual(['/recovery/vms/web-1']);
    expect([...site.compute.disks.keys()]).toEqual(['/recovery/disks/theirs']);
    expect([...site.compute.nics.keys()]).toEqual(['/recovery/nics/theirs']);
  });
});

async function theirMachine({ compute }: RecoverySite): Promise<void> {
  const osDiskId = '/recovery/disks/theirs';
  compute.disks.set(osDiskId, {
    id: osDiskId,
    state: 'Unattached',
    provisioning: 'Succeeded',
    sizeBytes: 1 << 20,
    tags: {},
    body: new Uint8Array(1 << 20),
    footer: new Uint8Array(512),
  });
  const nic = await compute.createNic(
    { resourceGroup: 'recovery', name: 'theirs' },
    { subnetId: 'recovery/production/default', tags: {} },
  );
  await compute.createVm(
    { resourceGroup: 'recovery', name: 'web-1' },
    { size: 'Standard_B2s', osDiskId, dataDisks: [], nicIds: [nic.id], tags: {} },
  );
}
