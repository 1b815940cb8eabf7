/** The compute adapter on the emulator: what every Compute does, and what only Azure does: machines that boot, zones, quotas. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { AzureDiskImageReader } from '../../platform/azure/diskImageReader.ts';
import { openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { AzureResourceRef } from '../../platform/ports.ts';
import { testGroup, testLocation, uploadVhd } from '../arm/fixture.ts';
import { expectCode, isAlive, MIB, machine, tags, workbenchOfFile } from '../arm/workbench.ts';
import { computeConformance } from '../conformance/compute.ts';
import { buildBootableImage } from '../machines/bootableImage.ts';

const bench = workbenchOfFile();
const deps = { clock: systemClock, random: systemRandom };
const BOOT_MS = 60_000;

describe('AzureCompute on the emulator', () => {
  // The suite is about machines that are there, not about what runs in them.
  beforeEach(async () => await bench.fixture.emulator.control.change({ bootMachines: false }));

  computeConformance(() => ({
    compute: bench.compute,
    images: imageReader(),
    pages: openVaultStores(deps, {
      connectionString: bench.fixture.azurite.connectionString,
      container: bench.fixture.container.containerName,
    }).pages,
    storageAccountId: bench.fixture.account.id,
    resourceGroup: testGroup,
    location: testLocation,
    subnet: { resourceGroup: testGroup, network: 'production', subnet: 'servers' },
    address: '10.1.0.210',
    size: 'Standard_B2s',
  }));
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

describe('what Azure refuses of where things are to be', () => {
  test.each([
    ['the wrong account id', { storageAccountId: '/x/y' }],
    ['a zone that is not there', { zone: '7' }],
  ])('a disk: %s', async (_what, change) => {
    const { url } = await bench.smallVhd();
    const ref = bench.fresh('disk');
    const importing = bench.compute.importDisk(ref, bench.importing(url, change));
    const error = await expectCode(importing, 'InvalidRequest');
    expect(error.message).toContain(ref.name);
    expect(await bench.compute.disk(ref)).toBeUndefined();
  });

  test('an address that is not in the subnet; a full subnet says so', async () => {
    const subnetId = (await bench.servers()).id;
    const fixed = { location: testLocation, subnetId, privateIp: '10.2.0.5', tags };
    await expectCode(bench.compute.createNic(bench.fresh('nic'), fixed), 'InvalidRequest');
    // Eight addresses, of which Azure keeps five.
    const tiny = { ...fixed, subnetId: subnetId.replace(/servers$/, 'tiny'), privateIp: undefined };
    for (const _ of [1, 2, 3]) await bench.compute.createNic(bench.fresh('nic'), { ...tiny });
    const full = await expectCode(
      bench.compute.createNic(bench.fresh('nic'), { ...tiny }),
      'QuotaExceeded',
    );
    expect(full.azureCode).toBe('SubnetIsFull');
  });

  test('a machine in another zone than its disk, or over the quota, which says so', async () => {
    const disk = await bench.someDisk();
    const nic = await bench.someNic();
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    await expectCode(bench.compute.createVm(bench.fresh('vm'), { ...vm, zone: '1' }), 'Conflict');
    await bench.fixture.emulator.control.change({ coresQuota: 1 });
    const quota = await expectCode(bench.compute.createVm(bench.fresh('vm'), vm), 'QuotaExceeded');
    expect(quota.message).toContain('quota');
    expect((await bench.compute.disk(disk.ref))?.state).toBe('Unattached');
  });
});
