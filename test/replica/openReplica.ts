import { Replica, type ReplicaDeps, type ReplicaLimits } from '../../dataplane/journal/replica.ts';
import type { SampleMachine } from './sampleMachine.ts';

/** The replica of a sample machine, with what the catalog would tell of it. */
export async function openReplica(
  deps: ReplicaDeps,
  machine: SampleMachine,
  options: { holder?: string; limits?: Partial<ReplicaLimits> } = {},
): Promise<Replica> {
  const { machineId, disks, dataKey } = machine;
  return await Replica.open(deps, {
    machineId,
    disks,
    dataKey,
    holder: 'applier:test',
    ...options,
  });
}
