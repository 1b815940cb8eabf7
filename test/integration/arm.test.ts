/** The compute adapter on the emulator: from a page blob to a machine that boots, and what Azure refuses on the way. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { AzureDiskImageReader } from '../../platform/azure/diskImageReader.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { AzureResourceRef } from '../../platform/ports.ts';
import { testGroup, testLocation, uploadVhd } from '../arm/fixture.ts';
import {
  errorOf,
  expectCode,
  isAlive,
  MIB,
  machine,
  tags,
  workbenchOfFile,
} from '../arm/workbench.ts';
import { buildBootableImage } from '../machines/bootableImage.ts';

const bench = workbenchOfFile();
const BOOT_MS = 60_000;

describe('what is there', () => {
  test('resource groups, subnets and sizes are found, and what is not there is not', async () => {
    expect(await bench.compute.resourceGroupExists(testGroup)).toBe(true);
    expect(await bench.compute.resourceGroupExists('elsewhere')).toBe(false);
    expect((await bench.servers()).location).toBe(testLocation);
    const asked = { resourceGroup: testGroup, network: 'production', subnet: 'none' };
    expect(await bench.compute.subnet(asked)).toBeUndefined();
    expect(await bench.compute.subnet({ ...asked, network: 'none' })).toBeUndefined();
    expect(await bench.compute.disk(bench.fresh('disk'))).toBeUndefined();
    expect(await bench.compute.nic(bench.fresh('nic'))).toBeUndefined();
    expect(await bench.compute.vm(bench.fresh('vm'))).toBeUndefined();
  });

  test('sizes that the subscription may not use are not offered', async () => {
    const sizes = await bench.compute.vmSizes(testLocation);
    expect(sizes).toContainEqual({
      name: 'Standard_B2s',
      cores: 2,
      memoryBytes: 4 * 2 ** 30,
      maxDataDisks: 4,
      maxNics: 3,
      premiumDisks: true,
      generations: ['V1', 'V2'],
      zones: ['1', '2', '3'],
    });
    expect(sizes.map((size) => size.name)).not.toContain('Standard_M128s');
  });

  test('removing what is gone is no error', async () => {
    await bench.compute.removeDisk(bench.fresh('disk'));
    await bench.compute.removeNic(bench.fresh('nic'));
    await bench.compute.removeVm(bench.fresh('vm'));
  });
});

describe('from a page blob to a machine', () => {
  test('an imported disk reads byte for byte as its source, and boots', async () => {
    const image = path.join(bench.fixture.directory, 'machine.raw');
    const data = path.join(bench.fixture.directory, 'data.raw');
    await buildBootableImage({
      path: image,
      sizeMiB: 256,
      extraDisks: [{ path: data, sizeMiB: 32 }],
    });
    const osUrl = await uploadVhd(bench.fixture.container, { name: 'machine.vhd', image });
    const dataUrl = await uploadVhd(bench.fixture.container, { name: 'data.vhd', image: data });
    const [osRef, dataRef, nicRef, vmRef] = [
      bench.fresh('os'),
      bench.fresh('data'),
      bench.fresh('nic'),
      bench.fresh('vm'),
    ];

    const osDisk = await bench.compute.importDisk(osRef, bench.importing(osUrl));
    const dataDisk = await bench.compute.importDisk(
      dataRef,
      bench.importing(dataUrl, { os: undefined }),
    );
    expect(osDisk).toMatchObject({
      state: 'Unattached',
      provisioning: 'Succeeded',
      sizeBytes: 256 * MIB,
      tags,
    });

    const { url } = await bench.compute.grantDiskRead(osRef, { seconds: 3_600 });
    expect((await bench.compute.disk(osRef))?.state).toBe('ActiveSAS');
    expect((await readBack(url, 256 * MIB)).equals(readFileSync(image))).toBe(true);
    await bench.compute.revokeDiskRead(osRef);
    await expect(imageReader().size(url)).rejects.toMatchObject({ code: 'VaultRefusedKey' });

    const subnetId = (await bench.servers()).id;
    const nic = await bench.compute.createNic(nicRef, { location: testLocation, subnetId, tags });
    expect(nic.privateIp).toMatch(/^10\.1\.0\.\d+$/);
    const others = bench.fixture.emulator.machineProcesses();
    const vm = await bench.compute.createVm(vmRef, {
      ...machine({ osDiskId: osDisk.id, nicIds: [nic.id] }),
      dataDisks: [{ lun: 3, id: dataDisk.id }],
    });
    expect(vm).toMatchObject({ provisioning: 'Succeeded', power: 'running', tags });
    expect((await bench.compute.disk(osRef))?.state).toBe('Attached');

    const log = await serialLogWith(vmRef, /FARSHORE-RECOVERED .*/);
    expect(log).toContain('FARSHORE-RECOVERED record=none intact=no');
    expect(log).toMatch(/FARSHORE-FILESYSTEM device=sd[ab]2 .*fsck=clean/);
    expect(log).toMatch(/FARSHORE-FILESYSTEM device=sd[ab] .*fsck=clean/);

    const all = bench.fixture.emulator.machineProcesses();
    const running = all.filter((pid) => !others.includes(pid));
    expect(running).toHaveLength(1);
    await bench.compute.removeVm(vmRef);
    expect(running.filter(isAlive)).toEqual([]);
    await bench.compute.removeNic(nicRef);
    await bench.compute.removeDisk(osRef);
    await bench.compute.removeDisk(dataRef);
    const left = await bench.fixture.emulator.control.resources();
    const names = [osRef, dataRef, nicRef, vmRef].map((ref) => ref.name);
    expect(left.filter((one) => names.includes(one.name))).toEqual([]);
  }, 120_000);

  test('a machine whose boot sector is overwritten does not come up', async () => {
    await bench.fixture.emulator.control.change({ wipeBootSector: true });
    const image = path.join(bench.fixture.directory, 'broken.raw');
    await buildBootableImage({ path: image, sizeMiB: 256 });
    const url = await uploadVhd(bench.fixture.container, { name: 'broken.vhd', image });
    const [diskRef, vmRef] = [bench.fresh('disk'), bench.fresh('vm')];
    const disk = await bench.compute.importDisk(diskRef, bench.importing(url));
    const nic = await bench.someNic();
    await bench.compute.createVm(vmRef, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
    const log = await serialLogWith(vmRef, /No bootable device/);
    expect(log).not.toContain('FARSHORE');
    await bench.compute.removeVm(vmRef);
  }, 90_000);
});

function imageReader(): AzureDiskImageReader {
  const deps = { clock: systemClock, random: systemRandom };
  return new AzureDiskImageReader(deps, { caBundle: bench.fixture.emulator.ca });
}

async function readBack(url: string, size: number): Promise<Buffer> {
  const reader = imageReader();
  expect(await reader.size(url)).toBe(size + 512);
  const body = Buffer.alloc(size);
  for await (const range of reader.ranges(url))
    for (let offset = range.offset; offset < Math.min(range.offset + range.length, size); ) {
      const length = Math.min(4 * MIB, range.offset + range.length - offset, size - offset);
      body.set(await reader.read(url, { offset, length }), offset);
      offset += length;
    }
  return body;
}

async function serialLogWith(vm: AzureResourceRef, pattern: RegExp): Promise<string> {
  for (const deadline = Date.now() + BOOT_MS; ; ) {
    const log = await bench.compute.serialLog(vm);
    if (pattern.test(log)) return log;
    if (Date.now() > deadline) throw new Error(`no ${pattern} in ${log}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

describe('what Azure refuses to import', () => {
  test.each([
    [
      'a snapshot',
      (url: string) => bench.importing(`${url}?snapshot=2026-01-01T00:00:00.0000000Z`),
    ],
    [
      'a blob of another region',
      (url: string) => bench.importing(url, { location: 'northeurope' }),
    ],
    ['the wrong account id', (url: string) => bench.importing(url, { storageAccountId: '/x/y' })],
    ['a zone that is not there', (url: string) => bench.importing(url, { zone: '7' })],
    ['a blob of nobody', () => bench.importing('http://127.0.0.1:1/a/b/c.vhd')],
  ])('%s', async (_what, options) => {
    const { url } = await bench.smallVhd();
    const ref = bench.fresh('disk');
    const error = await expectCode(bench.compute.importDisk(ref, options(url)), 'InvalidRequest');
    expect(error.message).toContain(ref.name);
    expect(await bench.compute.disk(ref)).toBeUndefined();
  });

  test('a blob that does not exist', async () => {
    const url = `${bench.fixture.container.url}/missing.vhd`;
    await expectCode(
      bench.compute.importDisk(bench.fresh('disk'), bench.importing(url)),
      'NotFound',
    );
  });

  test('a blob without a footer, or of a length that is no whole MiB', async () => {
    const raw = bench.fixture.container.getPageBlobClient('raw.vhd');
    await raw.create(2 * MIB + 512);
    const noFooter = await errorOf(
      bench.compute.importDisk(bench.fresh('disk'), bench.importing(raw.url)),
    );
    expect(noFooter).toMatchObject({ code: 'InvalidRequest', azureCode: 'InvalidVhd' });
    await raw.resize(2 * MIB);
    const badSize = await errorOf(
      bench.compute.importDisk(bench.fresh('disk'), bench.importing(raw.url)),
    );
    expect(badSize).toMatchObject({ code: 'InvalidRequest', azureCode: 'InvalidVhdSize' });
  });
});

describe('states that contradict a call', () => {
  test('a disk that is being read can be neither attached nor removed', async () => {
    const disk = await bench.someDisk();
    const nic = await bench.someNic();
    await bench.compute.grantDiskRead(disk.ref, { seconds: 60 });
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    await expectCode(bench.compute.createVm(bench.fresh('vm'), vm), 'Conflict');
    await expectCode(bench.compute.removeDisk(disk.ref), 'Conflict');
    await bench.compute.revokeDiskRead(disk.ref);
    await bench.compute.removeDisk(disk.ref);
  });

  test('granting twice is as good as once', async () => {
    const disk = await bench.someDisk();
    const first = await bench.compute.grantDiskRead(disk.ref, { seconds: 60 });
    const second = await bench.compute.grantDiskRead(disk.ref, { seconds: 60 });
    expect(new URL(second.url).pathname).toBe(new URL(first.url).pathname);
    await bench.compute.revokeDiskRead(disk.ref);
    await bench.compute.revokeDiskRead(disk.ref);
    expect((await bench.compute.disk(disk.ref))?.state).toBe('Unattached');
  });

  test('what a machine uses can be neither removed, read, nor used by another', async () => {
    await bench.fixture.emulator.control.change({ bootMachines: false });
    const disk = await bench.someDisk();
    const other = await bench.someDisk();
    const nic = await bench.someNic();
    const vm = bench.fresh('vm');
    await bench.compute.createVm(vm, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
    await expectCode(bench.compute.removeDisk(disk.ref), 'Conflict');
    await expectCode(bench.compute.removeNic(nic.ref), 'Conflict');
    await expectCode(bench.compute.grantDiskRead(disk.ref, { seconds: 60 }), 'Conflict');
    const second = machine({ osDiskId: disk.id, nicIds: [(await bench.someNic()).id] });
    await expectCode(bench.compute.createVm(bench.fresh('vm'), second), 'Conflict');
    const sameNic = machine({ osDiskId: other.id, nicIds: [nic.id] });
    await expectCode(bench.compute.createVm(bench.fresh('vm'), sameNic), 'Conflict');
    await bench.compute.removeVm(vm);
    await bench.compute.removeDisk(disk.ref);
    await bench.compute.removeNic(nic.ref);
  });

  test('an address that is taken, or not in the subnet, is refused; a full subnet says so', async () => {
    const subnetId = (await bench.servers()).id;
    const fixed = { location: testLocation, subnetId, privateIp: '10.1.0.200', tags };
    const nic = await bench.compute.createNic(bench.fresh('nic'), fixed);
    expect(nic.privateIp).toBe('10.1.0.200');
    await expectCode(bench.compute.createNic(bench.fresh('nic'), fixed), 'Conflict');
    const outside = { ...fixed, privateIp: '10.2.0.5' };
    await expectCode(bench.compute.createNic(bench.fresh('nic'), outside), 'InvalidRequest');
    const nowhere = { ...fixed, subnetId: `${subnetId}-none` };
    await expectCode(bench.compute.createNic(bench.fresh('nic'), nowhere), 'NotFound');
    // Eight addresses, of which Azure keeps five.
    const tiny = { ...fixed, subnetId: subnetId.replace(/servers$/, 'tiny'), privateIp: undefined };
    for (const _ of [1, 2, 3]) await bench.compute.createNic(bench.fresh('nic'), { ...tiny });
    const full = await expectCode(
      bench.compute.createNic(bench.fresh('nic'), { ...tiny }),
      'QuotaExceeded',
    );
    expect(full.azureCode).toBe('SubnetIsFull');
  });

  test('a target that does not fit is refused with what is wrong', async () => {
    const disk = await bench.someDisk();
    const nic = await bench.someNic();
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    const noSize = await expectCode(
      bench.compute.createVm(bench.fresh('vm'), { ...vm, size: 'Standard_Nope' }),
      'InvalidRequest',
    );
    expect(noSize.message).toContain('Standard_Nope');
    await expectCode(bench.compute.createVm(bench.fresh('vm'), { ...vm, zone: '1' }), 'Conflict');
    const elsewhere = { ...bench.fresh('vm'), resourceGroup: 'elsewhere' };
    await expectCode(bench.compute.createVm(elsewhere, vm), 'NotFound');
    await bench.fixture.emulator.control.change({ coresQuota: 1 });
    const quota = await expectCode(bench.compute.createVm(bench.fresh('vm'), vm), 'QuotaExceeded');
    expect(quota.message).toContain('quota');
    expect((await bench.compute.disk(disk.ref))?.state).toBe('Unattached');
  });
});
