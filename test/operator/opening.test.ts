/** An operator that has just started: what it has not read yet must not count as not being there. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { FakeKube } from '../fakes/kube.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import {
  create,
  eventually,
  failover,
  machineReport,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  type RunningOperator,
  recoveryVault,
  replicationPolicy,
  reportStatus,
  secret,
  startOperator,
  untilCondition,
} from './harness.ts';

let kube: FakeKube;
let objects: MemoryObjectStore;
let operator: RunningOperator;

beforeEach(() => {
  kube = new FakeKube();
  objects = new MemoryObjectStore({ clock: systemClock });
});

afterEach(async () => {
  await operator.stop();
});

function operate(): void {
  const pages = new MemoryPageBlobStore({ clock: systemClock });
  const compute = new MemoryCompute({ pages });
  operator = startOperator({
    kube,
    log: silentLogger,
    // Accepted, and under way until the end.
    runFailover: async (_name, _deps, { signal }) => {
      await systemClock.sleep(60_000, signal);
      throw new Error('nobody ended it');
    },
    stores: () => ({
      ...{ objects, pages, compute, images: compute },
      ensureContainer: async () => {},
      close: async () => {},
    }),
  });
}

test('a Planned Failover that arrives before the first look at the vault has ended is not refused for lack of an agent', async () => {
  operate();
  await create(
    kube,
    secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
    secret('passphrase', { passphrase: PASSPHRASE }),
    recoveryVault({ recipients: [generateRecoveryKey(systemRandom).publicString] }),
    replicationPolicy(),
    processServer(),
    protectedVM(),
  );
  const { protectedVM: machines, failover: failovers } = farshoreTypes;
  await untilCondition(kube, machines, named('web'), { type: 'Accepted', status: 'True' });
  const machineId = await eventually(() => {
    const found = kube.peek<ProtectedVM>(machines, named('web'))?.status?.machineId;
    if (found === undefined) throw new Error('no machineId yet');
    return found;
  });
  await operator.stop();
  await reportStatus(objects, 'ps', [
    machineReport(machineId, {
      uploadedBarrier: { lsn: 12n, timeMs: systemClock.now(), consistency: 'Crash' },
    }),
  ]);

  // The first time that its successor reads what the process server said, the answer takes a while.
  const slow = vaultLayout.processServerStatus('ps');
  objects.interleave = async (operation, key) => {
    if (operation !== 'get' || key !== slow) return;
    objects.interleave = undefined;
    await create(kube, failover('move', { type: 'Planned' }));
    await systemClock.sleep(500);
  };
  operate();
  const accepted = { type: 'Accepted', status: 'True' } as const;
  const { reason } = await untilCondition(kube, failovers, named('move'), accepted);
  expect(reason).toBe('Accepted');
});
