/** What a machine and its process server go through until they are known to the vault, and what is refused on the way. */
import { describe, expect } from 'vitest';
import { farshoreTypes, type ProcessServer } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Catalog } from '../../vault/catalog.ts';
import { answerMac } from '../../vault/enrolmentProof.ts';
import { openDataKey } from '../../vault/keys.ts';
import { requireVault } from '../../vault/vault.ts';
import {
  create,
  named,
  PASSPHRASE,
  processServer,
  protectedVM,
  recoveryVault,
  replicationPolicy,
  secret,
} from './manifests.ts';
import { test } from './memoryWorld.ts';
import {
  askAsAgent,
  askWithToken,
  awaitAnswer,
  bootstrapOf,
  machineReport,
  readList,
  reportStatus,
} from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

describe('a machine', () => {
  test('is accepted, enrolled, assigned and shown', async ({ world }) => {
    const { kube, objects, recovery } = world;
    world.operate();
    await world.createAll();
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
    const machineId = await world.machineIdOf();
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
  test.for([
    ['VaultNotFound', { vaultRef: { name: 'nowhere' } }],
    ['PolicyNotFound', { policyRef: { name: 'nowhere' } }],
    ['ProcessServerNotFound', { processServerRef: { name: 'nowhere' } }],
  ] as const)('an unknown reference: %s', async ([reason, spec], { world }) => {
    const { kube, objects } = world;
    world.operate();
    await create(
      kube,
      world.vault(),
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

  test('a vault of another namespace that does not allow this one', async ({ world }) => {
    const { kube } = world;
    world.operate();
    await world.createAll();
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

  test('a machine name that another namespace holds, saying who does', async ({ world }) => {
    const { kube, recovery } = world;
    world.operate();
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
    await world.machineIdOf();
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

  test('a wrong passphrase, an unknown machine, another process server’s machine', async ({
    world,
  }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    await create(kube, processServer('ps2'));
    await world.machineIdOf();
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

  test('a bootstrap file that was used: the Secret gets a new token', async ({ world }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    const first = await world.enrolProcessServer();
    const second = await askWithToken(objects, first.bootstrap);
    expect(await awaitAnswer(objects, second.id)).toMatchObject({ code: 'TokenSpent' });
    await eventually(async () => {
      const { token } = await bootstrapOf(kube, 'ps-bootstrap');
      expect(token).not.toBe(first.bootstrap.token);
    });
    const third = await world.enrolProcessServer();
    expect(third.bootstrap.token).not.toBe(first.bootstrap.token);
    const forged = await askWithToken(objects, { ...third.bootstrap, token: 'x'.repeat(32) });
    expect(await awaitAnswer(objects, forged.id)).toMatchObject({ code: 'TokenWrong' });
  });
});
