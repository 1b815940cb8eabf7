/** The whole operator on a Kubernetes API and a vault in memory: every controller, none of the servers. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { resolveTarget } from '../../controllers/protectedvm/target.ts';
import { farshoreTypes, type ProcessServer, type ProtectedVM } from '../../crds/index.ts';
import { type KubeObject, kubeTypes, type ResourceType } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { Catalog } from '../../vault/catalog.ts';
import type { AssignmentsDocument } from '../../vault/documents.ts';
import { answerMac } from '../../vault/enrolmentProof.ts';
import { openDataKey } from '../../vault/keys.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { answerRecoveryChallenge, writeRecoveryCheck } from '../../vault/recoveryCheck.ts';
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
  if (process.env.SHOW_LOGS)
    for (const line of logger.lines.slice(0, 60))
      console.log(
        line.level,
        line.message,
        JSON.stringify(line.fields, (_k, v) =>
          v instanceof Error ? `${v.message} ${v.stack}` : typeof v === 'bigint' ? String(v) : v,
        ),
      );
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

async function gone(type: ResourceType, name: string): Promise<void> {
  await eventually(() => {
    if (kube.peek(type, named(name)) !== undefined) throw new Error(`${name} is still there`);
  });
}

/** A process server that enrolled; its key, and what it pins. */
async function enrolProcessServer(name = 'ps') {
  const bootstrap = await bootstrapOf(kube, `${name}-bootstrap`);
  const asked = await askWithToken(objects, bootstrap);
  expect(await awaitAnswer(objects, asked.id)).toMatchObject({ outcome: 'accepted' });
  return { bootstrap, ...asked };
}

async function listOf(pinned: string, processServer = 'ps'): Promise<AssignmentsDocument> {
  const list = await readList(objects, { processServer, pinned });
  if (list === undefined) throw new Error('there is no list yet');
  return list;
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

  test('that refuses the key, has no container or a newer format says so, and recovers', async () => {
    operate();
    const type = farshoreTypes.recoveryVault;
    for (const [code, reason] of [
      ['VaultRefusedKey', 'CredentialsRefused'],
      ['VaultContainerMissing', 'ContainerMissing'],
      ['VaultUnreachable', 'VaultUnreachable'],
    ] as const) {
      objects.fault = () => ({ when: 'before', error: new StoreError(code, 'scripted.') });
      if (kube.peek(type, named('vault')) === undefined)
        await create(kube, recoveryVault({ recipients: [recovery.publicString] }));
      await untilCondition(kube, type, named('vault'), {
        type: 'Reachable',
        status: 'False',
        reason,
      });
    }
    objects.fault = undefined;
    await untilCondition(kube, type, named('vault'), { type: 'Ready', status: 'True' });
    const { document, etag } = await requireVault(objects);
    const newer = new TextEncoder().encode(JSON.stringify({ ...document, formatVersion: 99 }));
    await objects.replace('vault.json', newer, { etag });
    await untilCondition(kube, type, named('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'FormatTooNew',
    });
  });

  test('that has gone is never made anew under a resource that held it', async () => {
    operate();
    const type = farshoreTypes.recoveryVault;
    await create(kube, recoveryVault({ recipients: [recovery.publicString] }));
    await untilCondition(kube, type, named('vault'), { type: 'Ready', status: 'True' });
    await objects.remove('vault.json');
    await untilCondition(kube, type, named('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'VaultDamaged',
    });
    expect(objects.keys()).not.toContain('vault.json');
  });

  test('shows a recovery key as verified once it answered the challenge', async () => {
    operate();
    const type = farshoreTypes.recoveryVault;
    await create(kube, recoveryVault({ recipients: [recovery.publicString] }));
    await untilCondition(kube, type, named('vault'), { type: 'Ready', status: 'True' });
    const { document: vault } = await requireVault(objects);
    await writeRecoveryCheck(
      objects,
      answerRecoveryChallenge({ vault, key: recovery, clock: systemClock }),
    );
    await untilCondition(kube, type, named('vault'), {
      type: 'RecoveryKeyVerified',
      status: 'True',
    });
  });

  test('is held while machines use it, and closed once they are gone', async () => {
    operate();
    await createAll();
    await machineIdOf();
    const type = farshoreTypes.recoveryVault;
    await kube.remove(type, named('vault'));
    await untilCondition(kube, type, named('vault'), {
      type: 'Ready',
      status: 'False',
      reason: 'InUse',
    });
    await kube.remove(farshoreTypes.protectedVM, named('web'));
    await gone(farshoreTypes.protectedVM, 'web');
    await kube.remove(farshoreTypes.processServer, named('ps'));
    await gone(type, 'vault');
    expect(objects.keys()).toContain('vault.json');
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

describe('what is refused', () => {
  test.each([
    ['VaultNotFound', { vaultRef: { name: 'nowhere' } }],
    ['PolicyNotFound', { policyRef: { name: 'nowhere' } }],
    ['ProcessServerNotFound', { processServerRef: { name: 'nowhere' } }],
  ])('an unknown reference: %s', async (reason, spec) => {
    operate();
    await create(
      kube,
      recoveryVault({ recipients: [recovery.publicString] }),
      replicationPolicy(),
      processServer(),
      protectedVM('web', spec),
    );
    await untilCondition(kube, farshoreTypes.protectedVM, named('web'), {
      type: 'Accepted',
      status: 'False',
      reason,
    });
    expect(objects.keys().some((key) => key.startsWith('control/names/machine/'))).toBe(false);
  });

  test('a vault of another namespace that does not allow this one', async () => {
    operate();
    await createAll();
    await create(
      kube,
      replicationPolicy('policy', 'other'),
      processServer('ps2', { vaultRef: { name: 'vault', namespace: 'default' } }, 'other'),
      protectedVM(
        'db',
        { vaultRef: { name: 'vault', namespace: 'default' }, processServerRef: { name: 'ps2' } },
        'other',
      ),
    );
    await untilCondition(kube, farshoreTypes.protectedVM, named('db', 'other'), {
      type: 'Accepted',
      status: 'False',
      reason: 'VaultNotAllowed',
    });
  });

  test('a machine name that another namespace holds, saying who does', async () => {
    operate();
    await create(
      kube,
      recoveryVault({
        recipients: [recovery.publicString],
        spec: { allowedNamespaces: ['other'] },
      }),
      replicationPolicy(),
      processServer(),
      protectedVM(),
    );
    await machineIdOf();
    await create(
      kube,
      secret('passphrase', { passphrase: PASSPHRASE }, 'other'),
      replicationPolicy('policy', 'other'),
      processServer('ps2', { vaultRef: { name: 'vault', namespace: 'default' } }, 'other'),
      protectedVM(
        'web',
        { vaultRef: { name: 'vault', namespace: 'default' }, processServerRef: { name: 'ps2' } },
        'other',
      ),
    );
    const condition = await untilCondition(kube, farshoreTypes.protectedVM, named('web', 'other'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    expect(condition.message).toContain('default/web');
  });

  test('a wrong passphrase, an unknown machine, another process server’s machine', async () => {
    operate();
    await createAll();
    await create(kube, processServer('ps2'));
    await machineIdOf();
    await bootstrapOf(kube, 'ps2-bootstrap');
    const ask = async (options: Parameters<typeof askAsAgent>[1]) =>
      await awaitAnswer(objects, (await askAsAgent(objects, options)).id);
    expect(await ask({ name: 'web', via: 'ps', passphrase: 'wrong' })).toMatchObject({
      outcome: 'refused',
      code: 'WrongPassphrase',
    });
    expect(await ask({ name: 'nobody', via: 'ps' })).toMatchObject({ code: 'UnknownMachine' });
    expect(await ask({ name: 'nobody', via: 'ps', passphrase: 'wrong' })).toMatchObject({
      code: 'WrongPassphrase',
    });
    expect(await ask({ name: 'web', via: 'ps2' })).toMatchObject({ code: 'OtherProcessServer' });
  });

  test('a bootstrap file that was used: the Secret gets a new token', async () => {
    operate();
    await createAll();
    const first = await enrolProcessServer();
    const second = await askWithToken(objects, first.bootstrap);
    expect(await awaitAnswer(objects, second.id)).toMatchObject({ code: 'TokenSpent' });
    await eventually(async () => {
      const { token } = await bootstrapOf(kube, 'ps-bootstrap');
      expect(token).not.toBe(first.bootstrap.token);
    });
    const third = await enrolProcessServer();
    expect(third.bootstrap.token).not.toBe(first.bootstrap.token);
    const forged = await askWithToken(objects, { ...third.bootstrap, token: 'x'.repeat(32) });
    expect(await awaitAnswer(objects, forged.id)).toMatchObject({ code: 'TokenWrong' });
  });
});

describe('the signed list', () => {
  test('follows the spec, and its generation goes on after a restart without anything made twice', async () => {
    const first = operate();
    await createAll();
    const { bootstrap } = await enrolProcessServer();
    const machineId = await machineIdOf();
    const before = await eventually(async () => {
      const list = await listOf(bootstrap.controllerPublicKey);
      expect(list.machines[0]?.dataKey.map((one) => one.kind)).toContain('processserver');
      return list;
    });
    await first.stop();
    const kept = new Map(
      await Promise.all(
        objects
          .keys()
          .filter((key) => !key.includes('/status/'))
          .map(async (key) => [key, (await objects.head(key))?.etag] as const),
      ),
    );
    operate();
    await untilCondition(kube, farshoreTypes.processServer, named('ps'), {
      type: 'AssignmentsCurrent',
      status: 'True',
    });
    await systemClock.sleep(500);
    for (const [key, etag] of kept)
      expect([key, (await objects.head(key))?.etag]).toEqual([key, etag]);
    expect(objects.keys().filter((key) => kept.has(key)).length).toBe(kept.size);
    await kube.patch(farshoreTypes.protectedVM, named('web'), {
      merge: { spec: { paused: true, resyncRequest: { token: 'again' } } },
    });
    const after = await eventually(async () => {
      const list = await listOf(bootstrap.controllerPublicKey);
      expect(list.machines[0]).toMatchObject({ machineId, paused: true, resyncToken: 'again' });
      return list;
    });
    expect(after.generation).toBe(before.generation + 1);
  });

  test('keeps machines that would go all at once until somebody confirms', async () => {
    operate();
    await createAll();
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    await create(kube, ...names.map((name) => protectedVM(name)));
    const { bootstrap } = await enrolProcessServer();
    const pinned = bootstrap.controllerPublicKey;
    await eventually(async () => expect((await listOf(pinned)).machines).toHaveLength(7));
    for (const name of names) await kube.remove(farshoreTypes.protectedVM, named(name));
    const token = await eventually(async () => {
      const server = kube.peek<ProcessServer>(farshoreTypes.processServer, named('ps'));
      expect(server?.status?.pendingRemoval?.machines.length).toBeGreaterThan(3);
      return server?.status?.pendingRemoval?.token;
    });
    await untilCondition(kube, farshoreTypes.processServer, named('ps'), {
      type: 'AssignmentsCurrent',
      status: 'False',
      reason: 'RemovalNotConfirmed',
    });
    expect(kube.peek(farshoreTypes.protectedVM, named('f'))).toBeDefined();
    expect((await listOf(pinned)).machines.length).toBeGreaterThan(4);
    await eventually(async () => {
      const server = kube.peek<ProcessServer>(farshoreTypes.processServer, named('ps'));
      await kube.patch(farshoreTypes.processServer, named('ps'), {
        merge: { spec: { confirmRemoval: server?.status?.pendingRemoval?.token ?? token } },
      });
      await systemClock.sleep(200);
      expect((await listOf(pinned)).machines).toHaveLength(1);
    });
    for (const name of names) await gone(farshoreTypes.protectedVM, name);
  });

  test('is not given the epoch with which a failover sealed the journal', async () => {
    operate();
    await createAll();
    const { bootstrap } = await enrolProcessServer();
    const machineId = await machineIdOf();
    const pinned = bootstrap.controllerPublicKey;
    const before = await eventually(async () => {
      const list = await listOf(pinned);
      expect(list.machines).toHaveLength(1);
      return list;
    });
    await new Catalog({ store: objects }).update(machineId, (current) => ({
      ...current,
      activeSide: 'Azure',
      writerEpoch: current.writerEpoch + 1,
    }));
    await untilPhase('web', 'InAzure');
    await kube.patch(farshoreTypes.protectedVM, named('web'), {
      merge: { spec: { paused: true } },
    });
    await systemClock.sleep(400);
    expect((await listOf(pinned)).machines[0]?.writerEpoch).toBe(before.machines[0]?.writerEpoch);
    await kube.remove(farshoreTypes.protectedVM, named('web'));
    await untilCondition(kube, farshoreTypes.protectedVM, named('web'), {
      type: 'Ready',
      status: 'False',
      reason: 'ActiveInAzure',
    });
  });

  test('carries the last barrier that a planned failover asks for', async () => {
    operate();
    await createAll();
    const { bootstrap } = await enrolProcessServer();
    const machineId = await machineIdOf();
    await new Catalog({ store: objects }).update(machineId, (current) => ({
      ...current,
      activeFailover: 'move',
    }));
    await LedgerEntry.accept(objects, {
      name: 'move',
      failoverId: 'f'.repeat(32),
      namespace: 'default',
      uid: 'an earlier resource',
      installationId: 'a'.repeat(32),
      acceptedAt: systemClock.now(),
      outcome: 'Running',
      steps: [{ name: 'Validate', state: 'Done', startedAt: systemClock.now(), attempts: 1 }],
      request: {
        type: 'Planned',
        machineId,
        machineName: 'web',
        recoveryPoint: { type: 'Latest' },
        powerOffSource: true,
        verify: 'Full',
        target: resolveTarget(protectedVM(), recoveryVault({ recipients: [] }), 'Production'),
      },
    });
    await create(kube, failover('move', { type: 'Planned' }));
    await eventually(async () => {
      const list = await listOf(bootstrap.controllerPublicKey);
      expect(list.machines[0]?.finalSync).toEqual({ failover: 'move', powerOff: true });
    });
  });

  test('carries no last barrier that only the vault asks for', async () => {
    operate();
    await createAll();
    const { bootstrap } = await enrolProcessServer();
    const machineId = await machineIdOf();
    await new Catalog({ store: objects }).update(machineId, (current) => ({
      ...current,
      writerEpoch: 2,
      finalSync: { failover: 'move', powerOff: true },
    }));
    await eventually(async () => {
      const list = await listOf(bootstrap.controllerPublicKey);
      expect(list.machines[0]?.writerEpoch).toBe(2);
      expect(list.machines[0]?.finalSync).toBeUndefined();
    });
  });
});

describe('two clusters on one vault', () => {
  test('the second stands by, reads, and takes control only by the epoch that it names', async () => {
    operate({ holder: 'first cluster' });
    await createAll();
    const { bootstrap, box } = await enrolProcessServer();
    const machineId = await machineIdOf();
    const second = new FakeKube();
    await create(
      second,
      secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
      secret('passphrase', { passphrase: PASSPHRASE }),
      secret('recovery', { key: recovery.privateString }),
    );
    operate({ kube: second, holder: 'second cluster' });
    await createAll(second);
    const vaultType = farshoreTypes.recoveryVault;
    const standby = await untilCondition(second, vaultType, named('vault'), {
      type: 'InControl',
      status: 'False',
      reason: 'HeldByOther',
    });
    expect(standby.message).toContain('first cluster');
    const taken = await untilCondition(second, farshoreTypes.protectedVM, named('web'), {
      type: 'Accepted',
      status: 'False',
      reason: 'NameTaken',
    });
    expect(taken.message).toContain('default/web');
    const set = async (spec: object) =>
      await second.patch(vaultType, named('vault'), { merge: { spec } });
    await set({ takeControlFromEpoch: 7 });
    await systemClock.sleep(300);
    await untilCondition(second, vaultType, named('vault'), { type: 'InControl', status: 'False' });
    await set({ takeControlFromEpoch: 1 });
    await untilCondition(second, vaultType, named('vault'), {
      type: 'InControl',
      status: 'False',
      reason: 'KeyMissing',
    });
    await set({ vaultKeySecretRef: { name: 'recovery', key: 'key' } });
    await untilCondition(second, vaultType, named('vault'), { type: 'InControl', status: 'True' });
    await untilCondition(kube, vaultType, named('vault'), {
      type: 'InControl',
      status: 'False',
      reason: 'HeldByOther',
    });
    await untilCondition(second, farshoreTypes.protectedVM, named('web'), {
      type: 'Accepted',
      status: 'True',
    });
    await eventually(async () => {
      const machine = second.peek<ProtectedVM>(farshoreTypes.protectedVM, named('web'));
      expect(machine?.status?.machineId).toBe(machineId);
      const list = await listOf(bootstrap.controllerPublicKey);
      expect(list.controllerEpoch).toBe(2);
      expect(list.machines[0]?.machineId).toBe(machineId);
      expect(list.machines[0]?.dataKey.some((one) => one.recipient === box.id)).toBe(true);
    });
    // The recovery key may go back to where it is kept: the new cluster has a key of its own.
    await set({ vaultKeySecretRef: null });
    await systemClock.sleep(300);
    await untilCondition(second, vaultType, named('vault'), { type: 'Ready', status: 'True' });
  });
});

describe('appliers', () => {
  test('enrol with their own bootstrap file and are given every machine’s data key', async () => {
    operate();
    await createAll();
    const machineId = await machineIdOf();
    const bootstrap = await bootstrapOf(kube, 'vault-applier-bootstrap');
    const asked = await askWithToken(objects, bootstrap, { kind: 'applier' });
    expect(await awaitAnswer(objects, asked.id)).toMatchObject({ outcome: 'accepted' });
    await eventually(async () => {
      const entry = await new Catalog({ store: objects }).read(machineId);
      expect(entry?.document.dataKey.map((one) => one.recipient)).toContain(asked.box.id);
    });
  });
});

describe('a process server of mode StatefulSet', () => {
  test('gets a StatefulSet, a Service and a bootstrap file for each replica, and grows its volumes', async () => {
    operate();
    await create(
      kube,
      recoveryVault({ recipients: [recovery.publicString] }),
      replicationPolicy(),
      statefulServer({ size: '10Gi' }),
      protectedVM('web', { processServerRef: { name: 'sts' } }),
    );
    expect((await bootstrapOf(kube, 'sts-0-bootstrap')).endpoints).toEqual([
      'sts-0.default.svc:9443',
    ]);
    expect((await bootstrapOf(kube, 'sts-1-bootstrap')).name).toBe('sts-1');
    const set = await eventually(() => {
      const found = kube.peek<StatefulSet>(kubeTypes.statefulSet, named('sts'));
      if (found === undefined) throw new Error('no StatefulSet yet');
      return found;
    });
    expect(set.spec).toMatchObject({ replicas: 2, serviceName: 'sts' });
    expect(set.spec.volumeClaimTemplates[0]?.spec.resources.requests.storage).toBe('10Gi');
    for (const name of ['sts', 'sts-0', 'sts-1'])
      expect(kube.peek(kubeTypes.service, named(name))).toBeDefined();
    kube.seed(kubeTypes.persistentVolumeClaim, {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'cache-sts-0', namespace: 'default' },
      spec: { resources: { requests: { storage: '10Gi' } } },
    } as never);
    await kube.patch(farshoreTypes.processServer, named('sts'), {
      merge: { spec: { cache: { size: '20Gi' } } },
    });
    await eventually(() => {
      const now = kube.peek<StatefulSet>(kubeTypes.statefulSet, named('sts'));
      expect(now?.spec.volumeClaimTemplates[0]?.spec.resources.requests.storage).toBe('20Gi');
    });
    expect(kube.peek(kubeTypes.persistentVolumeClaim, named('cache-sts-0'))).toMatchObject({
      spec: { resources: { requests: { storage: '20Gi' } } },
    });
  });
});

interface StatefulSet extends KubeObject {
  spec: {
    replicas: number;
    volumeClaimTemplates: { spec: { resources: { requests: { storage: string } } } }[];
  };
}

function statefulServer(cache: { size: string }): ProcessServer {
  const server = processServer('sts', {
    mode: 'StatefulSet',
    replicas: 2,
    cache,
    image: 'farshore:1',
  });
  const { exposure: _, ...spec } = server.spec;
  return { ...server, spec };
}

async function untilPhase(name: string, phase: string): Promise<void> {
  await eventually(() => {
    const machine = kube.peek<ProtectedVM>(farshoreTypes.protectedVM, named(name));
    expect(machine?.status?.phase).toBe(phase);
  });
}
