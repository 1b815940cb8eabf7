import { expect, test } from 'vitest';
import { RecoverySite } from '../test/fixtures/recoverySite.ts';

test('verify None reads no disk back: VerifyDisks is no step of it, and the machine boots what was imported', async () => {
  const site = await RecoverySite.replicated();
  const reads: string[] = [];
  const { compute } = site;
  const grant = compute.grantDiskRead.bind(compute);
  compute.grantDiskRead = async (ref) => {
    reads.push(ref.name);
    return await grant(ref);
  };
  const document = await site.run({ type: 'Unplanned', verify: 'None' });
  expect(document.outcome).toBe('FailedOver');
  expect(document.steps.map((step) => step.name)).not.toContain('VerifyDisks');
  expect(reads).toEqual([]);
  // Nothing is claimed of disks that nobody looked at.
  expect(document.disks?.map((disk) => disk.rootMatches)).toEqual([undefined, undefined]);
  site.expectDisksOf(0);
});

test('verify Full reads every disk back before the machine starts', async () => {
  const site = await RecoverySite.replicated();
  const read: string[] = [];
  const { compute } = site;
  const grant = compute.grantDiskRead.bind(compute);
  compute.grantDiskRead = async (ref) => {
    expect(compute.vms.size).toBe(0);
    read.push(ref.name);
    return await grant(ref);
  };
  const document = await site.run({ type: 'Unplanned', verify: 'Full' });
  expect(document.outcome).toBe('FailedOver');
  expect(read.sort()).toEqual(document.disks?.map((disk) => disk.managedDisk.name).sort());
  expect(document.disks?.map((disk) => disk.rootMatches)).toEqual([true, true]);
});

test('with verify None even disks that differ boot: nobody looked', async () => {
  const site = await RecoverySite.replicated();
  const read = site.compute.read.bind(site.compute);
  site.compute.read = async (url, range) => (await read(url, range)).map((byte) => byte ^ 1);
  expect((await site.run({ type: 'Test', verify: 'None' })).outcome).toBe('FailedOver');
  await site.finish('CleanedUp');
  const looked = await site.run({ type: 'Test', verify: 'Full' }, 'second');
  expect(looked.failure).toMatchObject({ step: 'VerifyDisks', code: 'RootMismatch' });
});
