import { readReplicaState } from '../../dataplane/journal/replicaFence.ts';
import { stepIntervalMs } from '../../dataplane/journal/sampling.ts';
import { encodeDocument } from '../../vault/documents/codec.ts';
import { replicaStateSchema } from '../../vault/documents/replicaState.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { ProtectedSite } from './protectedSite.ts';

/** Meanwhile a point is made that has the damage. */
const VERIFIED_AFTER_MS = 35_000;
/** Where a partitioned disk holds nothing, in the leaf that begins with its partition table. */
const OFFSET = 32 << 10;

/**
 * Changes the first leaf of a disk's replica behind Farshore's back, as the storage might lose it, while no applier runs; and has the
 * next one verify that leaf as soon as it is in a point. `sharePerDay`: that of its policy.
 */
export async function rotFirstLeaf(
  { stores, machineId }: Pick<ProtectedSite, 'stores' | 'machineId'>,
  { disk, sharePerDay }: { disk: string; sharePerDay: number },
): Promise<void> {
  const { objects, pages } = stores;
  const key = vaultLayout.replica(machineId, disk);
  const { sequenceNumber = 0 } = (await pages.info(key)) ?? {};
  const fence = await pages.fence(key, { sequenceNumber, leaseSeconds: 15 });
  await pages.write(key, new Uint8Array(512).fill(7), OFFSET, fence);
  await pages.release(key, fence);
  const state = await readReplicaState(objects, machineId);
  if (state === undefined) throw new Error(`machine ${machineId} has no replica`);
  const intervalMs = stepIntervalMs(state.disks, sharePerDay);
  const lastMs = Math.floor(Date.now() + VERIFIED_AFTER_MS - intervalMs);
  const sampling = { next: 0, lastMs };
  const body = encodeDocument(replicaStateSchema, { ...state, sampling });
  await objects.put(vaultLayout.replicaState(machineId), body);
}

export async function isDamaged({
  stores,
  machineId,
}: Pick<ProtectedSite, 'stores' | 'machineId'>): Promise<boolean> {
  const state = await readReplicaState(stores.objects, machineId);
  return state?.damaged !== undefined;
}
