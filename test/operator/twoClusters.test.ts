/** Two installations on one vault: one is in control. */
import { describe, expect } from 'vitest';
import { farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { FakeKube } from '../fakes/kube.ts';
import { create, named, PASSPHRASE, secret } from './manifests.ts';
import { test } from './memoryWorld.ts';
import { listOf } from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

describe('two clusters on one vault', () => {
  test('the second stands by, reads, and takes control only by the epoch that it names', async ({
    world,
  }) => {
    const { kube, objects, recovery } = world;
    world.operate({ holder: 'first cluster' });
    await world.createAll();
    const { bootstrap, box } = await world.enrolProcessServer();
    const machineId = await world.machineIdOf();
    const second = new FakeKube();
    await create(
      second,
      secret('azure', { clientSecret: 'secret', connectionString: 'UseDevelopmentStorage=true' }),
      secret('passphrase', { passphrase: PASSPHRASE }),
      secret('recovery', { key: recovery.privateString }),
    );
    world.operate({ kube: second, holder: 'second cluster' });
    await world.createAll(second);
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
      const list = await listOf(objects, bootstrap.controllerPublicKey);
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
