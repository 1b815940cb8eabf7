/** The whole operator on a Kubernetes API and a vault in memory: every controller, none of the servers. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { farshoreTypes, type ProcessServer, type ProtectedVM } from '../../crds/index.ts';
import { kubeTypes } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { Catalog } from '../../vault/catalog.ts';
import { answerMac } from '../../vault/enrolmentProof.ts';
import { openDataKey } from '../../vault/keys.ts';
import { generateRecoveryKey } from '../../vault/recoveryKey.ts';
import { requireVault } from '../../vault/vault.ts';
import { FakeKube } from '../fakes/kube.ts';
import { MemoryCompute } from '../fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../fakes/memoryPageBlobStore.ts';
import { recordingLogger } from '../fakes/silentLogger.ts';
import {
  askAsAgent,
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  create,
  eventually,
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
let running: RunningOperator[];
let logger: ReturnType<typeof recordingLogger>;
const recovery = generateRecoveryKey(systemRandom);

beforeEach(async () => {
  kube = new FakeKube();
  objects = new MemoryObjectStore({ clock: systemClock });
  compute = new MemoryCompute({ pages: new MemoryPageBlobStore({ clock: systemClock }) });
  running = [];
  logger = recordingLogger();
  await create(
    kube,
    secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
    secret('passphrase', { passphrase: `${PASSPHRASE}\n` }),
  );
});

afterEach(async () => {
  for (const one of running) await one.stop();
  if (process.env.SHOW_LOGS) for (const line of logger.lines.slice(0, 60)) console.log(line.level, line.message, JSON.stringify(line.fields, (_k, v) => (v instanceof Error ? `${v.message} ${v.stack}` : typeof v === 'bigint' ? String(v) : v)));
});

function operate(options: { kube?: FakeKube; holder?: string } = {}): RunningOperator {
  const pages = new MemoryPageBlobStore({ clock: systemClock });
  const started = startOperator({
    kube: options.kube ?? kube,
    holder: options.holder ?? 'first cluster',
    log: logger,
    stores: () => ({
      objects,
      pages,
      compute,
      images: compute,
      ensureContainer: async () => {},
      close: async () => {},
    }),
  });
  running.push(started);
  return started;
}

async function createAll(into = kube): Promise<void> {
  await create(
    into,
    recoveryVault({ recipients: [recovery.publicString] }),
    replicationPolicy(),
    processServer(),
    protectedVM(),
  );
}

async function machineIdOf(name = 'web'): Promise<string> {
  return await eventually(async () => {
    const machine = await kube.get<ProtectedVM>(farshoreTypes.protectedVM, named(name));
    const id = machine?.status?.machineId;
    if (id === undefined) throw new Error(`${name} has no machineId yet`);
    return id;
  });
}

describe('a vault', () => {
  test('is made with its key in a Secret, and taken into control', async () => {
    operate();
    await create(kube, recoveryVault({ recipients: [recovery.publicString] }));
    const type = farshoreTypes.recoveryVault;
    await untilCondition(kube, type, named('vault'), { type: 'Ready', status: 'True' });
    await untilCondition(kube, type, named('vault'), { type: 'InControl', status: 'True' });
    await untilCondition(kube, type, named('vault'), {
      type: 'RecoveryKeyVerified',
      status: 'False',
      reason: 'RecoveryKeyNotProven',
    });
    expect(kube.peek(kubeTypes.secret, named('vault-vault-key'))).toBeDefined();
    expect(kube.peek(kubeTypes.secret, named('farshore-controller-key'))).toBeDefined();
  });
});

describe('a machine', () => {
  test('is accepted, enrolled, assigned and shown', async () => {
    operate();
    await createAll();
    const bootstrap = await bootstrapOf(kube, 'ps-bootstrap');
    const asked = await askWithToken(objects, bootstrap);
    const answer = await awaitAnswer(objects, asked.id);
    expect(answer).toMatchObject({
      outcome: 'accepted',
      mac: answerMac({
        key: asked.key,
        ...(answer as never as { certificatePem: string; caCertificatePem: string }),
        machineId: '',
      }),
    });
    const machineId = await machineIdOf();
    const agent = await askAsAgent(objects, { name: 'web', via: 'ps' });
    expect(await awaitAnswer(objects, agent.id)).toMatchObject({ outcome: 'accepted', machineId });
    const list = await eventually(async () => {
      const found = await readList(objects, {
        processServer: 'ps',
        pinned: bootstrap.controllerPublicKey,
      });
      const mine = found?.machines[0]?.dataKey.some((one) => one.recipient === asked.box.id);
      if (!mine) throw new Error('the data key is not sealed for the process server yet');
      return found;
    });
    const { document: vault } = await requireVault(objects);
    const [assignment] = list?.machines ?? [];
    expect(assignment).toMatchObject({ machineId, name: 'web', writerEpoch: 1, paused: false });
    expect(
      openDataKey({
        sealed: assignment?.dataKey ?? [],
        key: asked.box,
        vaultId: vault.vaultId,
        machineId,
      }),
    ).toEqual(
      openDataKey({
        sealed: (await new Catalog({ store: objects }).read(machineId))?.document.dataKey ?? [],
        key: recovery.box,
        vaultId: vault.vaultId,
        machineId,
      }),
    );
    const barrierMs = systemClock.now() - 5000;
    await reportStatus(objects, 'ps', [
      machineReport(machineId, {
        uploadedBarrier: { lsn: 10n, timeMs: barrierMs, consistency: 'Crash' },
      }),
    ]);
    const type = farshoreTypes.protectedVM;
    for (const condition of [
      'Accepted',
      'InitialReplicationComplete',
      'ReplicationHealthy',
      'RecoveryPointCurrent',
      'TargetValid',
    ])
      await untilCondition(kube, type, named('web'), { type: condition, status: 'True' });
    await untilCondition(kube, type, named('web'), {
      type: 'Recoverable',
      status: 'False',
      reason: 'NoPointYet',
    });
    await eventually(async () => {
      const server = await kube.get<ProcessServer>(farshoreTypes.processServer, named('ps'));
      expect(server?.status).toMatchObject({ machines: 1, replicas: 1 });
    });
    await untilCondition(kube, farshoreTypes.processServer, named('ps'), {
      type: 'Ready',
      status: 'True',
    });
  });
});
