import { describe, expect, test } from 'vitest';
import { Dying, Killed } from '../test/fakes/dying.ts';
import { ManualClock } from '../test/fakes/manualClock.ts';
import { MemoryCompute } from '../test/fakes/memoryCompute.ts';
import { MemoryObjectStore } from '../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../test/fakes/memoryPageBlobStore.ts';
import { SeededRandom } from '../test/fakes/seededRandom.ts';
import { silentLogger } from '../test/fakes/silentLogger.ts';
import { ModelMachine } from '../test/fixtures/modelMachine.ts';
import { Catalog } from '../vault/catalog.ts';
import {
  encodeDocument,
  type MachineStatus,
  type ProcessServerStatus,
  processServerStatusSchema,
} from '../vault/documents.ts';
import { vaultLayout } from '../vault/layout.ts';
import type { FailoverDocument, FailoverRequest } from '../vault/ledger.ts';
import { LedgerEntry } from '../vault/ledger.ts';
import type { RecoveryDeps } from './context.ts';
import { desire, runFailover } from './failover.ts';

const never = new AbortController().signal;

describe('a failover', () => {
  test('unplanned, to the latest point: the disks equal the source at its last barrier', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.machine.scribble();
    await site.machine.barrier();
    site.machine.scribble();
    const document = await site.run({ type: 'Unplanned' });
    expect(document).toMatchObject({ outcome: 'FailedOver', rpoSeconds: expect.any(Number) });
    expect(document.disks?.map((disk) => disk.rootMatches)).toEqual([true, true]);
    site.expectDisksOf(1);
    expect((await site.catalog()).activeSide).toBe('Azure');
  });

  test('to the point at a time: not the newest one', async () => {
    const site = await makeSite();
    for (let round = 0; round < 3; round++) {
      site.machine.scribble();
      await site.machine.barrier();
      await site.clock.advance(60_000);
    }
    const timeMs = (site.machine.barriers[1]?.timeMs ?? 0) + 10_000;
    await site.run({ type: 'Test', recoveryPoint: { type: 'Time', timeMs } });
    site.expectDisksOf(1);
  });

  test('of a name that is no recovery point: refused before the journal is sealed', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.run({ type: 'Test' });
    await site.finish('CleanedUp');
    const document = await site.run(
      { type: 'Unplanned', recoveryPoint: { type: 'Name', name: '1' } },
      'second',
    );
    expect(document.failure).toMatchObject({ step: 'Validate', code: 'RecoveryPointNotFound' });
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
  });

  test('of a test: cleaning up leaves nothing in Azure and the source side as it was', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    const document = await site.run({ type: 'Test' });
    expect(document.vm?.name).toMatch(/^web-1-test-/);
    await site.finish('CleanedUp');
    site.expectNothingLeft();
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
    expect((await site.catalog()).activeFailover).toBeUndefined();
    // Replication goes on: the next barrier is accepted by the chain.
    site.machine.scribble();
    await site.machine.barrier();
  });

  test('whose disk does not hash to the root: nothing boots, what was made is removed, the source may go on', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    const read = site.compute.read.bind(site.compute);
    site.compute.read = async (url, range) => {
      const bytes = (await read(url, range)).slice();
      bytes[100] = (bytes[100] ?? 0) ^ 1;
      return bytes;
    };
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure).toMatchObject({ step: 'VerifyDisks', code: 'RootMismatch' });
    expect(document.outcome).toBe('Failed');
    site.expectNothingLeft();
    const catalog = await site.catalog();
    expect(catalog.activeSide).toBe('Source');
    expect(catalog.writerEpoch).toBeGreaterThan(document.seal?.writerEpoch ?? 0);
  });

  test('whose machine stays silent: fails its health check and leaves the machine to be looked at', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.compute.serial = 'kernel panic';
    const document = await site.run({
      type: 'Unplanned',
      healthCheck: { serialContains: 'FARSHORE-RECOVERED', timeoutSeconds: 30 },
    });
    expect(document.failure?.code).toBe('HealthCheckFailed');
    expect(document.health?.evidence).toContain('kernel panic');
    expect([...site.compute.vms.keys()]).toEqual(['web-1']);
  });

  test('of a target that does not exist: refused with everything that is wrong, nothing touched', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.compute.resourceGroups.clear();
    site.compute.sizes = [];
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure?.code).toBe('ResourceGroupNotFound');
    expect(document.failure?.message).toContain('VM size Standard_B2s is not offered');
    expect(site.compute.creates).toEqual([]);
    expect((await site.catalog()).activeFailover).toBeUndefined();
  });

  test('of a machine that is in another failover: refused', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.run({ type: 'Test' });
    const second = await site.run({ type: 'Unplanned' }, 'second');
    expect(second.failure).toMatchObject({ code: 'MachineBusy' });
    expect(second.failure?.message).toContain('first');
    expect((await site.catalog()).activeFailover).toBe('first');
  });

  test('applied again after its end: adopted, nothing made twice', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.run({ type: 'Unplanned' });
    const creates = [...site.compute.creates];
    const again = await site.run({ type: 'Unplanned' });
    expect(again.outcome).toBe('FailedOver');
    expect(site.compute.creates).toEqual(creates);
    await site.finish('Committed');
    expect(site.compute.creates).toEqual(creates);
  });

  test('planned: waits for the last barrier of the source and brings up exactly that', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.sourceDelivers('first', { afterMs: 20_000 });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document).toMatchObject({
      outcome: 'FailedOver',
      rpoSeconds: 0,
      finalBarrier: { lsn: site.machine.barriers[1]?.lsn, poweredOff: true },
    });
    site.expectDisksOf(1);
  });

  test('planned, whose source wrote on behind its last barrier: brings up nothing, and lets it go on', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.sourceDelivers('first', { afterMs: 20_000, goesOn: true });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document.failure).toMatchObject({ step: 'SealJournal', code: 'SourceWentOn' });
    expect(document.failure?.message).toContain('create a new Planned Failover');
    expect(site.compute.creates).toEqual([]);
    const catalog = await site.catalog();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
    expect(catalog.activeFailover).toBeUndefined();
    expect(catalog.finalSync).toBeUndefined();
    expect(catalog.writerEpoch).toBeGreaterThan(document.seal?.writerEpoch ?? 0);
  });

  test('planned, whose source is thawed before the journal is sealed: nothing is sealed, and it goes on', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.sourceDelivers('first', { afterMs: 20_000 });
    const document = await site.run(
      { type: 'Planned', powerOffSource: true },
      'first',
      ({ finalBarrier }) => {
        if (finalBarrier !== undefined) void site.sourceRunsAgain();
      },
    );
    expect(document.failure).toMatchObject({ step: 'SealJournal', code: 'SourceWentOn' });
    expect(document.seal).toBeUndefined();
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source', writerEpoch: 1 });
  });

  test('planned, whose source stays on: believes that it is frozen only while its process server says so', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.sourceDelivers('first', { afterMs: 20_000, frozen: { heartbeats: 1 } });
    const document = await site.run({ type: 'Planned', powerOffSource: false });
    expect(document.failure).toMatchObject({ step: 'FinalSync', code: 'FinalSyncTimedOut' });
    await site.sourceDelivers('second', { afterMs: 20_000, frozen: { heartbeats: 20 } });
    const second = await site.run({ type: 'Planned', powerOffSource: false }, 'second');
    expect(second).toMatchObject({ outcome: 'FailedOver', finalBarrier: { poweredOff: false } });
  });

  test('planned, whose source never answers: lets it go on and says to choose Unplanned', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document.failure).toMatchObject({ step: 'FinalSync', code: 'FinalSyncTimedOut' });
    expect(document.failure?.message).toContain('Unplanned');
    const catalog = await site.catalog();
    expect(catalog.finalSync).toBeUndefined();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
    expect(site.compute.creates).toEqual([]);
  });

  test('planned, whose last barrier can not be proven: never an older point in its place', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.machine.writeUnseen();
    await site.sourceDelivers('first', { afterMs: 20_000 });
    const document = await site.run({ type: 'Planned', powerOffSource: true });
    expect(document.failure).toMatchObject({
      step: 'ChoosePoint',
      code: 'FinalBarrierNotRecovered',
    });
    expect(document.failure?.message).toContain('start it again');
    expect(document.steps.find((step) => step.name === 'ApplyJournal')?.message).toContain(
      'is not offered',
    );
    expect(site.compute.creates).toEqual([]);
    const catalog = await site.catalog();
    expect(catalog).toMatchObject({ activeSide: 'Source' });
    expect(catalog.activeFailover).toBeUndefined();
    expect(catalog.writerEpoch).toBeGreaterThan(document.seal?.writerEpoch ?? 0);
  });

  test('to a named barrier that can not be proven, or past the end of the journal: says which', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.machine.writeUnseen();
    const unproven = await site.machine.barrier();
    const name = String(unproven.lsn);
    const first = await site.run({ type: 'Test', recoveryPoint: { type: 'Name', name } });
    expect(first.failure).toMatchObject({ step: 'ApplyJournal', code: 'RecoveryPointNotProven' });
    const second = await site.run(
      { type: 'Test', recoveryPoint: { type: 'Name', name: '999999' } },
      'second',
    );
    expect(second.failure).toMatchObject({ step: 'ApplyJournal', code: 'RecoveryPointNotFound' });
    expect(second.failure?.message).toContain(`ends at LSN ${unproven.lsn}`);
  });

  test('over a damaged journal: ends clearly and frees the machine; what is whole is brought up next', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.machine.scribble();
    await site.machine.barrier();
    await site.flipByteOfSegment(2);
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure?.code).toBe('JournalDamaged');
    expect(document.failure?.message).toContain('LatestProcessed');
    expect(await site.catalog()).toMatchObject({ activeSide: 'Source' });
    const second = await site.run(
      { type: 'Unplanned', recoveryPoint: { type: 'LatestProcessed' } },
      'second',
    );
    expect(second.outcome).toBe('FailedOver');
    site.expectDisksOf(0);
  });

  test('of a test that stays silent: keeps its machine until it is cleaned up, and then leaves nothing', async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    site.compute.serial = 'kernel panic';
    await site.run({
      type: 'Test',
      healthCheck: { serialContains: 'FARSHORE-RECOVERED', timeoutSeconds: 30 },
    });
    expect((await site.catalog()).activeFailover).toBe('first');
    await site.finish('CleanedUp');
    site.expectNothingLeft();
    expect((await site.catalog()).activeFailover).toBeUndefined();
  });

  test("of a name in Azure that is somebody else's: refused, and theirs stays", async () => {
    const site = await makeSite();
    site.machine.scribble();
    await site.machine.barrier();
    await site.compute.createVm(
      { resourceGroup: 'recovery', name: 'web-1' },
      { osDiskId: await theirDisk(site), dataDisks: [], nicIds: [], tags: {} },
    );
    const document = await site.run({ type: 'Unplanned' });
    expect(document.failure).toMatchObject({ step: 'CreateVm', code: 'NameInUse' });
    expect([...site.compute.vms.keys()]).toEqual(['web-1']);
    expect(site.compute.disks.size).toBe(1);
  });
});

describe('an operator killed at any call', () => {
  for (const type of ['Test', 'Unplanned'] as const)
    for (const when of ['before', 'after'] as const)
      test(`${type}, ${when} the call happens: its successor goes on, one create a resource, nothing left behind`, async () => {
        let callsSurvived = 0;
        for (let atCall = 1; ; atCall++) {
          const site = await makeSite();
          site.machine.scribble();
          await site.machine.barrier();
          const died = await site.runAndDie({ type }, new Dying({ atCall, when }));
          if (!died) break;
          callsSurvived++;
          const document = await site.run({ type });
          expect(document.outcome, `killed at call ${atCall}`).toBe('FailedOver');
          site.expectDisksOf(0);
          expect(site.compute.creates.toSorted(), `killed at call ${atCall}`).toEqual(
            [...new Set(site.compute.creates)].toSorted(),
          );
          expect(site.compute.creates).toHaveLength(4);
          await site.finish(type === 'Test' ? 'CleanedUp' : 'Committed');
          expect(site.pages.keys().filter((key) => key.startsWith('failovers/'))).toEqual([]);
          if (type === 'Test') site.expectNothingLeft();
        }
        // Every ARM call, every ledger write, every copy: far more than this many.
        expect(callsSurvived).toBeGreaterThan(60);
      }, 240_000);
});

async function theirDisk(site: Awaited<ReturnType<typeof makeSite>>): Promise<string> {
  site.compute.disks.set('theirs', {
    id: 'disks/theirs',
    state: 'Unattached',
    provisioning: 'Succeeded',
    sizeBytes: 1 << 20,
    tags: {},
    body: new Uint8Array(1 << 20),
  });
  return 'disks/theirs';
}

async function makeSite() {
  const clock = new ManualClock();
  const random = new SeededRandom(7);
  const objects = new MemoryObjectStore({ clock });
  const pages = new MemoryPageBlobStore({ clock });
  const compute = new MemoryCompute({ pages });
  const machine = new ModelMachine({ objects, clock, random });
  await machine.enterCatalog();
  const worldly = { objects, pages, compute, images: compute };
  const depsOf = (world: typeof worldly): RecoveryDeps => ({
    ...world,
    clock,
    random,
    logger: silentLogger,
    openDataKey: async () => machine.dataKey,
    assertInControl: async () => {},
    pollMs: 1000,
  });
  const accept = async (request: Partial<FailoverRequest>, name: string) =>
    await LedgerEntry.accept(objects, {
      name,
      failoverId: Buffer.from(random.bytes(16)).toString('hex'),
      namespace: 'default',
      uid: 'uid-1',
      installationId: 'a'.repeat(32),
      request: requestOf(machine, request),
      acceptedAt: clock.now(),
      outcome: 'Running',
      steps: [],
    });
  /** Time passes whenever the failover waits for it. */
  const drive = async <T>(work: Promise<T>): Promise<T> => {
    let ended = false;
    const settled = work.finally(() => {
      ended = true;
    });
    settled.catch(() => {});
    while (!ended) await clock.advance(500);
    return await settled;
  };
  return {
    clock,
    pages,
    compute,
    machine,
    catalog: async () => {
      const found = await new Catalog({ store: objects }).read(machine.machineId);
      if (found === undefined) throw new Error('the catalog is empty');
      return found.document;
    },
    /** Stands in for agent and process server: some time after they are asked, the last barrier is in the vault. */
    sourceDelivers: async (
      failover: string,
      options: {
        afterMs: number;
        /** It writes on behind its last barrier, and that is in the vault too. */
        goesOn?: boolean;
        /** It stays on, and its process server is heard of no more after this. */
        frozen?: { heartbeats: number };
      },
    ) => {
      void (async () => {
        while (
          (await new Catalog({ store: objects }).read(machine.machineId))?.document.finalSync ===
          undefined
        )
          await clock.sleep(500);
        await clock.sleep(options.afterMs);
        machine.scribble();
        const { lsn } = await machine.barrier();
        if (options.goesOn) {
          machine.scribble();
          await machine.barrier();
        }
        const final = { failover, lsn, poweredOff: options.frozen === undefined };
        for (let beat = 0; beat < (options.frozen?.heartbeats ?? 1); beat += 1) {
          await objects.put(
            vaultLayout.processServerStatus('ps-1'),
            encodeDocument(processServerStatusSchema, {
              ...statusWith(machine, final),
              heartbeatMs: beat,
            }),
          );
          await clock.sleep(5_000);
        }
      })();
    },
    /** Its process server says of it what it says of any machine. */
    sourceRunsAgain: async () => {
      await objects.put(
        vaultLayout.processServerStatus('ps-1'),
        encodeDocument(processServerStatusSchema, statusWith(machine, undefined)),
      );
    },
    run: async (
      request: Partial<FailoverRequest>,
      name = 'first',
      onChange: (document: FailoverDocument) => void = () => undefined,
    ): Promise<FailoverDocument> => {
      await accept(request, name);
      return await drive(runFailover(name, depsOf(worldly), { signal: never, onChange }));
    },
    flipByteOfSegment: async (sequence: number): Promise<void> => {
      const key = vaultLayout.segment(machine.machineId, sequence);
      const body = Buffer.from((await objects.get(key))?.body ?? new Uint8Array());
      body[body.length - 20] = (body[body.length - 20] ?? 0) ^ 1;
      await objects.put(key, body);
    },
    finish: async (desired: 'Committed' | 'CleanedUp', name = 'first') => {
      await desire(name, { objects }, desired);
      const document = await drive(runFailover(name, depsOf(worldly), { signal: never }));
      expect(document.outcome).toBe(desired);
    },
    runAndDie: async (request: Partial<FailoverRequest>, dying: Dying): Promise<boolean> => {
      await accept(request, 'first');
      const mortal = {
        objects: dying.port(objects),
        pages: dying.port(pages),
        compute: dying.port(compute),
        images: dying.port(compute),
      };
      try {
        await drive(runFailover('first', depsOf(mortal), { signal: never }));
        return false;
      } catch (error) {
        if (error instanceof Killed) return true;
        throw error;
      }
    },
    expectDisksOf: (barrier: number) => {
      const bodies = machine.barriers[barrier]?.bodies ?? [];
      const disks = [...compute.disks.values()];
      expect(disks).toHaveLength(bodies.length);
      for (const [index, body] of bodies.entries())
        expect(Buffer.compare(disks[index]?.body ?? Buffer.alloc(0), body)).toBe(0);
    },
    expectNothingLeft: () => {
      expect(compute.vms.size + compute.nics.size + compute.disks.size).toBe(0);
      expect(pages.keys().filter((key) => key.startsWith('failovers/'))).toEqual([]);
    },
  };
}

function requestOf(machine: ModelMachine, request: Partial<FailoverRequest>): FailoverRequest {
  return {
    type: 'Unplanned',
    machineId: machine.machineId,
    machineName: machine.name,
    recoveryPoint: { type: 'Latest' },
    powerOffSource: false,
    verify: 'Full',
    target: {
      name: 'web-1',
      resourceGroup: 'recovery',
      location: 'westeurope',
      size: 'Standard_B2s',
      osType: 'Linux',
      generation: 'V1',
      diskType: 'StandardSSD_LRS',
      nics: [{ resourceGroup: 'recovery', network: 'production', subnet: 'default' }],
      tags: {},
      storageAccountId: '/subscriptions/x/storageAccounts/y',
    },
    ...request,
  };
}

function statusWith(
  machine: ModelMachine,
  finalBarrier: MachineStatus['finalBarrier'],
): ProcessServerStatus {
  return {
    name: 'ps-1',
    version: '0',
    formatVersion: 1,
    heartbeatMs: 0,
    clockOffsetMs: 0,
    cache: { totalBytes: 1, freeBytes: 1 },
    throughput: { inBytesPerSecond: 0, outBytesPerSecond: 0 },
    endpoints: [],
    machines: [
      {
        machineId: machine.machineId,
        writerEpoch: 1,
        agent: { connected: true },
        disks: [],
        positions: { capturedLsn: 0n, journaledLsn: 0n, uploadedLsn: 0n },
        barriers: { count: 0, voided: 0, lastFreezeMs: 0, maxFreezeMs: 0 },
        backlog: { agentBytes: 0, cacheBytes: 0 },
        finalBarrier,
        errors: [],
      },
    ],
  };
}
