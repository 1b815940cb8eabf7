import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { customCloud } from '../../platform/azure/cloud.ts';
import { AzureDiskImageReader } from '../../platform/azure/diskImageReader.ts';
import { azureCredential } from '../../platform/azure/login.ts';
import { ComputeError, type ComputeErrorCode } from '../../platform/computeErrors.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { AzureResourceRef, Compute } from '../../platform/ports.ts';
import { spawnEmulator } from '../arm/client.ts';
import { defaultSettings } from '../arm/context.ts';
import { emulatorDefaults } from '../arm/emulator.ts';
import {
  type ArmFixture,
  computeFor,
  emulatorOptions,
  startArmFixture,
  testGroup,
  testLocation,
  uploadVhd,
} from '../arm/fixture.ts';
import { buildBootableImage } from '../machines/bootableImage.ts';

const MIB = 1 << 20;
const tags = { 'farshore-failover': 'f1', owner: 'tests' };
const BOOT_MS = 60_000;

let fixture: ArmFixture;
let compute: Compute;
let serial = 0;

beforeAll(async () => {
  fixture = await startArmFixture();
  compute = computeFor(fixture.emulator);
});

afterEach(async () => {
  await fixture.emulator.control.clearFaults();
  await fixture.emulator.control.change(defaultSettings);
});

afterAll(async () => {
  await fixture?.stop();
});

/** A name that no other test has. */
function fresh(kind: string): AzureResourceRef {
  return { resourceGroup: testGroup, name: `${kind}-${++serial}` };
}

async function smallVhd(): Promise<{ url: string; body: Buffer }> {
  const body = Buffer.alloc(3 * MIB);
  randomBytes(5_000).copy(body, MIB - 100);
  randomBytes(512).copy(body, 3 * MIB - 512);
  const url = await uploadVhd(fixture.container, { name: `small-${++serial}.vhd`, image: body });
  return { url, body };
}

function importing(sourceUrl: string, change: Partial<Parameters<Compute['importDisk']>[1]> = {}) {
  return {
    location: testLocation,
    sourceUrl,
    storageAccountId: fixture.account.id,
    type: 'Standard_LRS' as const,
    os: { type: 'Linux', generation: 'V1' } as const,
    tags,
    ...change,
  };
}

async function servers(): Promise<{ id: string; location: string }> {
  const subnet = await compute.subnet({
    resourceGroup: testGroup,
    network: 'production',
    subnet: 'servers',
  });
  if (subnet === undefined) throw new Error('the fixture has no subnet');
  return subnet;
}

async function someNic(): Promise<{ ref: AzureResourceRef; id: string }> {
  const ref = fresh('nic');
  const subnetId = (await servers()).id;
  const nic = await compute.createNic(ref, { location: testLocation, subnetId, tags });
  return { ref, id: nic.id };
}

async function someDisk(): Promise<{ ref: AzureResourceRef; id: string; body: Buffer }> {
  const { url, body } = await smallVhd();
  const ref = fresh('disk');
  const disk = await compute.importDisk(ref, importing(url));
  return { ref, id: disk.id, body };
}

function machine(options: { osDiskId: string; nicIds: string[] }) {
  return {
    location: testLocation,
    size: 'Standard_B2s',
    osType: 'Linux' as const,
    dataDisks: [],
    tags,
    ...options,
  };
}

async function errorOf(promise: Promise<unknown>): Promise<ComputeError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ComputeError) return error;
    throw error;
  }
  throw new Error('it succeeded');
}

async function expectCode(
  promise: Promise<unknown>,
  code: ComputeErrorCode,
): Promise<ComputeError> {
  const error = await errorOf(promise);
  expect({ code: error.code, message: error.message }).toEqual({ code, message: error.message });
  return error;
}

async function createdTimes(kind: string, ref: AzureResourceRef): Promise<number> {
  return (await fixture.emulator.control.creations())[`${kind}/${ref.name}`] ?? 0;
}

describe('what is there', () => {
  test('resource groups, subnets and sizes are found, and what is not there is not', async () => {
    expect(await compute.resourceGroupExists(testGroup)).toBe(true);
    expect(await compute.resourceGroupExists('elsewhere')).toBe(false);
    expect((await servers()).location).toBe(testLocation);
    const asked = { resourceGroup: testGroup, network: 'production', subnet: 'none' };
    expect(await compute.subnet(asked)).toBeUndefined();
    expect(await compute.subnet({ ...asked, network: 'none' })).toBeUndefined();
    expect(await compute.disk(fresh('disk'))).toBeUndefined();
    expect(await compute.nic(fresh('nic'))).toBeUndefined();
    expect(await compute.vm(fresh('vm'))).toBeUndefined();
  });

  test('sizes that the subscription may not use are not offered', async () => {
    const sizes = await compute.vmSizes(testLocation);
    expect(sizes).toContainEqual({
      name: 'Standard_B2s',
      cores: 2,
      memoryBytes: 4 * 2 ** 30,
      maxDataDisks: 4,
      maxNics: 3,
      premiumDisks: true,
    });
    expect(sizes.map((size) => size.name)).not.toContain('Standard_M128s');
  });

  test('removing what is gone is no error', async () => {
    await compute.removeDisk(fresh('disk'));
    await compute.removeNic(fresh('nic'));
    await compute.removeVm(fresh('vm'));
  });
});

describe('from a page blob to a machine', () => {
  test('an imported disk reads byte for byte as its source, and boots', async () => {
    const image = path.join(fixture.directory, 'machine.raw');
    const data = path.join(fixture.directory, 'data.raw');
    await buildBootableImage({
      path: image,
      sizeMiB: 256,
      extraDisks: [{ path: data, sizeMiB: 32 }],
    });
    const osUrl = await uploadVhd(fixture.container, { name: 'machine.vhd', image });
    const dataUrl = await uploadVhd(fixture.container, { name: 'data.vhd', image: data });
    const [osRef, dataRef, nicRef, vmRef] = [fresh('os'), fresh('data'), fresh('nic'), fresh('vm')];

    const osDisk = await compute.importDisk(osRef, importing(osUrl));
    const dataDisk = await compute.importDisk(dataRef, importing(dataUrl, { os: undefined }));
    expect(osDisk).toMatchObject({
      state: 'Unattached',
      provisioning: 'Succeeded',
      sizeBytes: 256 * MIB,
      tags,
    });

    const { url } = await compute.grantDiskRead(osRef, { seconds: 3_600 });
    expect((await compute.disk(osRef))?.state).toBe('ActiveSAS');
    expect((await readBack(url, 256 * MIB)).equals(readFileSync(image))).toBe(true);
    await compute.revokeDiskRead(osRef);
    await expect(imageReader().size(url)).rejects.toMatchObject({ code: 'VaultRefusedKey' });

    const subnetId = (await servers()).id;
    const nic = await compute.createNic(nicRef, { location: testLocation, subnetId, tags });
    expect(nic.privateIp).toMatch(/^10\.1\.0\.\d+$/);
    const vm = await compute.createVm(vmRef, {
      ...machine({ osDiskId: osDisk.id, nicIds: [nic.id] }),
      dataDisks: [{ lun: 3, id: dataDisk.id }],
    });
    expect(vm).toMatchObject({ provisioning: 'Succeeded', power: 'running', tags });
    expect((await compute.disk(osRef))?.state).toBe('Attached');

    const log = await serialLogWith(vmRef, /FARSHORE-RECOVERED .*/);
    expect(log).toContain('FARSHORE-RECOVERED record=none intact=no');
    expect(log).toMatch(/FARSHORE-FILESYSTEM device=sd[ab]2 .*fsck=clean/);
    expect(log).toMatch(/FARSHORE-FILESYSTEM device=sd[ab] .*fsck=clean/);

    const running = fixture.emulator.machineProcesses();
    expect(running).toHaveLength(1);
    await compute.removeVm(vmRef);
    expect(running.filter(isAlive)).toEqual([]);
    await compute.removeNic(nicRef);
    await compute.removeDisk(osRef);
    await compute.removeDisk(dataRef);
    const left = await fixture.emulator.control.resources();
    const names = [osRef, dataRef, nicRef, vmRef].map((ref) => ref.name);
    expect(left.filter((one) => names.includes(one.name))).toEqual([]);
  }, 120_000);

  test('a machine whose boot sector is overwritten does not come up', async () => {
    await fixture.emulator.control.change({ wipeBootSector: true });
    const image = path.join(fixture.directory, 'broken.raw');
    await buildBootableImage({ path: image, sizeMiB: 256 });
    const url = await uploadVhd(fixture.container, { name: 'broken.vhd', image });
    const [diskRef, vmRef] = [fresh('disk'), fresh('vm')];
    const disk = await compute.importDisk(diskRef, importing(url));
    const nic = await someNic();
    await compute.createVm(vmRef, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
    const log = await serialLogWith(vmRef, /No bootable device/);
    expect(log).not.toContain('FARSHORE');
    await compute.removeVm(vmRef);
  }, 90_000);
});

function imageReader(): AzureDiskImageReader {
  const deps = { clock: systemClock, random: systemRandom };
  return new AzureDiskImageReader(deps, { caBundle: fixture.emulator.ca });
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
    const log = await compute.serialLog(vm);
    if (pattern.test(log)) return log;
    if (Date.now() > deadline) throw new Error(`no ${pattern} in ${log}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

describe('what Azure refuses to import', () => {
  test.each([
    ['a snapshot', (url: string) => importing(`${url}?snapshot=2026-01-01T00:00:00.0000000Z`)],
    ['a blob of another region', (url: string) => importing(url, { location: 'northeurope' })],
    ['the wrong account id', (url: string) => importing(url, { storageAccountId: '/x/y' })],
    ['a zone that is not there', (url: string) => importing(url, { zone: '7' })],
    ['a blob of nobody', () => importing('http://127.0.0.1:1/a/b/c.vhd')],
  ])('%s', async (_what, options) => {
    const { url } = await smallVhd();
    const ref = fresh('disk');
    const error = await expectCode(compute.importDisk(ref, options(url)), 'InvalidRequest');
    expect(error.message).toContain(ref.name);
    expect(await compute.disk(ref)).toBeUndefined();
  });

  test('a blob that does not exist', async () => {
    const url = `${fixture.container.url}/missing.vhd`;
    await expectCode(compute.importDisk(fresh('disk'), importing(url)), 'NotFound');
  });

  test('a blob without a footer, or of a length that is no whole MiB', async () => {
    const raw = fixture.container.getPageBlobClient('raw.vhd');
    await raw.create(2 * MIB + 512);
    const noFooter = await errorOf(compute.importDisk(fresh('disk'), importing(raw.url)));
    expect(noFooter).toMatchObject({ code: 'InvalidRequest', azureCode: 'InvalidVhd' });
    await raw.resize(2 * MIB);
    const badSize = await errorOf(compute.importDisk(fresh('disk'), importing(raw.url)));
    expect(badSize).toMatchObject({ code: 'InvalidRequest', azureCode: 'InvalidVhdSize' });
  });
});

describe('states that contradict a call', () => {
  test('a disk that is being read can be neither attached nor removed', async () => {
    const disk = await someDisk();
    const nic = await someNic();
    await compute.grantDiskRead(disk.ref, { seconds: 60 });
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    await expectCode(compute.createVm(fresh('vm'), vm), 'Conflict');
    await expectCode(compute.removeDisk(disk.ref), 'Conflict');
    await compute.revokeDiskRead(disk.ref);
    await compute.removeDisk(disk.ref);
  });

  test('granting twice is as good as once', async () => {
    const disk = await someDisk();
    const first = await compute.grantDiskRead(disk.ref, { seconds: 60 });
    const second = await compute.grantDiskRead(disk.ref, { seconds: 60 });
    expect(new URL(second.url).pathname).toBe(new URL(first.url).pathname);
    await compute.revokeDiskRead(disk.ref);
    await compute.revokeDiskRead(disk.ref);
    expect((await compute.disk(disk.ref))?.state).toBe('Unattached');
  });

  test('what a machine uses can be neither removed, read, nor used by another', async () => {
    await fixture.emulator.control.change({ bootMachines: false });
    const disk = await someDisk();
    const other = await someDisk();
    const nic = await someNic();
    const vm = fresh('vm');
    await compute.createVm(vm, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
    await expectCode(compute.removeDisk(disk.ref), 'Conflict');
    await expectCode(compute.removeNic(nic.ref), 'Conflict');
    await expectCode(compute.grantDiskRead(disk.ref, { seconds: 60 }), 'Conflict');
    const second = machine({ osDiskId: disk.id, nicIds: [(await someNic()).id] });
    await expectCode(compute.createVm(fresh('vm'), second), 'Conflict');
    const sameNic = machine({ osDiskId: other.id, nicIds: [nic.id] });
    await expectCode(compute.createVm(fresh('vm'), sameNic), 'Conflict');
    await compute.removeVm(vm);
    await compute.removeDisk(disk.ref);
    await compute.removeNic(nic.ref);
  });

  test('an address that is taken, or not in the subnet, is refused; a full subnet says so', async () => {
    const subnetId = (await servers()).id;
    const fixed = { location: testLocation, subnetId, privateIp: '10.1.0.200', tags };
    const nic = await compute.createNic(fresh('nic'), fixed);
    expect(nic.privateIp).toBe('10.1.0.200');
    await expectCode(compute.createNic(fresh('nic'), fixed), 'Conflict');
    const outside = { ...fixed, privateIp: '10.2.0.5' };
    await expectCode(compute.createNic(fresh('nic'), outside), 'InvalidRequest');
    const nowhere = { ...fixed, subnetId: `${subnetId}-none` };
    await expectCode(compute.createNic(fresh('nic'), nowhere), 'NotFound');
    // Eight addresses, of which Azure keeps five.
    const tiny = { ...fixed, subnetId: subnetId.replace(/servers$/, 'tiny'), privateIp: undefined };
    for (const _ of [1, 2, 3]) await compute.createNic(fresh('nic'), { ...tiny });
    const full = await expectCode(compute.createNic(fresh('nic'), { ...tiny }), 'QuotaExceeded');
    expect(full.azureCode).toBe('SubnetIsFull');
  });

  test('a target that does not fit is refused with what is wrong', async () => {
    const disk = await someDisk();
    const nic = await someNic();
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    const noSize = await expectCode(
      compute.createVm(fresh('vm'), { ...vm, size: 'Standard_Nope' }),
      'InvalidRequest',
    );
    expect(noSize.message).toContain('Standard_Nope');
    await expectCode(compute.createVm(fresh('vm'), { ...vm, zone: '1' }), 'Conflict');
    const elsewhere = { ...fresh('vm'), resourceGroup: 'elsewhere' };
    await expectCode(compute.createVm(elsewhere, vm), 'NotFound');
    await fixture.emulator.control.change({ coresQuota: 1 });
    const quota = await expectCode(compute.createVm(fresh('vm'), vm), 'QuotaExceeded');
    expect(quota.message).toContain('quota');
    expect((await compute.disk(disk.ref))?.state).toBe('Unattached');
  });
});

describe('when Azure is slow, busy or lost', () => {
  test.each(['wrapped', 'compute'] as const)(
    'a short throttling (%s body) is waited for',
    async (body) => {
      await fixture.emulator.control.addFault({
        kind: 'throttle',
        retryAfterSeconds: 1,
        body,
        operation: 'PUT disks',
      });
      const disk = await someDisk();
      expect(await createdTimes('disks', disk.ref)).toBe(1);
    },
  );

  test('a long throttling is handed back at once with its time', async () => {
    await fixture.emulator.control.addFault({
      kind: 'throttle',
      retryAfterSeconds: 1_200,
      body: 'compute',
      operation: 'PUT networkInterfaces',
    });
    const started = performance.now();
    const error = await expectCode(someNic(), 'Throttled');
    expect(error).toMatchObject({ transient: true, retryAfterMs: 1_200_000 });
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  test('throttling while an operation is polled does not lose the operation', async () => {
    await fixture.emulator.control.change({ operationMs: 200 });
    await fixture.emulator.control.addFault({
      kind: 'throttle',
      retryAfterSeconds: 1,
      body: 'wrapped',
      operation: 'GET operations',
    });
    const disk = await someDisk();
    expect(await createdTimes('disks', disk.ref)).toBe(1);
  });

  test('an operation that fails later is told by its code, and a second attempt mends it', async () => {
    const { url } = await smallVhd();
    const ref = fresh('disk');
    await fixture.emulator.control.addFault({
      kind: 'asyncFailure',
      code: 'InternalDiskError',
      message: 'The disk could not be made.',
      operation: 'PUT disks',
    });
    const error = await expectCode(compute.importDisk(ref, importing(url)), 'OperationFailed');
    expect(error.azureCode).toBe('InternalDiskError');
    expect(error.message).toContain('The disk could not be made');
    expect((await compute.disk(ref))?.provisioning).toBe('Failed');
    expect((await compute.importDisk(ref, importing(url))).provisioning).toBe('Succeeded');
    expect(await createdTimes('disks', ref)).toBe(1);
  });

  test('a quota that only the operation runs into is a quota all the same', async () => {
    await fixture.emulator.control.addFault({
      kind: 'asyncFailure',
      code: 'ZonalAllocationFailed',
      message: 'Allocation failed. We do not have sufficient capacity.',
      operation: 'PUT virtualMachines',
    });
    const disk = await someDisk();
    const nic = await someNic();
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    await expectCode(compute.createVm(fresh('vm'), vm), 'QuotaExceeded');
  });

  test.each(['dropBefore', 'dropAfter'] as const)(
    'a connection that breaks (%s) creates each thing once',
    async (kind) => {
      const { control } = fixture.emulator;
      await control.change({ bootMachines: false, operationMs: 100 });
      for (const operation of ['PUT disks', 'PUT networkInterfaces', 'PUT virtualMachines'])
        await control.addFault({ kind, operation });
      for (const operation of ['POST disks/beginGetAccess', 'DELETE virtualMachines'])
        await control.addFault({ kind, operation });
      const disk = await someDisk();
      const nic = await someNic();
      const vm = fresh('vm');
      await compute.grantDiskRead(disk.ref, { seconds: 60 });
      await compute.revokeDiskRead(disk.ref);
      await compute.createVm(vm, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
      expect(await createdTimes('disks', disk.ref)).toBe(1);
      expect(await createdTimes('networkInterfaces', nic.ref)).toBe(1);
      expect(await createdTimes('virtualMachines', vm)).toBe(1);
      await compute.removeVm(vm);
      expect(await compute.vm(vm)).toBeUndefined();
    },
  );

  test('a process that died while Azure worked is followed by one that finds the work', async () => {
    const { url } = await smallVhd();
    const ref = fresh('disk');
    await fixture.emulator.control.addFault({ kind: 'slow', ms: 1_500, operation: 'PUT disks' });
    const impatient = computeFor(fixture.emulator, { deadlinesMs: { import: 300 } });
    const error = await expectCode(impatient.importDisk(ref, importing(url)), 'OperationSlow');
    expect(error.transient).toBe(true);
    expect((await compute.disk(ref))?.provisioning).toBe('InProgress');
    const successor = computeFor(fixture.emulator);
    expect((await successor.importDisk(ref, importing(url))).provisioning).toBe('Succeeded');
    expect(await createdTimes('disks', ref)).toBe(1);
  });

  test('two that create the same thing at once make one, and both get it', async () => {
    const { control } = fixture.emulator;
    await control.change({ bootMachines: false, operationMs: 300 });
    const { url } = await smallVhd();
    const [diskRef, vmRef] = [fresh('disk'), fresh('vm')];
    const other = computeFor(fixture.emulator);
    const disks = await Promise.all(
      [compute, other].map((one) => one.importDisk(diskRef, importing(url))),
    );
    expect(disks[0]).toEqual(disks[1]);
    const nic = await someNic();
    const wanted = machine({ osDiskId: disks[0]?.id ?? '', nicIds: [nic.id] });
    // The one that comes second is told that the machine is being changed, and waits for it.
    await control.addFault({
      kind: 'error',
      status: 409,
      code: 'RequestConflict',
      message: 'The resource entity provisioning state is not terminal.',
      operation: 'PUT virtualMachines',
      skip: 1,
    });
    const machines = await Promise.all([compute, other].map((one) => one.createVm(vmRef, wanted)));
    expect(machines.map((one) => one.provisioning)).toEqual(['Succeeded', 'Succeeded']);
    expect(await createdTimes('disks', diskRef)).toBe(1);
    expect(await createdTimes('virtualMachines', vmRef)).toBe(1);
  });

  test("a name that somebody else's resource holds is left alone", async () => {
    const disk = await someDisk();
    const { url } = await smallVhd();
    const theirs = importing(url, { tags: { 'farshore-failover': 'f2' } });
    const error = await expectCode(compute.importDisk(disk.ref, theirs), 'Conflict');
    expect(error.message).toContain('farshore-failover');
    expect((await compute.disk(disk.ref))?.tags).toEqual(tags);
  });

  test('server errors and an endpoint that is not there are Unreachable, soon', async () => {
    await fixture.emulator.control.addFault({
      kind: 'error',
      status: 503,
      code: 'ServiceUnavailable',
      message: 'The service is down.',
      times: 3,
    });
    await expectCode(compute.disk(fresh('disk')), 'Unreachable');
    const nowhere = computeFor({ url: 'https://127.0.0.1:1', ca: fixture.emulator.ca });
    await expectCode(nowhere.disk(fresh('disk')), 'Unreachable');
  });
});

describe('who we are', () => {
  test('a wrong secret, a wrong tenant and a token for another audience are AuthenticationFailed', async () => {
    const { emulator } = fixture;
    const ref = fresh('disk');
    const wrongSecret = computeFor(emulator, { clientSecret: 'wrong' });
    const error = await expectCode(wrongSecret.disk(ref), 'AuthenticationFailed');
    expect(error.message).toContain('AADSTS7000215');
    const wrongTenant = computeFor(emulator, { tenantId: '99999999-9999-4999-8999-999999999999' });
    const unknown = await expectCode(wrongTenant.disk(ref), 'AuthenticationFailed');
    expect(unknown.message).toContain('AADSTS90002');
    const otherAudience = computeFor(emulator, {
      cloud: customCloud({
        resourceManager: emulator.url,
        authorityHost: emulator.url,
        tokenScope: 'https://management.azure.com/.default',
        ca: emulator.ca,
      }),
    });
    await expectCode(otherAudience.disk(ref), 'AuthenticationFailed');
  });

  test('a login service that is down is Unreachable, not a wrong secret', async () => {
    await fixture.emulator.control.addFault({
      kind: 'error',
      status: 503,
      code: 'ServiceUnavailable',
      message: 'The service is down.',
      operation: 'POST login',
      times: 10,
    });
    const error = await expectCode(computeFor(fixture.emulator).disk(fresh('disk')), 'Unreachable');
    expect(error.message).toContain('503');
  });

  test('a certificate that nobody vouches for is not talked to', async () => {
    const { url } = fixture.emulator;
    const cloud = customCloud({ resourceManager: url, authorityHost: url });
    const error = await errorOf(computeFor(fixture.emulator, { cloud }).disk(fresh('disk')));
    expect(error.code).toBe('Unreachable');
    expect(error.message).toMatch(/certificate/i);
  });

  test("a workload's federated token logs in, and a wrong one does not", async () => {
    const directory = path.join(fixture.directory, 'workload');
    const emulator = await spawnEmulator({
      ...emulatorOptions(directory, fixture.account),
      workloadToken: 'federated-token',
    });
    try {
      const cloud = customCloud({
        resourceManager: emulator.url,
        authorityHost: emulator.url,
        ca: emulator.ca,
      });
      for (const [token, works] of [
        ['federated-token', true],
        ['forged-token', false],
      ] as const) {
        const tokenFile = path.join(fixture.directory, token);
        await writeFile(tokenFile, token);
        const credential = azureCredential(cloud, {
          kind: 'WorkloadIdentity',
          tenantId: emulatorDefaults.tenantId,
          clientId: emulatorDefaults.clientId,
          tokenFile,
        });
        const exists = computeFor(emulator, { cloud, credential }).resourceGroupExists(testGroup);
        if (works) expect(await exists).toBe(true);
        else await expectCode(exists, 'AuthenticationFailed');
      }
    } finally {
      await emulator.stop();
    }
  });
});

describe('the emulator as a process', () => {
  test('its machines die with it, and a restart over its directory goes on', async () => {
    const image = path.join(fixture.directory, 'kept.raw');
    await buildBootableImage({ path: image, sizeMiB: 256 });
    const url = await uploadVhd(fixture.container, { name: 'kept.vhd', image });
    const options = emulatorOptions(path.join(fixture.directory, 'process'), fixture.account);
    const first = await spawnEmulator(options);
    const [diskRef, nicRef, vmRef] = [fresh('disk'), fresh('nic'), fresh('vm')];
    const client = computeFor(first);
    const disk = await client.importDisk(diskRef, importing(url));
    const subnetId = (await servers()).id;
    const nic = await client.createNic(nicRef, { location: testLocation, subnetId, tags });
    await client.createVm(vmRef, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
    const before = childrenOf(first.pid);
    expect(before).toHaveLength(1);

    const exited = new Promise((resolve) => first.process.once('exit', resolve));
    first.process.kill('SIGKILL');
    await exited;
    await until(() => before.every((pid) => !isAlive(pid)));

    const port = Number(new URL(first.url).port);
    const second = await spawnEmulator({ ...options, port, resourceGroups: [], networks: [] });
    // The same client with the same token: it must not notice.
    expect(await client.vm(vmRef)).toMatchObject({ power: 'running', tags });
    const after = childrenOf(second.pid);
    expect(after).toHaveLength(1);
    expect(await second.control.creations()).toEqual({});
    await second.stop();
    await until(() => after.every((pid) => !isAlive(pid)));
  }, 90_000);
});

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(Boolean)
    .map(Number);
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error('it did not come to pass within 10 s');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
