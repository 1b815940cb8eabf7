/** The list of machines that a process server obeys: what gets into it, what stays in it, what never does. */
import { describe, expect } from 'vitest';
import { farshoreTypes, type ProcessServer } from '../../crds/index.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Catalog } from '../../vault/catalog.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { failoverEntry } from '../fixtures/failoverEntry.ts';
import { create, failover, named, protectedVM } from './manifests.ts';
import { test } from './memoryWorld.ts';
import { listOf } from './peers.ts';
import { eventually, untilCondition } from './waiting.ts';

describe('the signed list', () => {
  test('follows the spec, and its generation goes on after a restart without anything made twice', async ({
    world,
  }) => {
    const { kube, objects } = world;
    const first = world.operate();
    await world.createAll();
    const { bootstrap } = await world.enrolProcessServer();
    const machineId = await world.machineIdOf();
    const before = await eventually(async () => {
      const list = await listOf(objects, bootstrap.controllerPublicKey);
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
    world.operate();
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
      const list = await listOf(objects, bootstrap.controllerPublicKey);
      expect(list.machines[0]).toMatchObject({ machineId, paused: true, resyncToken: 'again' });
      return list;
    });
    expect(after.generation).toBe(before.generation + 1);
  });

  test('keeps machines that would go all at once until somebody confirms', async ({ world }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    await create(kube, ...names.map((name) => protectedVM(name)));
    const { bootstrap } = await world.enrolProcessServer();
    const pinned = bootstrap.controllerPublicKey;
    await eventually(async () => expect((await listOf(objects, pinned)).machines).toHaveLength(7));
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
    expect((await listOf(objects, pinned)).machines.length).toBeGreaterThan(4);
    await eventually(async () => {
      const server = kube.peek<ProcessServer>(farshoreTypes.processServer, named('ps'));
      await kube.patch(farshoreTypes.processServer, named('ps'), {
        merge: { spec: { confirmRemoval: server?.status?.pendingRemoval?.token ?? token } },
      });
      await systemClock.sleep(200);
      expect((await listOf(objects, pinned)).machines).toHaveLength(1);
    });
    for (const name of names) await world.untilGone(farshoreTypes.protectedVM, name);
  });

  test('is not given the epoch with which a failover sealed the journal', async ({ world }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    const { bootstrap } = await world.enrolProcessServer();
    const machineId = await world.machineIdOf();
    const pinned = bootstrap.controllerPublicKey;
    const before = await eventually(async () => {
      const list = await listOf(objects, pinned);
      expect(list.machines).toHaveLength(1);
      return list;
    });
    await new Catalog({ store: objects }).update(machineId, (current) => ({
      ...current,
      activeSide: 'Azure',
      writerEpoch: current.writerEpoch + 1,
    }));
    await world.untilPhase(farshoreTypes.protectedVM, 'web', { phase: 'InAzure' });
    await kube.patch(farshoreTypes.protectedVM, named('web'), {
      merge: { spec: { paused: true } },
    });
    await systemClock.sleep(400);
    expect((await listOf(objects, pinned)).machines[0]?.writerEpoch).toBe(
      before.machines[0]?.writerEpoch,
    );
    await kube.remove(farshoreTypes.protectedVM, named('web'));
    await untilCondition(kube, farshoreTypes.protectedVM, named('web'), {
      type: 'Ready',
      status: 'False',
      reason: 'ActiveInAzure',
    });
  });

  test('carries the last barrier that a planned failover asks for', async ({ world }) => {
    const { kube, objects } = world;
    world.operate();
    await world.createAll();
    const { bootstrap } = await world.enrolProcessServer();
    const machineId = await world.machineIdOf();
    await new Catalog({ store: objects }).update(machineId, (current) => ({
      ...current,
      activeFailover: 'move',
    }));
    await LedgerEntry.accept(
      objects,
      failoverEntry({
        uid: 'an earlier resource',
        acceptedAt: systemClock.now(),
        steps: [{ name: 'Validate', state: 'Done', startedAt: systemClock.now(), attempts: 1 }],
        request: { type: 'Planned', machineId, powerOffSource: true },
      }),
    );
    await create(kube, failover('move', { type: 'Planned' }));
    await eventually(async () => {
      const list = await listOf(objects, bootstrap.controllerPublicKey);
      expect(list.machines[0]?.finalSync).toEqual({ failover: 'move', powerOff: true });
    });
  });

  test('carries no last barrier that only the vault asks for', async ({ world }) => {
    const { objects } = world;
    world.operate();
    await world.createAll();
    const { bootstrap } = await world.enrolProcessServer();
    const machineId = await world.machineIdOf();
    await new Catalog({ store: objects }).update(machineId, (current) => ({
      ...current,
      writerEpoch: 2,
      finalSync: { failover: 'move', powerOff: true },
    }));
    await eventually(async () => {
      const list = await listOf(objects, bootstrap.controllerPublicKey);
      expect(list.machines[0]?.writerEpoch).toBe(2);
      expect(list.machines[0]?.finalSync).toBeUndefined();
    });
  });
});
