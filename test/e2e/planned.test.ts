/** One machine's life on real parts: tested in Azure while it is protected, a machine that does not come up, a replica that rots, and the planned move. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Failover, farshoreTypes, type ProtectedVM } from '../../crds/index.ts';
import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { startApplier } from '../../hack/demonstration/farshore.ts';
import {
  MACHINE,
  NAMESPACE,
  RECOVERED,
  secretValue,
  VAULT,
} from '../../hack/demonstration/manifests.ts';
import { tail } from '../../hack/demonstration/process.ts';
import { verdictOf } from '../../hack/demonstration/verdict.ts';
import { getObject } from '../../hack/demonstration/watch.ts';
import { Catalog } from '../../vault/catalog.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { lastDurableRecord } from '../machines/workload.ts';
import {
  createFailover,
  type ProtectedSite,
  startProtectedSite,
  untilNewPoint,
  untilPhase,
} from './protectedSite.ts';
import { isDamaged, rotFirstLeaf } from './rottenReplica.ts';
import { eventually, makeWorkplace } from './workplace.ts';

const MIB = 1 << 20;
const POLICY = 'standard';
const workplace = makeWorkplace();
const powerOffs = path.join(workplace.folder, 'power-offs');
let site: ProtectedSite;

beforeAll(async () => {
  site = await startProtectedSite(workplace, {
    agentFlags: ['--power-off-command', `echo off >> ${powerOffs}`],
  });
});

afterAll(async () => {
  // Where the last test failed it is held still, and whoever writes there can't be ended.
  if (site !== undefined)
    spawnSync('fsfreeze', ['-u', site.source.mountPoint], { stdio: 'ignore' });
  await workplace.leave();
});

function desire(failover: string, desiredState: 'Committed' | 'CleanedUp'): void {
  patch(farshoreTypes.failover.plural, failover, { spec: { desiredState } });
}

function patch(kind: string, name: string, change: unknown): void {
  site.cloud.kubernetes.kubectl([
    ...['patch', kind, name, '-n', NAMESPACE],
    ...['--type=merge', '-p', JSON.stringify(change)],
  ]);
}

async function madeBy(failover: string) {
  const all = await site.cloud.arm.control.resources();
  return all.filter((one) => one.tags['farshore-failover-name'] === failover);
}

test('a test failover boots in the test network, replication goes on meanwhile, and its cleanup removes all it made', async () => {
  createFailover(site.cloud, {
    ...{ type: 'Test', name: 'trial' },
    spec: { healthCheck: { serialConsole: { contains: RECOVERED, timeout: '2m' } } },
  });
  const up = await untilPhase(site, { failover: 'trial', phase: 'FailedOver' });
  const verdict = verdictOf(up, { saysWhatItRecovered: true });
  expect(verdict).toMatchObject({ rootsMatch: true, booted: true, trouble: undefined });
  const promised = lastDurableRecord(
    site.source.durableLog ?? '',
    Date.parse(up.status?.recoveryPoint?.time ?? ''),
  );
  expect(verdict.recordRecovered).toBeGreaterThanOrEqual(promised);
  const made = await madeBy('trial');
  expect(made.map((one) => one.type.replace(/^.*\//, '')).sort()).toEqual([
    'disks',
    'disks',
    'networkInterfaces',
    'virtualMachines',
  ]);
  const nics = made.filter((one) => one.type.endsWith('networkInterfaces'));
  expect(nics.map((one) => one.subnets)).toEqual([[expect.stringMatching(/subnets\/test$/)]]);

  const { points } = site;
  const before = (await points()).length;
  await untilNewPoint(site, { points, after: before });

  desire('trial', 'CleanedUp');
  await untilPhase(site, { failover: 'trial', phase: 'CleanedUp' });
  expect(await madeBy('trial')).toEqual([]);
  const left: string[] = [];
  for await (const { key } of site.stores.objects.list('failovers/')) left.push(key);
  expect(left).toEqual([]);
  expect(site.source.workload?.alive()).toBe(true);
});

test('a machine whose boot sector was overwritten fails its health check, and the demonstration would fail', async () => {
  await site.cloud.arm.control.change({ wipeBootSector: true });
  try {
    createFailover(site.cloud, {
      ...{ type: 'Test', name: 'wiped' },
      spec: { healthCheck: { serialConsole: { contains: RECOVERED, timeout: '10s' } } },
    });
    const failed = await untilPhase(site, { failover: 'wiped', phase: 'Failed' });
    const ready = failed.status?.conditions?.find((one) => one.type === 'Ready');
    expect(ready).toMatchObject({ status: 'False', reason: 'HealthCheckFailed' });
    expect(ready?.message).toMatch(/did not pass its health check within 10 s/);
    const verdict = verdictOf(failed, { saysWhatItRecovered: true });
    expect(verdict).toMatchObject({ rootsMatch: true, booted: false, recordRecovered: null });
    expect(verdict.trouble).toMatch(/did not pass its health check/);
  } finally {
    await site.cloud.arm.control.change({ wipeBootSector: false });
  }
  desire('wiped', 'CleanedUp');
  await untilPhase(site, { failover: 'wiped', phase: 'CleanedUp', leaving: 'Failed' });
  expect(await madeBy('wiped')).toEqual([]);
});

test('a leaf that rots in the storage account is found, shown, kept out of recoveries, and sent again by the source', async () => {
  const { cloud, stores, machineId, applier, points, source } = site;
  const [system] = source.disks;
  patch(farshoreTypes.replicationPolicy.plural, POLICY, {
    spec: { sampledVerification: { sharePerDay: 100 } },
  });
  await eventually({ what: 'the new share in the catalog', timeoutMs: 60_000 }, async () => {
    const entry = await new Catalog({ store: stores.objects }).read(machineId);
    return entry?.document.policy.verifiedSharePerDay === 100 || undefined;
  });
  await applier.kill();
  await rotFirstLeaf(site, { disk: system?.name ?? '', sharePerDay: 100 });
  const bootstrap = secretValue(cloud, `${VAULT}-applier-bootstrap`, 'bootstrap.json');
  const successor = startApplier(bootstrap ?? '', workplace);

  const resync = () =>
    getObject<ProtectedVM>(cloud, 'protectedvm', MACHINE)?.status?.conditions?.find(
      ({ type }) => type === 'ResyncRequired',
    );
  const shown = await eventually({ what: 'the damage', timeoutMs: 120_000, everyMs: 500 }, () => {
    const condition = resync();
    if (condition?.status === 'True') return condition;
    throw new Error(`${JSON.stringify(condition)}\n${tail(successor)}`);
  });
  expect(shown.reason).toBe('ChecksumMismatch');
  expect(shown.message).toMatch(/leaf 0 of disk system \(from byte 0\)/);

  await eventually({ what: 'the leaf is whole', timeoutMs: 120_000, everyMs: 500 }, async () =>
    (await isDamaged(site)) ? undefined : true,
  );
  const { lsns, damaged } = await listPoints(stores.objects, machineId);
  expect(damaged.size).toBeGreaterThan(0);
  const newest = (await points()).at(-1);
  expect(damaged).not.toContain(BigInt(newest?.lsn ?? 0));
  expect(lsns.some((lsn) => damaged.has(lsn))).toBe(true);
  const { key, snapshot } = newest?.disks[0]?.replica ?? { key: '', snapshot: '' };
  const leaf = await stores.pages.read(key, { offset: 0, length: LEAF_SIZE }, { snapshot });
  const onSource = execFileSync('head', ['-c', `${LEAF_SIZE}`, system?.image ?? '']);
  expect(Buffer.compare(leaf, onSource)).toBe(0);
  await eventually({ what: 'the end of the damage', timeoutMs: 60_000, everyMs: 500 }, () =>
    resync()?.status === 'False' ? true : undefined,
  );
});

test('a planned failover leaves the source frozen, and the recovered disks equal its files byte for byte', async () => {
  createFailover(site.cloud, {
    ...{ type: 'Planned', name: 'move' },
    spec: { powerOffSource: true },
  });
  const up = await untilPhase(site, { failover: 'move', phase: 'FailedOver' });
  expect(up.status).toMatchObject({ rpoSeconds: 0, rootsMatch: true });
  // Once, and again every 30 s while it is still there.
  expect(execFileSync('cat', [powerOffs], { encoding: 'utf8' })).toMatch(/^(off\n)+$/);

  // Frozen: what anybody writes there waits, and does not reach the disk.
  const writer = spawn('sh', ['-c', `echo late > ${site.source.mountPoint}/late`], {
    stdio: 'ignore',
  });
  const ended = new Promise<void>((resolve) => writer.once('exit', () => resolve()));
  await eventually({ what: 'the writer waits', timeoutMs: 5_000 }, () =>
    isWaiting(writer.pid ?? 0) ? true : undefined,
  );
  try {
    for (const disk of site.source.disks) {
      const imported = await importedFile(up, disk.name);
      expect(Number(execFileSync('stat', ['-c', '%s', disk.image])) % MIB).toBe(0);
      // cmp says that they are equal, and nothing that we wrote.
      execFileSync('cmp', [disk.image, imported], { stdio: 'pipe' });
    }
    expect(isWaiting(writer.pid ?? 0)).toBe(true);
  } finally {
    execFileSync('fsfreeze', ['-u', site.source.mountPoint], { stdio: 'pipe' });
    await ended;
  }
  expect(existsSync(`${site.source.mountPoint}/late`)).toBe(true);
  const [system] = site.source.disks;
  const imported = await importedFile(up, system?.name ?? '');
  expect(() =>
    execFileSync('sh', ['-c', 'sync; cmp "$0" "$1"', system?.image ?? '', imported], {
      stdio: 'pipe',
    }),
  ).toThrow();
  desire('move', 'Committed');
  await untilPhase(site, { failover: 'move', phase: 'Committed' });
});

/** In the kernel, and not to be woken: what a write to a frozen filesystem looks like. */
function isWaiting(pid: number): boolean {
  const shown = execFileSync('ps', ['-o', 'stat=,wchan=', '-p', String(pid)], { encoding: 'utf8' });
  return shown.trim().startsWith('D');
}

/** The emulator's copy of a disk as it was imported, before the machine started and wrote to it. */
async function importedFile(failover: Failover, disk: string): Promise<string> {
  const name = failover.metadata.name;
  const found = (await madeBy(name)).find(
    (one) => one.type.endsWith('/disks') && one.name.startsWith(`shop-${disk}-`),
  );
  if (found?.file === undefined) throw new Error(`no disk ${disk} of ${name}`);
  return `${found.file}.imported`;
}
