import { beforeEach, describe, expect, test } from 'vitest';
import { ComputeError } from '../../platform/computeErrors.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryCompute } from '../../test/fakes/memoryCompute.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { protectedVM, recoveryVault } from '../../test/operator/manifests.ts';
import { resolveTarget } from './target.ts';
import { TargetObserver } from './targetObserver.ts';

const KEPT_MS = 300_000;
const key = 'default/web';
const disks = [{ index: 0, name: 'system', device: '/dev/sda', sizeBytes: 1 << 30 }];
let clock: ManualClock;
let compute: MemoryCompute;
let observer: TargetObserver;

beforeEach(() => {
  clock = new ManualClock();
  compute = new MemoryCompute({ pages: new MemoryPageBlobStore({ clock }) });
  observer = new TargetObserver({ clock }, { keepMs: KEPT_MS });
});

function verdict(size = 'Standard_B2s') {
  const machine = protectedVM('web', { target: { ...protectedVM().spec.target, size } });
  const vault = recoveryVault({ recipients: [] });
  return observer.verdict(compute, key, {
    targets: [resolveTarget(machine, vault, 'Production'), resolveTarget(machine, vault, 'Test')],
    disks,
  });
}

function unanswering(code: 'Unreachable' | 'AuthenticationFailed'): void {
  compute.resourceGroupExists = async () => {
    throw new ComputeError(code, 'scripted');
  };
}

describe('whether a target fits', () => {
  test('is asked of Azure once for some minutes, and anew when the target changes', async () => {
    expect(await verdict()).toEqual({ objection: undefined });
    compute.sizes = [];
    expect(await verdict()).toEqual({ objection: undefined });
    expect(await verdict('Standard_M128s')).toMatchObject({
      objection: { reason: 'SizeNotAvailable', message: expect.stringContaining('M128s') },
    });
    observer.forget(key);
    await clock.advance(1);
    expect(await verdict()).toMatchObject({ objection: { reason: 'SizeNotAvailable' } });
  });

  test('is looked at again after that time', async () => {
    await verdict();
    compute.sizes = [];
    await clock.advance(KEPT_MS + 1);
    expect(await verdict()).toMatchObject({ objection: { reason: 'SizeNotAvailable' } });
  });

  test('is asked of the test network too: a drill that can’t be is no protection', async () => {
    compute.subnets.delete('test/default');
    expect(await verdict()).toMatchObject({
      objection: { reason: 'SubnetNotFound', message: expect.stringContaining('network test') },
    });
  });

  test('stays as it was last known while Azure does not answer, and unknown if it never did', async () => {
    const answering = compute.resourceGroupExists;
    unanswering('Unreachable');
    expect(await verdict()).toBeUndefined();
    compute.resourceGroupExists = answering;
    await clock.advance(KEPT_MS + 1);
    await verdict();
    unanswering('Unreachable');
    await clock.advance(KEPT_MS + 1);
    expect(await verdict()).toEqual({ objection: undefined });
  });

  test('is no once Azure refuses our credentials: no failover could go anywhere', async () => {
    unanswering('AuthenticationFailed');
    expect(await verdict()).toMatchObject({ objection: { reason: 'AuthenticationFailed' } });
  });
});
