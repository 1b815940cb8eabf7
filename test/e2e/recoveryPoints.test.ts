/** What may be asked of a Failover, through the API: every choice of a recovery point, and everything that is refused. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Failover, ProtectedVM } from '../../crds/index.ts';
import type { FailoverDocument } from '../../vault/documents/failover.ts';
import { bodyOf, type ModelMachine } from '../fixtures/modelMachine.ts';
import { ModelSite } from './modelSite.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const TIB_IN_MIB = 1 << 20;
const workplace = makeWorkplace();
let site: ModelSite;
/** Three barriers are points, a fourth is in the journal alone. */
let shop: ModelMachine;

beforeAll(async () => {
  site = await ModelSite.start(workplace);
  shop = await site.addMachine('shop');
  await site.applyPoints('shop');
  for (let round = 0; round < 2; round++) {
    await nextBarrier();
    await site.applyPoints('shop');
  }
  await nextBarrier();
});

afterAll(async () => {
  await workplace.leave();
});

async function nextBarrier(): Promise<void> {
  shop.scribble();
  const { lsn, timeMs } = await shop.barrier();
  await site.report('shop', { uploadedBarrier: { lsn, timeMs, consistency: 'Crash' } });
}

describe('a test failover to', () => {
  const choices: {
    to: string;
    /** Of the barriers that the machine had, in order. */
    gives: number;
    point: () => Failover['spec']['recoveryPoint'];
  }[] = [
    { to: 'the latest processed point', gives: 2, point: () => ({ type: 'LatestProcessed' }) },
    {
      to: 'the newest point at a time',
      gives: 1,
      point: () => ({ type: 'Time', time: new Date(barrier(1).timeMs).toISOString() }),
    },
    {
      to: 'a time just before a point: the one before it',
      gives: 0,
      point: () => ({ type: 'Time', time: new Date(barrier(1).timeMs - 1).toISOString() }),
    },
    {
      to: 'a point by its name',
      gives: 0,
      point: () => ({ type: 'Name', name: String(barrier(0).lsn) }),
    },
    // Last: it makes a point of the barrier that is in the journal alone.
    { to: 'the latest barrier', gives: 3, point: () => ({ type: 'Latest' }) },
  ];
  for (const [index, { to, gives, point }] of choices.entries())
    test(`${to}: the disks are the source's at that barrier`, async () => {
      const name = `choice-${index}`;
      const spec = { recoveryPoint: point() };
      await site.createFailover({ type: 'Test', name, machine: 'shop', spec });
      const up = await site.untilOutcome(name, 'FailedOver');
      expect(up.point).toMatchObject({ lsn: barrier(gives).lsn, timeMs: barrier(gives).timeMs });
      await expectDisks(up, gives);
      await site.desire(name, 'CleanedUp');
      await site.untilOutcome(name, 'CleanedUp');
      expect(await site.madeBy(name)).toEqual([]);
      // The vault knows it first; until its status says so, it is the machine's failover, and another is refused.
      await eventually({ what: `status of ${name}`, timeoutMs: 60_000 }, async () => {
        const status = (await site.failover(name))?.status;
        return status?.phase === 'CleanedUp' ? status : undefined;
      });
    });
});

describe('a failover is refused for good', () => {
  test('to a point that does not exist', async () => {
    const spec = { recoveryPoint: { type: 'Name' as const, name: '424242' } };
    await site.createFailover({ type: 'Unplanned', name: 'nowhere', machine: 'shop', spec });
    const accepted = await site.failoverHas('nowhere', 'Accepted', 'False');
    expect(accepted).toMatchObject({ reason: 'PointNotFound' });
    expect(accepted.message).toMatch(/shop has no recovery point 424242/);
    expect(await site.ledger('nowhere')).toBeUndefined();
  });

  test('to a time before the first point', async () => {
    const spec = { recoveryPoint: { type: 'Time' as const, time: '2001-01-01T00:00:00Z' } };
    await site.createFailover({ type: 'Unplanned', name: 'too-early', machine: 'shop', spec });
    const accepted = await site.failoverHas('too-early', 'Accepted', 'False');
    expect(accepted).toMatchObject({ reason: 'NoPoint' });
    expect(accepted.message).toMatch(/at or before 2001-01-01T00:00:00Z; the oldest is of 20/);
  });

  test('of a machine that is in one', async () => {
    await site.createFailover({ type: 'Test', name: 'holds', machine: 'shop' });
    await site.untilOutcome('holds', 'FailedOver');
    await site.createFailover({ type: 'Unplanned', name: 'comes-late', machine: 'shop' });
    const accepted = await site.failoverHas('comes-late', 'Accepted', 'False');
    expect(accepted).toMatchObject({ reason: 'MachineBusy' });
    expect(accepted.message).toMatch(/shop is in failover holds/);
    await site.desire('holds', 'CleanedUp');
    await site.untilOutcome('holds', 'CleanedUp');
    // It was refused when it was asked for: it does not begin when nobody expects it any more.
    expect(await site.failoverHas('comes-late', 'Accepted', 'False')).toMatchObject({
      reason: 'MachineBusy',
    });
    expect(await site.ledger('comes-late')).toBeUndefined();
  });
});

describe('a target that does not fit shows in TargetValid, and its failover changes nothing:', () => {
  const misfits: {
    name: string;
    disksMiB?: readonly number[];
    target: Partial<ProtectedVM['spec']['target']>;
    code: string;
    says: RegExp;
  }[] = [
    {
      name: 'no-network',
      target: { nics: [{ network: 'nowhere', subnet: 'nothing' }] },
      code: 'SubnetNotFound',
      says: /Subnet nothing of network nowhere/,
    },
    {
      name: 'no-group',
      target: { resourceGroup: 'elsewhere' },
      code: 'ResourceGroupNotFound',
      says: /Resource group elsewhere does not exist/,
    },
    {
      name: 'no-size',
      target: { size: 'Standard_Nothing' },
      code: 'SizeNotAvailable',
      says: /VM size Standard_Nothing is not offered in westeurope/,
    },
    {
      name: 'many-disks',
      disksMiB: [1, 1, 1, 1],
      target: { size: 'Standard_B1s' },
      code: 'TooManyDisks',
      says: /3 data disks; Standard_B1s takes 2/,
    },
    {
      name: 'large-disk',
      disksMiB: [3 * TIB_IN_MIB],
      target: {},
      code: 'OsDiskTooLarge',
      says: /Disk system is larger than/,
    },
  ];
  for (const { name, disksMiB, target, code, says } of misfits)
    test(`${name} (${code})`, async () => {
      const disks = disksMiB === undefined ? {} : { disksMiB };
      await site.addMachine(name, { ...disks, target });
      const valid = await site.machineHas(name, 'TargetValid', 'False');
      expect(valid).toMatchObject({ reason: code });
      expect(valid.message).toMatch(says);
      const changes = await changesInAzure();
      const failover = `${name}-disaster`;
      await site.createFailover({ type: 'Unplanned', name: failover, machine: name });
      const refused = await site.untilOutcome(failover, 'Failed');
      expect(refused.failure).toMatchObject({ step: 'Validate', code });
      const ready = await site.failoverHas(failover, 'Ready', 'False', code);
      expect(ready.message).toMatch(says);
      expect(ready.message).toMatch(/Nothing was changed/);
      expect(await changesInAzure()).toEqual(changes);
      const catalog = await site.catalog(name);
      expect(catalog).toMatchObject({ activeSide: 'Source', writerEpoch: 1 });
      expect(catalog.activeFailover).toBeUndefined();
    });
});

function barrier(index: number) {
  const found = shop.barriers[index];
  if (found === undefined) throw new Error(`no barrier ${index}`);
  return found;
}

async function expectDisks(document: FailoverDocument, index: number): Promise<void> {
  const made = await site.madeBy(document.name);
  for (const [position, disk] of (document.disks ?? []).entries()) {
    const found = made.find((one) => one.name === disk.managedDisk.name);
    const body = bodyOf(barrier(index).bodies[position] ?? new Uint8Array());
    expect(Buffer.compare(readFileSync(found?.file ?? ''), body)).toBe(0);
  }
}

/** Calls that could have changed something. */
async function changesInAzure(): Promise<string[]> {
  const calls = await site.cloud.arm.control.calls();
  return calls
    .filter((call) => !/^(GET|HEAD) |login/.test(call.operation))
    .map((call) => `${call.operation} ${call.name}`);
}
