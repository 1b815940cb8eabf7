import { expect, test } from 'vitest';
import { StoreError } from '../../platform/storeErrors.ts';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { ReplicaFence, readReplicaState } from './replicaFence.ts';

const machineId = 'ab'.repeat(16);

test('a change that took effect without an answer is not undone when the replica is given back', async () => {
  const clock = new ManualClock();
  const objects = new MemoryObjectStore({ clock });
  const pages = new MemoryPageBlobStore({ clock });
  const deps = { objects, pages, logger: silentLogger };
  const fence = await ReplicaFence.take(deps, { machineId, holder: 'applier:a', leaseSeconds: 60 });
  const error = new StoreError('VaultUnreachable', 'no answer');
  objects.fault = (operation) => ({ when: operation === 'replace' ? 'after' : 'before', error });
  const applied = { lsn: 35n, seq: 2, digest: 'cd'.repeat(32) };
  await expect(fence.save({ applied })).rejects.toThrow(error);
  await expect(fence.raise()).rejects.toThrow(error);
  objects.fault = undefined;
  await fence.release();
  expect(await readReplicaState(objects, machineId)).toMatchObject({ applied, holder: '' });
});
