/** What becomes of a machine whose failover fails: the operator, its recovery and a journal, all real, over stores in memory. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Failover, farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { claimJournal } from '../../dataplane/journal/claim.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { AssignmentsDocument } from '../../vault/documents.ts';
import { openDataKey } from '../../vault/keys.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { requireVault } from '../../vault/vault.ts';
import { FakeKube } from '../fakes/kube.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import { ModelMachine } from '../fixtures/modelMachine.ts';
import {
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  create,
  eventually,
  failover,
  machineReport,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  type RunningOperator,
  readList,
  recoveryVault,
  replicationPolicy,
  reportStatus,
  secret,
  startOperator,
  untilCondition,
} from './harness.ts';

let kube: FakeKube;
let objects: MemoryObjectStore;
let compute: MemoryCompute;
let running: RunningOperator;
let site: Awaited<ReturnType<typeof prepare>>;

beforeEach(async () => {
  kube = new FakeKube();
  objects = new MemoryObjectStore({ clock: systemClock });
  const pages = new MemoryPageBlobStore({ clock: systemClock });
  compute = new MemoryCompute({ pages });
  const nothing = { ensureContainer: async () => {}, close: async () => {} };
  running = startOperator({
    kube,
    log: silentLogger,
    stores: () => ({ objects, pages, compute, images: compute, ...nothing }),
  });
  site = await prepare();
});

afterEach(async () => {
  await running.stop();
});

test('an Unplanned failover that fails after sealing: the source is assigned again under an epoch that the seal lets in', async () => {
  const read = compute.read.bind(compute);
  compute.read = async (url, range) => {
    const bytes = (await read(url, range)).slice();
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    return bytes;
  };
  await create(kube, failover('move'));
  await untilPhase('move', 'Failed');
  const ledger = (await LedgerEntry.read(objects, 'move'))?.document;
  expect(ledger?.failure?.code).toBe('RootMismatch');
  const sealed = ledger?.seal?.writerEpoch ?? 0;
  expect(sealed).toBe(1);
  const list = await untilList((one) => (one.machines[0]?.writerEpoch ?? 0) > sealed);
  expect(list.machines[0]?.finalSync).toBeUndefined();
  // As a process server does with its old assignment, and with this one.
  expect(await claim(sealed)).toMatchObject({ outcome: 'fenced', fenced: { by: 'Seal' } });
  expect(await claim(list.machines[0]?.writerEpoch ?? 0)).toMatchObject({ outcome: 'claimed' });
  // And the machine can be failed over again.
  compute.read = read;
  await reportStatus(objects, 'ps', [barrierReport()]);
  await create(kube, failover('again', { recoveryPoint: { type: 'LatestProcessed' } }));
  await untilPhase('again', 'FailedOver');
});

test('while its machine runs in Azure, its list neither drops it nor gives it an epoch that the seal lets in', async () => {
  await create(kube, failover('move'));
  await untilPhase('move', 'FailedOver');
  const machine = await eventually(() => {
    const found = kube.peek<ProtectedVM>(farshoreTypes.protectedVM, named('web'));
    expect(found?.status?.activeSide).toBe('Azure');
    return found;
  });
  expect(machine?.status?.phase).toBe('InAzure');
  await systemClock.sleep(500);
  const list = await untilList(() => true);
  expect(list.machines.map((one) => one.writerEpoch)).toEqual([1]);
  expect(await claim(1)).toMatchObject({ outcome: 'fenced' });
});

async function prepare() {
  const recovery = generateRecoveryKey(systemRandom);
  await create(
    kube,
    secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
    secret('passphrase', { passphrase: PASSPHRASE }),
    recoveryVault({ recipients: [recovery.publicString] }),
    replicationPolicy(),
    processServer(),
    protectedVM(),
  );
  const bootstrap = await bootstrapOf(kube, 'ps-bootstrap');
  const asked = await askWithToken(objects, bootstrap);
  await awaitAnswer(objects, asked.id);
  await untilCondition(kube, farshoreTypes.protectedVM, named('web'), {
    type: 'Accepted',
    status: 'True',
  });
  const pinned = bootstrap.controllerPublicKey;
  const assignment = await eventually(async () => {
    const list = await readList(objects, { processServer: 'ps', pinned });
    const found = list?.machines[0];
    if (found?.dataKey.some((one) => one.recipient === asked.box.id) !== true)
      throw new Error('not assigned yet');
    return found;
  });
  const { document: vault } = await requireVault(objects);
  const { machineId, dataKey: sealed } = assignment;
  const dataKey = openDataKey({ sealed, key: asked.box, vaultId: vault.vaultId, machineId });
  const deps = { objects, clock: systemClock, random: systemRandom };
  const machine = new ModelMachine(deps, {
    name: 'web',
    machineId,
    dataKey,
    diskBytes: [1 << 20],
  });
  machine.scribble();
  const barrier = await machine.barrier();
  await reportStatus(objects, 'ps', [
    machineReport(machineId, { uploadedBarrier: { ...barrier, consistency: 'Crash' } }),
  ]);
  await untilCondition(kube, farshoreTypes.protectedVM, named('web'), {
    type: 'InitialReplicationComplete',
    status: 'True',
  });
  return { machine, dataKey, pinned, barrier };
}

function barrierReport() {
  const { machine, barrier } = site;
  const uploadedBarrier = { ...barrier, consistency: 'Crash' as const };
  return machineReport(machine.machineId, { uploadedBarrier });
}

async function claim(writerEpoch: number) {
  const { machine, dataKey } = site;
  return await claimJournal(
    { objects, clock: systemClock, random: systemRandom, codec: inlineCodec },
    { machineId: machine.machineId, dataKey, writerEpoch, side: 'Source' },
  );
}

async function untilList(
  fits: (list: AssignmentsDocument) => boolean,
): Promise<AssignmentsDocument> {
  return await eventually(async () => {
    const list = await readList(objects, { processServer: 'ps', pinned: site.pinned });
    if (list === undefined || !fits(list))
      throw new Error(
        `the list is ${JSON.stringify(list, (_, part) => (typeof part === 'bigint' ? String(part) : part))}`,
      );
    return list;
  });
}

async function untilPhase(name: string, phase: string): Promise<void> {
  await eventually(() =>
    expect(kube.peek<Failover>(farshoreTypes.failover, named(name))?.status).toMatchObject({
      phase,
    }),
  );
}
