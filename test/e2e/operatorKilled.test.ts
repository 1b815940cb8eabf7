/**
 * SIGKILL of the operator's process right after a call to Azure, or a write to the ledger, has had its effect and before the operator
 * knows of it: its successor goes on, makes nothing twice and leaves nothing behind. A moment is a call or write at its place in the
 * failover; one failover is killed at many of them, one after the other: every call that changes Azure, every third write to the
 * ledger (another third for each type, so that the three together die at all of them), and some of the rest. FARSHORE_EXHAUSTIVE=1
 * kills at every one.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import type { LoggedCall } from '../arm/callLog.ts';
import type { ModelMachine } from '../fixtures/modelMachine.ts';
import { ModelSite } from './modelSite.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const EXHAUSTIVE = process.env.FARSHORE_EXHAUSTIVE === '1';
/** Of the moments of a kind that are new, each so manieth is one to die at. */
const STRIDE = EXHAUSTIVE ? { write: 1, read: 1, ledger: 1 } : { write: 1, read: 15, ledger: 3 };
type Kind = keyof typeof STRIDE;
const FEWEST_KILLS = 12;
/** Past this an operator may live: names that are new at every attempt must end in a count that is wrong, not in a test without end. */
const MOST_KILLS = EXHAUSTIVE ? 300 : 40;
const MINUTE = 60_000;

/** Knows which moments there have been, and decides which are the operator's last. */
class Reaper {
  /** The failover whose moments count; none: nobody dies. */
  failover: string | undefined;
  readonly killedAt: string[] = [];
  readonly #seen: Record<Kind, Set<string>> = {
    write: new Set(),
    read: new Set(),
    ledger: new Set(),
  };
  #step = '';
  #begun = 0;
  #killing = false;
  site: ModelSite | undefined;

  async armCall(call: LoggedCall): Promise<void> {
    // Operations have random names.
    const name = call.operation.includes('operation') ? '' : call.name;
    const what = `${call.operation} ${name}`;
    if (/^(GET|HEAD) /.test(what)) await this.#moment('read', `${this.#step}: ${what}`);
    else await this.#moment('write', what);
  }

  async ledgerWrite(name: string): Promise<void> {
    if (name !== this.failover) return;
    const document = await this.site?.ledger(name);
    if (document === undefined) return;
    this.#step = document.steps.findLast((step) => step.state === 'Running')?.name ?? 'between';
    await this.#moment('ledger', shapeOf(document));
  }

  begin(failover: string): void {
    this.failover = failover;
    this.#begun += 1;
    this.killedAt.length = 0;
    for (const seen of Object.values(this.#seen)) seen.clear();
    this.#step = 'before';
  }

  end(): void {
    this.failover = undefined;
  }

  async #moment(kind: Kind, what: string): Promise<void> {
    const { site } = this;
    const seen = this.#seen[kind];
    if (this.failover === undefined || site === undefined || seen.has(what)) return;
    seen.add(what);
    // Calls that were under way at the same time: one death is theirs together, and one operator succeeds.
    const passed = (seen.size + this.#begun) % STRIDE[kind] !== 0;
    if (passed || this.#killing || this.killedAt.length >= MOST_KILLS) return;
    this.#killing = true;
    this.killedAt.push(what);
    await site.operator.kill();
    site.operator = site.startOperator();
    this.#killing = false;
  }
}

/** What a write changed, without what differs from one attempt to the next. */
function shapeOf(document: FailoverDocument): string {
  const { outcome, desired, steps, seal, finalBarrier, point, disks, nics, vm, health } = document;
  return JSON.stringify({
    ...{ outcome, desired, seal: seal !== undefined, final: finalBarrier !== undefined },
    steps: steps.map((step) => `${step.name}=${step.state}`),
    ...{ point: point !== undefined, health: health !== undefined },
    disks: disks?.map((disk) => [disk.managedDisk.id !== undefined, disk.rootMatches]),
    nics: nics?.map((nic) => nic.id !== undefined),
    vm: vm === undefined ? undefined : vm.id !== undefined,
  });
}

const workplace = makeWorkplace();
const reaper = new Reaper();
let site: ModelSite;

beforeAll(async () => {
  site = await ModelSite.start(workplace, reaper);
  reaper.site = site;
});

afterAll(async () => {
  reaper.end();
  await workplace.leave();
});

describe('an operator killed again and again during a failover', () => {
  const limit = { timeout: EXHAUSTIVE ? 15 * MINUTE : 6 * MINUTE };

  test(
    'Test, with its cleanup: one create a resource, and nothing of it is left',
    limit,
    async () => {
      const model = await site.addMachine('tried');
      const before = await site.cloud.arm.control.creations();
      const killed = await dyingOften('tried-test', async () => {
        await site.createFailover({ type: 'Test', name: 'tried-test', machine: 'tried' });
        const up = await site.untilOutcome('tried-test', 'FailedOver', limit.timeout);
        expect(up.disks?.map((disk) => disk.rootMatches)).toEqual([true, true]);
        await site.desire('tried-test', 'CleanedUp');
        await site.untilOutcome('tried-test', 'CleanedUp', limit.timeout);
      });
      expect(killed.length).toBeGreaterThanOrEqual(FEWEST_KILLS);
      await expectOneCreateEach(before, { disks: 2, networkInterfaces: 1, virtualMachines: 1 });
      expect(await site.madeBy('tried-test')).toEqual([]);
      await expectNothingTemporary('tried-test', model);
      const catalog = await site.catalog('tried');
      expect(catalog).toMatchObject({ activeSide: 'Source', writerEpoch: 1 });
      expect(catalog.activeFailover).toBeUndefined();
    },
  );

  test(
    'Unplanned, with its commit: one create a resource, and only the machine is left',
    limit,
    async () => {
      const model = await site.addMachine('lost');
      const before = await site.cloud.arm.control.creations();
      const killed = await dyingOften('lost-disaster', async () => {
        await site.createFailover({ type: 'Unplanned', name: 'lost-disaster', machine: 'lost' });
        await site.untilOutcome('lost-disaster', 'FailedOver', limit.timeout);
        await site.desire('lost-disaster', 'Committed');
        await site.untilOutcome('lost-disaster', 'Committed', limit.timeout);
      });
      expect(killed.length).toBeGreaterThanOrEqual(FEWEST_KILLS);
      await expectMachineAlone('lost-disaster', { model, before });
    },
  );

  test(
    'Planned, with its commit: one last barrier, one create a resource, and only the machine is left',
    limit,
    async () => {
      const model = await site.addMachine('moved');
      const before = await site.cloud.arm.control.creations();
      const killed = await dyingOften('moved-move', async () => {
        const delivered = site.deliverFinalBarrier('moved', 'moved-move');
        await site.createFailover({ type: 'Planned', name: 'moved-move', machine: 'moved' });
        await delivered;
        const up = await site.untilOutcome('moved-move', 'FailedOver', limit.timeout);
        expect(up).toMatchObject({ rpoSeconds: 0, finalBarrier: { lsn: model.barriers[1]?.lsn } });
        await site.desire('moved-move', 'Committed');
        await site.untilOutcome('moved-move', 'Committed', limit.timeout);
      });
      expect(killed.length).toBeGreaterThanOrEqual(FEWEST_KILLS);
      await expectMachineAlone('moved-move', { model, before });
    },
  );
});

/** Runs a failover while its operator dies at its moments; returns those. The last operator is alive afterwards. */
async function dyingOften(failover: string, run: () => Promise<void>): Promise<string[]> {
  reaper.begin(failover);
  try {
    await run();
  } finally {
    reaper.end();
  }
  return [...reaper.killedAt];
}

async function expectOneCreateEach(
  before: Record<string, number>,
  expected: Record<string, number>,
): Promise<void> {
  const now = await site.cloud.arm.control.creations();
  const fresh = Object.entries(now).filter(([key]) => !(key in before));
  expect(fresh.filter(([, count]) => count !== 1)).toEqual([]);
  const kinds: Record<string, number> = {};
  for (const [key] of fresh) {
    const kind = key.slice(0, key.indexOf('/'));
    kinds[kind] = (kinds[kind] ?? 0) + 1;
  }
  expect(kinds).toEqual(expected);
}

async function expectMachineAlone(
  failover: string,
  at: { model: ModelMachine; before: Record<string, number> },
): Promise<void> {
  const { model, before } = at;
  await expectOneCreateEach(before, { disks: 2, networkInterfaces: 1, virtualMachines: 1 });
  const made = await site.madeBy(failover);
  expect(made.map((one) => one.type.replace(/^.*\//, '')).sort()).toEqual([
    'disks',
    'disks',
    'networkInterfaces',
    'virtualMachines',
  ]);
  expect(made.every((one) => one.provisioningState === 'Succeeded')).toBe(true);
  await expectNothingTemporary(failover, model);
  const catalog = await site.catalog(model.name);
  expect(catalog.activeSide).toBe('Azure');
  expect(catalog.activeFailover).toBeUndefined();
  // The resource says what the ledger does, whoever wrote it last.
  await eventually({ what: `${failover} shows its end`, timeoutMs: 30_000 }, async () =>
    (await site.failover(failover))?.status?.phase === 'Committed' ? true : undefined,
  );
}

async function expectNothingTemporary(failover: string, model: ModelMachine): Promise<void> {
  expect(await site.temporaryKeys(failover, model.machineId)).toEqual([]);
}
