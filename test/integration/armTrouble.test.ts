/** The compute adapter when Azure throttles, fails late, breaks connections, or is asked by two at once. */
import { describe, expect, test } from 'vitest';
import { computeFor } from '../arm/fixture.ts';
import { expectCode, machine, workbenchOfFile } from '../arm/workbench.ts';

const bench = workbenchOfFile();

describe('when Azure is slow, busy or lost', () => {
  test.each(['wrapped', 'compute'] as const)(
    'a short throttling (%s body) is waited for',
    async (body) => {
      await bench.fixture.emulator.control.addFault({
        kind: 'throttle',
        retryAfterSeconds: 1,
        body,
        operation: 'PUT disks',
      });
      const disk = await bench.someDisk();
      expect(await bench.createdTimes('disks', disk.ref)).toBe(1);
    },
  );

  test('a long throttling is handed back at once with its time', async () => {
    await bench.fixture.emulator.control.addFault({
      kind: 'throttle',
      retryAfterSeconds: 1_200,
      body: 'compute',
      operation: 'PUT networkInterfaces',
    });
    const started = performance.now();
    const error = await expectCode(bench.someNic(), 'Throttled');
    expect(error).toMatchObject({ transient: true, retryAfterMs: 1_200_000 });
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  test('throttling while an operation is polled does not lose the operation', async () => {
    await bench.fixture.emulator.control.change({ operationMs: 200 });
    await bench.fixture.emulator.control.addFault({
      kind: 'throttle',
      retryAfterSeconds: 1,
      body: 'wrapped',
      operation: 'GET operations',
    });
    const disk = await bench.someDisk();
    expect(await bench.createdTimes('disks', disk.ref)).toBe(1);
  });

  test('an operation that fails later is told by its code, and a second attempt mends it', async () => {
    const { url } = await bench.smallVhd();
    const ref = bench.fresh('disk');
    await bench.fixture.emulator.control.addFault({
      kind: 'asyncFailure',
      code: 'InternalDiskError',
      message: 'The disk could not be made.',
      operation: 'PUT disks',
    });
    const error = await expectCode(
      bench.compute.importDisk(ref, bench.importing(url)),
      'OperationFailed',
    );
    expect(error.azureCode).toBe('InternalDiskError');
    expect(error.message).toContain('The disk could not be made');
    expect((await bench.compute.disk(ref))?.provisioning).toBe('Failed');
    expect((await bench.compute.importDisk(ref, bench.importing(url))).provisioning).toBe(
      'Succeeded',
    );
    expect(await bench.createdTimes('disks', ref)).toBe(1);
  });

  test('a quota that only the operation runs into is a quota all the same', async () => {
    await bench.fixture.emulator.control.addFault({
      kind: 'asyncFailure',
      code: 'ZonalAllocationFailed',
      message: 'Allocation failed. We do not have sufficient capacity.',
      operation: 'PUT virtualMachines',
    });
    const disk = await bench.someDisk();
    const nic = await bench.someNic();
    const vm = machine({ osDiskId: disk.id, nicIds: [nic.id] });
    await expectCode(bench.compute.createVm(bench.fresh('vm'), vm), 'QuotaExceeded');
  });

  test.each(['dropBefore', 'dropAfter'] as const)(
    'a connection that breaks (%s) creates each thing once',
    async (kind) => {
      const { control } = bench.fixture.emulator;
      await control.change({ bootMachines: false, operationMs: 100 });
      for (const operation of ['PUT disks', 'PUT networkInterfaces', 'PUT virtualMachines'])
        await control.addFault({ kind, operation });
      for (const operation of ['POST disks/beginGetAccess', 'DELETE virtualMachines'])
        await control.addFault({ kind, operation });
      const disk = await bench.someDisk();
      const nic = await bench.someNic();
      const vm = bench.fresh('vm');
      await bench.compute.grantDiskRead(disk.ref, { seconds: 60 });
      await bench.compute.revokeDiskRead(disk.ref);
      await bench.compute.createVm(vm, machine({ osDiskId: disk.id, nicIds: [nic.id] }));
      expect(await bench.createdTimes('disks', disk.ref)).toBe(1);
      expect(await bench.createdTimes('networkInterfaces', nic.ref)).toBe(1);
      expect(await bench.createdTimes('virtualMachines', vm)).toBe(1);
      await bench.compute.removeVm(vm);
      expect(await bench.compute.vm(vm)).toBeUndefined();
    },
  );

  test('a process that died while Azure worked is followed by one that finds the work', async () => {
    const { url } = await bench.smallVhd();
    const ref = bench.fresh('disk');
    await bench.fixture.emulator.control.addFault({
      kind: 'slow',
      ms: 1_500,
      operation: 'PUT disks',
    });
    const impatient = computeFor(bench.fixture.emulator, { deadlinesMs: { import: 300 } });
    const error = await expectCode(
      impatient.importDisk(ref, bench.importing(url)),
      'OperationSlow',
    );
    expect(error.transient).toBe(true);
    expect((await bench.compute.disk(ref))?.provisioning).toBe('InProgress');
    const successor = computeFor(bench.fixture.emulator);
    expect((await successor.importDisk(ref, bench.importing(url))).provisioning).toBe('Succeeded');
    expect(await bench.createdTimes('disks', ref)).toBe(1);
  });

  test('two that create the same thing at once make one, and both get it', async () => {
    const { control } = bench.fixture.emulator;
    await control.change({ bootMachines: false, operationMs: 300 });
    const { url } = await bench.smallVhd();
    const [diskRef, vmRef] = [bench.fresh('disk'), bench.fresh('vm')];
    const other = computeFor(bench.fixture.emulator);
    const disks = await Promise.all(
      [bench.compute, other].map((one) => one.importDisk(diskRef, bench.importing(url))),
    );
    expect(disks[0]).toEqual(disks[1]);
    const nic = await bench.someNic();
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
    const machines = await Promise.all(
      [bench.compute, other].map((one) => one.createVm(vmRef, wanted)),
    );
    expect(machines.map((one) => one.provisioning)).toEqual(['Succeeded', 'Succeeded']);
    expect(await bench.createdTimes('disks', diskRef)).toBe(1);
    expect(await bench.createdTimes('virtualMachines', vmRef)).toBe(1);
  });

  test('server errors and an endpoint that is not there are Unreachable, soon', async () => {
    await bench.fixture.emulator.control.addFault({
      kind: 'error',
      status: 503,
      code: 'ServiceUnavailable',
      message: 'The service is down.',
      times: 3,
    });
    await expectCode(bench.compute.disk(bench.fresh('disk')), 'Unreachable');
    const nowhere = computeFor({ url: 'https://127.0.0.1:1', ca: bench.fixture.emulator.ca });
    await expectCode(nowhere.disk(bench.fresh('disk')), 'Unreachable');
  });
});
