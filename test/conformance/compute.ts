import { describe, expect, test } from 'vitest';
import type { ComputeErrorCode } from '../../platform/computeErrors.ts';
import type { AzureResourceRef } from '../../platform/ports.ts';
import { type ComputeSite, Maker, ours, theirs } from './computeMaker.ts';

/** What every Compute must do, and the DiskImageReader beside it. Names of each test are its own, so a site may be shared. */
export function computeConformance(open: () => ComputeSite): void {
  let tests = 0;
  const fresh = () => new Maker(open(), `conformance-${++tests}`);

  describe('what is there', () => {
    test('what is not there reads as undefined', async () => {
      const { compute, ref, site } = fresh();
      expect(await compute.resourceGroupExists(site.resourceGroup)).toBe(true);
      expect(await compute.resourceGroupExists('elsewhere')).toBe(false);
      const subnet = { ...site.subnet };
      expect(await compute.subnet({ ...subnet, subnet: 'none' })).toBeUndefined();
      expect(await compute.subnet({ ...subnet, network: 'none' })).toBeUndefined();
      expect(await compute.subnet({ ...subnet, resourceGroup: 'elsewhere' })).toBeUndefined();
      for (const none of [ref('none'), { ...ref('none'), resourceGroup: 'elsewhere' }]) {
        expect(await compute.disk(none)).toBeUndefined();
        expect(await compute.nic(none)).toBeUndefined();
        expect(await compute.vm(none)).toBeUndefined();
      }
    });

    test('a subnet is told with its place, sizes are those of the place that is asked for', async () => {
      const { compute, site } = fresh();
      expect(await compute.subnet(site.subnet)).toEqual({
        id: expect.any(String),
        location: site.location,
      });
      const sizes = await compute.vmSizes(site.location);
      expect(sizes.map((size) => size.name)).toContain(site.size);
      expect(await compute.vmSizes('nowhere')).toEqual([]);
    });

    test('removing what is gone is no error', async () => {
      const { compute, ref } = fresh();
      for (const none of [ref('none'), { ...ref('none'), resourceGroup: 'elsewhere' }]) {
        await compute.removeDisk(none);
        await compute.removeNic(none);
        await compute.removeVm(none);
      }
    });

    test('names are the same whatever their case', async () => {
      const maker = fresh();
      const { compute } = maker;
      const { ref, body } = await maker.disk();
      const shouted = { ...ref, name: ref.name.toUpperCase() };
      expect(await compute.disk(shouted)).toEqual(await compute.disk(ref));
      const importing = maker.importing(await maker.vhd(body), { tags: theirs });
      await expectCode(compute.importDisk(shouted, importing), 'Conflict');
      await compute.removeDisk(shouted);
      expect(await compute.disk(ref)).toBeUndefined();
    });
  });

  describe('a create', () => {
    test('answers what a read finds', async () => {
      const maker = fresh();
      const { compute } = maker;
      const [disk, nic] = [await maker.disk(), await maker.nic()];
      const vmRef = maker.ref('vm');
      const vm = await compute.createVm(vmRef, maker.machine({ disks: [disk], nics: [nic] }));
      expect(await compute.nic(nic.ref)).toEqual(nic.made);
      expect(await compute.vm(vmRef)).toEqual(vm);
      expect(await compute.disk(disk.ref)).toEqual({ ...disk.made, state: 'Attached' });
      expect([disk.made.tags, nic.made.tags, vm.tags]).toEqual([ours, ours, ours]);
      // What was answered stays as it was, whatever becomes of the resource.
      expect(disk.made.state).toBe('Unattached');
      await compute.removeVm(vmRef);
    });

    test('of what is there already answers that, as it is: whoever goes on for a dead process calls again', async () => {
      const maker = fresh();
      const { compute, site } = maker;
      const url = await maker.vhd(maker.content());
      const [diskRef, vmRef] = [maker.ref('disk'), maker.ref('vm')];
      const made = await compute.importDisk(diskRef, maker.importing(url));
      const disk = { ref: diskRef, made };
      const nic = await maker.nic();
      const vm = await compute.createVm(vmRef, maker.machine({ disks: [disk], nics: [nic] }));

      const tags = { ...ours, owner: 'somebody new' };
      await site.pages.remove(maker.keyOf(url));
      const importedAgain = await compute.importDisk(diskRef, maker.importing(url, { tags }));
      expect(importedAgain).toEqual({ ...made, state: 'Attached' });
      const nicOptions = await maker.interfacing({ privateIp: site.address, tags });
      expect(await compute.createNic(nic.ref, nicOptions)).toEqual(nic.made);
      const again = maker.machine({ disks: [disk], nics: [nic] });
      expect(await compute.createVm(vmRef, { ...again, tags })).toEqual(vm);
      await compute.removeVm(vmRef);
    });

    test('of what another failover made is refused, and theirs stays', async () => {
      const maker = fresh();
      const { compute } = maker;
      const [disk, nic] = [await maker.disk(), await maker.nic()];
      const vmRef = maker.ref('vm');
      const machine = maker.machine({ disks: [disk], nics: [nic] });
      const vm = await compute.createVm(vmRef, machine);
      for (const tags of [theirs, {}]) {
        const importing = maker.importing(await maker.vhd(maker.content()), { tags });
        await expectCode(compute.importDisk(disk.ref, importing), 'Conflict');
        await expectCode(compute.createNic(nic.ref, await maker.interfacing({ tags })), 'Conflict');
        await expectCode(compute.createVm(vmRef, { ...machine, tags }), 'Conflict');
      }
      expect(await compute.disk(disk.ref)).toEqual({ ...disk.made, state: 'Attached' });
      expect(await compute.nic(nic.ref)).toEqual(nic.made);
      expect(await compute.vm(vmRef)).toEqual(vm);
      await compute.removeVm(vmRef);
    });

    test('by two at once makes one thing, and both get it', async () => {
      const maker = fresh();
      const { compute } = maker;
      const twice = <T>(create: () => Promise<T>) => Promise.all([create(), create()]);
      const importing = maker.importing(await maker.vhd(maker.content()));
      const [diskRef, nicRef, vmRef] = [maker.ref('disk'), maker.ref('nic'), maker.ref('vm')];
      const disks = await twice(() => compute.importDisk(diskRef, importing));
      const interfacing = await maker.interfacing();
      const nics = await twice(() => compute.createNic(nicRef, interfacing));
      const machine = maker.machine({ disks: [{ made: disks[0] }], nics: [{ made: nics[0] }] });
      const vms = await twice(() => compute.createVm(vmRef, machine));
      for (const [one, other] of [disks, nics, vms]) expect(one).toEqual(other);
      await compute.removeVm(vmRef);
    });

    test('in a resource group that is not there is refused', async () => {
      const maker = fresh();
      const { compute } = maker;
      const [disk, nic] = [await maker.disk(), await maker.nic()];
      const ref = { ...maker.ref('none'), resourceGroup: 'elsewhere' };
      const importing = maker.importing(await maker.vhd(maker.content()));
      await expectCode(compute.importDisk(ref, importing), 'NotFound');
      await expectCode(compute.createNic(ref, await maker.interfacing()), 'NotFound');
      const machine = maker.machine({ disks: [disk], nics: [nic] });
      await expectCode(compute.createVm(ref, machine), 'NotFound');
    });
  });

  describe('a disk', () => {
    test('reads back byte for byte as the VHD that it was made of', async () => {
      const maker = fresh();
      const { ref, made, body } = await maker.disk();
      expect(made).toMatchObject({
        state: 'Unattached',
        provisioning: 'Succeeded',
        sizeBytes: body.length,
      });
      await maker.expectContent(ref, body);
    });

    test('holds what it was made of, whatever becomes of the blob', async () => {
      const maker = fresh();
      const { compute, site } = maker;
      const body = maker.content();
      const url = await maker.vhd(body);
      const [first, second] = [maker.ref('first'), maker.ref('second')];
      await compute.importDisk(first, maker.importing(url));
      const key = maker.keyOf(url);
      const fence = await site.pages.fence(key, { sequenceNumber: 3, leaseSeconds: 60 });
      await site.pages.write(key, new Uint8Array(512).fill(0xee), 0, fence);
      await site.pages.release(key, fence);
      await compute.importDisk(second, maker.importing(url));
      await site.pages.remove(key);
      await maker.expectContent(first, body);
      body.fill(0xee, 0, 512);
      await maker.expectContent(second, body);
    });

    test('is not made of what is no VHD, or out of reach: the refusal names it, and nothing is left', async () => {
      const maker = fresh();
      const { compute, site } = maker;
      const url = await maker.vhd(maker.content());
      const cases: [ComputeErrorCode, ReturnType<Maker['importing']>][] = [
        ['NotFound', maker.importing(`${url}-none`)],
        ['InvalidRequest', maker.importing(`${url}?snapshot=2026-01-01T00:00:00.0000000Z`)],
        ['InvalidRequest', maker.importing(url, { location: 'northeurope' })],
        ['InvalidRequest', maker.importing('http://127.0.0.1:1/a/b/c.vhd')],
        ['InvalidRequest', maker.importing(await maker.blob('no footer', (2 << 20) + 512))],
        ['InvalidRequest', maker.importing(await maker.blob('no whole MiB', 2 << 20))],
        ['InvalidRequest', maker.importing(await maker.blob('a footer alone', 512))],
      ];
      for (const [index, [code, options]] of cases.entries()) {
        const ref = maker.ref(`refused-${index}`);
        await expectCode(compute.importDisk(ref, options), code, ref);
        expect(await compute.disk(ref)).toBeUndefined();
      }
      expect(await site.pages.info(maker.keyOf(url))).toBeDefined();
    });

    test('that is being read can be neither attached nor removed, until that is revoked', async () => {
      const maker = fresh();
      const { compute } = maker;
      const [disk, nic] = [await maker.disk(), await maker.nic()];
      await compute.grantDiskRead(disk.ref, { seconds: 60 });
      expect((await compute.disk(disk.ref))?.state).toBe('ActiveSAS');
      const machine = maker.machine({ disks: [disk], nics: [nic] });
      await expectCode(compute.createVm(maker.ref('vm'), machine), 'Conflict');
      await expectCode(compute.removeDisk(disk.ref), 'Conflict');
      await compute.revokeDiskRead(disk.ref);
      expect((await compute.disk(disk.ref))?.state).toBe('Unattached');
      await compute.removeDisk(disk.ref);
      expect(await compute.disk(disk.ref)).toBeUndefined();
    });

    test('is read by the URL that was granted last, until it is revoked; both may be done again', async () => {
      const maker = fresh();
      const { compute, site } = maker;
      const { ref, body } = await maker.disk();
      await compute.grantDiskRead(ref, { seconds: 60 });
      const { url } = await compute.grantDiskRead(ref, { seconds: 60 });
      const range = { offset: 0, length: 4096 };
      expect(Buffer.compare(await site.images.read(url, range), body.subarray(0, 4096))).toBe(0);
      await compute.revokeDiskRead(ref);
      await compute.revokeDiskRead(ref);
      const refused = { code: 'VaultRefusedKey' };
      await expect(site.images.size(url)).rejects.toMatchObject(refused);
      // Nor does it come to life with another one.
      await maker.expectContent(ref, body, async () => {
        await expect(site.images.read(url, range)).rejects.toMatchObject(refused);
      });
    });

    test('that is not there can neither be granted nor revoked', async () => {
      const { compute, ref } = fresh();
      await expectCode(compute.grantDiskRead(ref('none'), { seconds: 60 }), 'NotFound');
      await expectCode(compute.revokeDiskRead(ref('none')), 'NotFound');
    });
  });

  describe('a network interface', () => {
    test('has an address of its own, or the one that is asked for', async () => {
      const maker = fresh();
      const { site } = maker;
      const dynamic = [await maker.nic(), await maker.nic()];
      const fixed = await maker.nic({ privateIp: site.address });
      expect(fixed.made.privateIp).toBe(site.address);
      const addresses = [...dynamic, fixed].map(({ made }) => made.privateIp);
      expect(new Set(addresses).size).toBe(3);
      const ref = maker.ref('taken');
      const taken = await maker.interfacing({ privateIp: site.address });
      await expectCode(maker.compute.createNic(ref, taken), 'Conflict');
      expect(await maker.compute.nic(ref)).toBeUndefined();
      await maker.compute.removeNic(fixed.ref);
      expect((await maker.compute.createNic(ref, taken)).privateIp).toBe(site.address);
      await maker.compute.removeNic(ref);
    });

    test('is not made in a subnet that is not there', async () => {
      const maker = fresh();
      const { subnetId, ...rest } = await maker.interfacing();
      const nowhere = { ...rest, subnetId: `${subnetId}-none` };
      await expectCode(maker.compute.createNic(maker.ref('nic'), nowhere), 'NotFound');
    });
  });

  describe('a machine', () => {
    test('holds its disks and interfaces until it is removed, and leaves them as they were', async () => {
      const maker = fresh();
      const { compute } = maker;
      const [os, data, spare] = [await maker.disk(), await maker.disk(), await maker.disk()];
      const [nic, spareNic] = [await maker.nic(), await maker.nic()];
      const ref = maker.ref('vm');
      const vm = await compute.createVm(ref, maker.machine({ disks: [os, data], nics: [nic] }));
      expect(vm).toMatchObject({ provisioning: 'Succeeded', power: 'running' });
      for (const disk of [os, data]) {
        expect((await compute.disk(disk.ref))?.state).toBe('Attached');
        await expectCode(compute.removeDisk(disk.ref), 'Conflict');
        await expectCode(compute.grantDiskRead(disk.ref, { seconds: 60 }), 'Conflict');
        const second = maker.machine({ disks: [disk], nics: [spareNic] });
        await expectCode(compute.createVm(maker.ref('second'), second), 'Conflict');
      }
      await expectCode(compute.removeNic(nic.ref), 'Conflict');
      const second = maker.machine({ disks: [spare], nics: [nic] });
      await expectCode(compute.createVm(maker.ref('second'), second), 'Conflict');

      await compute.removeVm(ref);
      expect(await compute.vm(ref)).toBeUndefined();
      for (const disk of [os, data]) {
        expect((await compute.disk(disk.ref))?.state).toBe('Unattached');
        await maker.expectContent(disk.ref, disk.body);
        await compute.removeDisk(disk.ref);
      }
      await compute.removeNic(nic.ref);
      expect(await compute.nic(nic.ref)).toBeUndefined();
    });

    test('that is refused holds nothing', async () => {
      const maker = fresh();
      const { compute, site } = maker;
      const [os, read, nic] = [await maker.disk(), await maker.disk(), await maker.nic()];
      const none = { made: { id: `${os.made.id}-none` } };
      const noNic = { made: { id: `${nic.made.id}-none` } };
      await compute.grantDiskRead(read.ref, { seconds: 60 });
      const good = maker.machine({ disks: [os], nics: [nic] });
      const cases: [ComputeErrorCode, typeof good][] = [
        ['InvalidRequest', { ...good, size: `${site.size}_none` }],
        ['InvalidRequest', { ...good, nicIds: [] }],
        ['NotFound', maker.machine({ disks: [os, none], nics: [nic] })],
        ['NotFound', maker.machine({ disks: [os], nics: [nic, noNic] })],
        ['Conflict', maker.machine({ disks: [os, read], nics: [nic] })],
      ];
      const ref = maker.ref('vm');
      for (const [code, options] of cases) {
        await expectCode(compute.createVm(ref, options), code);
        expect(await compute.vm(ref)).toBeUndefined();
        expect((await compute.disk(os.ref))?.state).toBe('Unattached');
      }
      await compute.removeDisk(os.ref);
      await compute.removeNic(nic.ref);
    });

    test('has a serial log, empty or not, as long as it is there', async () => {
      const maker = fresh();
      const { compute } = maker;
      const ref = maker.ref('vm');
      await expectCode(compute.serialLog(ref), 'NotFound');
      const [disk, nic] = [await maker.disk(), await maker.nic()];
      await compute.createVm(ref, maker.machine({ disks: [disk], nics: [nic] }));
      expect(await compute.serialLog(ref)).toEqual(expect.any(String));
      await compute.removeVm(ref);
      await expectCode(compute.serialLog(ref), 'NotFound');
    });
  });
}

async function expectCode(
  promise: Promise<unknown>,
  code: ComputeErrorCode,
  named?: AzureResourceRef,
): Promise<void> {
  await expect(promise).rejects.toMatchObject({
    code,
    message: expect.stringContaining(named?.name ?? ''),
  });
}
