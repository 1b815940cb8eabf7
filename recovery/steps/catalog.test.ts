import { describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { failoverEntry } from '../../test/fixtures/failoverEntry.ts';
import { ModelMachine } from '../../test/fixtures/modelMachine.ts';
import { Catalog } from '../../vault/catalog.ts';
import { LedgerEntry } from '../../vault/ledger.ts';
import { claimMachine, releaseMachine, requestFinalSync, takeSide } from './catalog.ts';

describe('a runner that was stopped for long and wakes after its failover ended', () => {
  for (const [what, late] of [
    ['takes the side', takeSide],
    ['asks for the final sync', requestFinalSync],
  ] as const)
    test(`${what} of nothing: the machine stays at its source`, async () => {
      const { deps, machine, first, catalog } = await makeVault();
      await claimMachine(deps, first);
      await releaseMachine(deps, first, { backToSource: true });
      const before = await catalog();
      await expect(late(deps, first)).rejects.toMatchObject({ code: 'MachineNotHeld' });
      expect(await catalog()).toEqual(before);
      expect(machine.name).toBe('web-1');
    });

  test('claims the machine once more: the next failover is not held up by it', async () => {
    const { deps, first, second, catalog } = await makeVault();
    await (await LedgerEntry.accept(deps.objects, first)).update({ outcome: 'Failed' });
    await claimMachine(deps, first);
    await claimMachine(deps, second);
    expect((await catalog()).activeFailover).toBe('second');
  });
});

describe('a machine', () => {
  test('is in one failover: a second is refused while the first runs', async () => {
    const { deps, first, second, catalog } = await makeVault();
    await LedgerEntry.accept(deps.objects, first);
    await claimMachine(deps, first);
    await expect(claimMachine(deps, second)).rejects.toMatchObject({ code: 'MachineBusy' });
    expect((await catalog()).activeFailover).toBe('first');
  });

  test('of a failover that is up, or whose machine waits to be looked at, is not free', async () => {
    for (const outcome of ['FailedOver', 'Failed'] as const) {
      const { deps, first, second } = await makeVault();
      const entry = await LedgerEntry.accept(deps.objects, first);
      await claimMachine(deps, first);
      await entry.update({
        outcome,
        ...(outcome === 'Failed'
          ? { failure: { step: 'HealthCheck', code: 'HealthCheckFailed', message: '' } }
          : {}),
      });
      await expect(claimMachine(deps, second)).rejects.toMatchObject({ code: 'MachineBusy' });
    }
  });
});

async function makeVault() {
  const clock = new ManualClock();
  const random = new SeededRandom(3);
  const objects = new MemoryObjectStore({ clock });
  const machine = new ModelMachine({ objects, clock, random });
  await machine.enterCatalog();
  const documentOf = (name: string) =>
    failoverEntry({
      name,
      failoverId: Buffer.from(random.bytes(16)).toString('hex'),
      acceptedAt: clock.now(),
      request: {
        type: 'Planned',
        machineId: machine.machineId,
        machineName: machine.name,
        powerOffSource: true,
      },
    });
  return {
    deps: { objects },
    machine,
    first: documentOf('first'),
    second: documentOf('second'),
    catalog: async () => {
      const found = await new Catalog({ store: objects }).read(machine.machineId);
      if (found === undefined) throw new Error('the catalog is empty');
      return found.document;
    },
  };
}
