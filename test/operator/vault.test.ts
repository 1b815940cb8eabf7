/** RecoveryVaults: made, in trouble, proven, held while in use; and the appliers that they take in. */
import { describe, expect } from 'vitest';
import { farshoreTypes } from '../../crds/index.ts';
import { kubeTypes } from '../../platform/kubernetes.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { StoreError } from '../../platform/storeErrors.ts';
import { Catalog } from '../../vault/catalog.ts';
import { answerRecoveryChallenge, writeRecoveryCheck } from '../../vault/recoveryCheck.ts';
import { requireVault } from '../../vault/vault.ts';
import { create, named } from './manifests.ts';
import { test } from './memoryWorld.ts';
import { askWithToken, awaitAnswer, bootstrapOf } from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

describe('a vault', () => {
  test('is made with its key in a Secret, and taken into control', async ({ world }) => {
    const { kube } = world;
    world.operate();
    await create(kube, world.vault());
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

  test('that refuses the key, has no container or a newer format says so, and recovers', async ({
    world,
  }) => {
    const { kube, objects } = world;
    world.operate();
    const type = farshoreTypes.recoveryVault;
    for (const [code, reason] of [
      ['VaultRefusedKey', 'CredentialsRefused'],
      ['VaultContainerMissing', 'ContainerMissing'],
      ['VaultUnreachable', 'VaultUnreachable'],
    ] as const) {
      objects.fault = () => ({ when: 'before', error: new StoreError(code, 'scripted.') });
      if (kube.peek(type, named('vault')) === undefined) await create(kube, world.vault());
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

  test('that has gone is never made anew under a resource that held it', async ({ world }) => {
    const { kube, objects } = world;
    world.operate();
    const type = farshoreTypes.recoveryVault;
    await create(kube, world.vault());
    await untilCondition(kube, type, named('vault'), { type: 'Ready', status: 'True' });
    await objects.remove('vault.json');
    await untilCondition(kube, type, named('vault'), {
      type: 'Reachable',
      status: 'False',
      reason: 'VaultDamaged',
    });
    expect(objects.keys()).not.toContain('vault.json');
  });

  test('shows a recovery key as verified once it answered the challenge', async ({ world }) => {
    const { kube, objects, recovery } = world;
    world.operate();
    const type = farshoreTypes.recoveryVault;
    await create(kube, world.vault());
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

  test('is held while machines use it, and closed once they are gone', async ({ world }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    await world.machineIdOf();
    const type = farshoreTypes.recoveryVault;
    await kube.remove(type, named('vault'));
    await untilCondition(kube, type, named('vault'), {
      type: 'Ready',
      status: 'False',
      reason: 'InUse',
    });
    await kube.remove(farshoreTypes.protectedVM, named('web'));
    await world.untilGone(farshoreTypes.protectedVM, 'web');
    await kube.remove(farshoreTypes.processServer, named('ps'));
    await world.untilGone(type, 'vault');
    expect(objects.keys()).toContain('vault.json');
  });
});

describe('appliers', () => {
  test('enrol with their own bootstrap file and are given every machine’s data key', async ({
    world,
  }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    const machineId = await world.machineIdOf();
    const bootstrap = await bootstrapOf(kube, 'vault-applier-bootstrap');
    const asked = await askWithToken(objects, bootstrap, { kind: 'applier' });
    expect(await awaitAnswer(objects, asked.id)).toMatchObject({ outcome: 'accepted' });
    await eventually(async () => {
      const entry = await new Catalog({ store: objects }).read(machineId);
      expect(entry?.document.dataKey.map((one) => one.recipient)).toContain(asked.box.id);
    });
  });
});
