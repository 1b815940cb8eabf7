/**
 * The data path end to end with its real processes: a machine's disks under load, through agent, process server and vault, into points
 * that are compared with the disks byte for byte.
 */
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect } from 'vitest';
import { RecordKind } from '../../dataplane/journal/record.ts';
import { systemClock } from '../../platform/node/clock.ts';
import type { Site, SourceDisk } from '../fixtures/site.ts';
import { expectSourceRecovered, test } from '../fixtures/siteTest.ts';
import { lastCount, startCounter } from '../fixtures/writeCounter.ts';
import { sh } from './capture/machine.ts';

const MIB = 1 << 20;

function noise(target: string, mib: number): void {
  sh(`dd if=/dev/urandom of=${target} bs=1M count=${mib} oflag=direct status=none`);
}

test('a machine that writes faster than the link carries falls behind in the open, is never held up, and its point comes when the link catches up', async ({
  site,
}) => {
  const disk = site.disk('busy', 192 * MIB);
  const mount = site.machine.mount(disk.device);
  const { link, connectionString } = await site.vaultLink();
  const server = await site.startServer({ connectionString });
  await site.assign([disk]);
  const agentLink = await site.agentLink({ host: '127.0.0.1', port: await server.port() });
  await site.startAgent({ ports: [agentLink.port] });
  const before = await site.nextBarrier();

  link.bytesPerSecond = 256 << 10;
  const counter = startCounter([`${mount}/counter`]);
  site.machine.onCleanUp(counter.end);
  for (let file = 0; file < 3; file += 1) {
    noise(`${mount}/noise${file}`, 8);
    await systemClock.sleep(500);
  }
  const behind = await site.statusWhen(
    'it is behind by 16 MiB',
    ({ backlog }) => backlog.agentBytes + backlog.cacheBytes >= 16 * MIB,
  );
  expect(behind.positions.uploadedLsn).toBeLessThan(behind.positions.journaledLsn);
  // 24 MiB take 96 s at this rate: whoever shows a later barrier as uploaded lies.
  await systemClock.sleep(2_000);
  const still = await site.status();
  expect(still?.uploadedBarrier?.timeMs).toBeLessThan(Date.now() - 3_000);
  const held = await counter.stop();
  // A freeze may last 2 s; nothing else may hold a writer up, and it must have gone on.
  expect(held.slowest).toBeLessThan(2_500);
  expect(held.count).toBeGreaterThan(50);

  link.bytesPerSecond = undefined;
  const after = await site.nextBarrier({ withinMs: 60_000 });
  expect(after.uploadedBarrier?.lsn).toBeGreaterThan(before.uploadedBarrier?.lsn ?? 0n);
  expect(after.backlog.cacheBytes).toBeLessThan(16 * MIB);
  await expectSourceRecovered(site, [disk]);
});

test('one write that the tracer did not see ends the run in ResyncRequired(TrackingLost), and no point is offered until the resync has ended', async ({
  site,
}) => {
  const disk = site.disk('blind', 128 * MIB);
  const mount = site.machine.mount(disk.device);
  await site.startServer();
  await site.assign([disk]);
  const agent = await site.startAgent();
  const before = await site.nextBarrier();
  site.machine.run(
    `fio --thread --name=w --directory=${mount} --size=8m --rw=randwrite --bs=4k --ioengine=psync --direct=1 --time_based --runtime=100 --rate_iops=200`,
  );
  await site.nextBarrier();
  // Later there would be too many barriers for each to become one.
  await site.makePoints([disk]);
  sh(
    `echo 0 > ${site.tracing}/tracing_on; dd if=/dev/urandom of=${mount}/unseen bs=4k count=1 oflag=direct status=none; echo 1 > ${site.tracing}/tracing_on`,
  );
  const blindMs = Date.now();
  const told = await site.statusWhen(
    'the status tells of lost tracking',
    ({ errors, resync, lastResync }) =>
      errors.some(({ code }) => code === 'TrackingLost') ||
      resync?.reason === 'TrackingLost' ||
      lastResync?.reason === 'TrackingLost',
  );
  expect(told.uploadedBarrier?.lsn).toBeGreaterThanOrEqual(before.uploadedBarrier?.lsn ?? 0n);
  expect(await agent.logged('Tracking is lost')).toMatchObject({ code: 'TrackingLost' });
  const resynced = await site.statusWhen(
    'the resync has ended',
    ({ lastResync }) => lastResync?.reason === 'TrackingLost',
  );
  await site.nextBarrier();
  const { points } = await expectSourceRecovered(site, [disk]);
  // Between the unseen write and the end of the resync nothing is offered.
  const endedMs = resynced.lastResync?.finishedMs ?? 0;
  expect(endedMs).toBeGreaterThan(blindMs);
  const offered = points.filter(({ timeMs }) => timeMs > blindMs && timeMs < endedMs);
  expect(offered).toEqual([]);
  expect(points.some(({ timeMs }) => timeMs <= blindMs)).toBe(true);
  const kinds = await site.journalKinds();
  const begun = kinds.lastIndexOf(RecordKind.ResyncBegin);
  const ended = kinds.lastIndexOf(RecordKind.ResyncEnd);
  expect(ended).toBeGreaterThan(begun);
  expect(kinds.slice(begun, ended)).not.toContain(RecordKind.Barrier);
});

describe('while a real agent has the disks frozen for a barrier', () => {
  /**
   * Two disks, and an `fsfreeze` that takes its time, as one does that has much to write back: when it is asked to freeze the second
   * filesystem, the first is frozen. Resolves then.
   */
  async function frozenAgent(site: Site) {
    const disks = [site.disk('one', 64 * MIB), site.disk('two', 64 * MIB)];
    const mounts = disks.map(({ device }) => site.machine.mount(device));
    const asked = path.join(site.directory, 'freezes');
    const tools = path.join(site.directory, 'tools');
    sh(
      `mkdir ${tools}; touch ${asked}; printf '#!/bin/sh\\n[ "$1" = -f ] && { echo $2 >> ${asked}; sleep 0.6; }\\nexec ${sh('command -v fsfreeze')} "$@"\\n' > ${tools}/fsfreeze; chmod +x ${tools}/fsfreeze`,
    );
    await site.startServer();
    await site.assign(disks);
    const agent = await site.startAgent({ path: tools });
    await site.nextBarrier();
    const counter = startCounter(mounts.map((mount) => `${mount}/counter`));
    site.machine.onCleanUp(counter.end);
    const freezes = () => readFileSync(asked, 'utf8').split('\n').length - 1;
    const before = freezes();
    await until(() => freezes() > before && freezes() % 2 === 0, 'a second disk is being frozen');
    return { agent, counter, disks };
  }

  test('its death lets other programs write on within the deadline', async ({ site }) => {
    const { agent, counter } = await frozenAgent(site);
    // The first disk is frozen for as long as the second is being asked for; its watchdog thaws it as soon as the agent is gone.
    await systemClock.sleep(300);
    await agent.kill('SIGKILL');
    await systemClock.sleep(4_000);
    const { slowest, count } = await counter.stop();
    expect(slowest).toBeGreaterThan(200);
    expect(slowest).toBeLessThan(3_000);
    expect(count).toBeGreaterThan(10);
  });

  test('its being stopped lets other programs write on within the deadline', async ({ site }) => {
    const { agent, counter, disks } = await frozenAgent(site);
    agent.stop();
    await systemClock.sleep(6_000);
    const { slowest, count } = await counter.stop();
    expect(slowest).toBeGreaterThan(200);
    expect(slowest).toBeLessThan(4_000);
    expect(count).toBeGreaterThan(10);
    // And what the next agent makes of it is right.
    await agent.kill('SIGKILL');
    await site.startAgent();
    await expectSourceRecovered(site, disks);
  });
});

test('of two process servers that both believe they own a machine one is fenced, and the points are right', async ({
  site,
}) => {
  const disk = site.disk('owned', 96 * MIB);
  const mount = site.machine.mount(disk.device);
  const { link, connectionString } = await site.vaultLink();
  const one = await site.startServer({ name: 'ps1', connectionString });
  const two = await site.startServer({ name: 'ps2' });
  const nearOne = await site.agentLink({ host: '127.0.0.1', port: await one.port() });
  const nearTwo = await site.agentLink({ host: '127.0.0.1', port: await two.port() });
  nearTwo.cut();
  await site.assign([disk], { processServer: 'ps1' });
  await site.startAgent({ ports: [nearOne.port, nearTwo.port] });
  await site.nextBarrier({ processServer: 'ps1' });

  // The first one's uploads hang: what it acknowledges from now on is in its cache alone.
  link.decide = ({ method, url }) =>
    method === 'PUT' && url.includes('/journal/') ? 'dropRequest' : 'pass';
  sh(`dd if=/dev/urandom of=${mount}/lost bs=1M count=4 oflag=direct status=none`);
  await site.statusWhen('the first has a backlog', ({ backlog }) => backlog.cacheBytes > 4 * MIB, {
    processServer: 'ps1',
  });
  await site.assign([disk], { processServer: 'ps2', writerEpoch: 2 });
  nearTwo.restore();
  nearOne.cut();
  await site.nextBarrier({ processServer: 'ps2' });
  expect((await site.status('ps1'))?.fenced).toBeUndefined();

  link.decide = () => 'pass';
  const fenced = await site.statusWhen(
    'the first is fenced',
    (status) => status.fenced !== undefined,
    { processServer: 'ps1' },
  );
  expect(fenced.fenced).toEqual({ by: 'HigherEpoch' });
  sh(`dd if=/dev/urandom of=${mount}/after bs=1M count=2 oflag=direct status=none`);
  await expectSourceRecovered(site, [disk], 'ps2');
});

test('a process server that is killed and whose cache is gone costs the dirt since the vault’s last barrier, not a resync', async ({
  site,
}) => {
  const disk = site.disk('kept', 128 * MIB);
  const mount = site.machine.mount(disk.device);
  noise(`${mount}/before`, 48);
  const server = await site.startServer();
  const way = { host: '127.0.0.1', port: await server.port() };
  const link = await site.agentLink(way);
  await site.assign([disk]);
  const agent = await site.startAgent({ ports: [link.port] });
  await site.nextBarrier();
  const bytesBefore = await journalBytes(site);
  expect(bytesBefore).toBeGreaterThan(48 * MIB);

  link.cut();
  await server.kill('SIGKILL');
  await rm(site.cacheOf('ps1'), { recursive: true });
  noise(`${mount}/after`, 4);
  const again = await site.startServer();
  way.port = await again.port();
  link.restore();
  await site.assign([disk]);
  await site.nextBarrier();
  expect((await journalBytes(site)) - bytesBefore).toBeLessThan(24 * MIB);
  expect(agent.log.filter(({ msg }) => msg === 'A resync begins')).toHaveLength(1);
  await expectSourceRecovered(site, [disk]);
});

test.for(['SIGTERM', 'SIGKILL'] as const)(
  'an agent that ends by %s on a quiet machine leaves tracking to the next one, without a resync',
  async (signal, { site }) => {
    const disk = site.disk('quiet', 64 * MIB);
    const mount = site.machine.mount(disk.device);
    noise(`${mount}/before`, 16);
    sh(`sync -f ${mount}`);
    await site.startServer();
    await site.assign([disk]);
    const first = await site.startAgent();
    await site.nextBarrier();
    // A freeze writes, too.
    await site.assign([disk], {
      policy: { crashConsistentSeconds: 3_600, appConsistentSeconds: 0 },
    });
    await until(() => barriersStopped(first), 'there are no more barriers');
    await first.kill(signal);
    const bytes = await journalBytes(site);
    noise(`${mount}/while-nobody-looks`, 2);
    const second = await site.startAgent();
    await second.logged('Tracking goes on where the last agent left it');
    await site.assign([disk]);
    await site.nextBarrier();
    expect(second.log.some(({ msg }) => msg === 'A resync begins')).toBe(false);
    expect((await journalBytes(site)) - bytes).toBeLessThan(12 * MIB);
    await expectSourceRecovered(site, [disk]);
  },
);

const SPARSE_GIB = process.env.FARSHORE_EXHAUSTIVE === '1' ? 1024 : 16;
const SPARSE_DATA_MIB = process.env.FARSHORE_EXHAUSTIVE === '1' ? 1024 : 64;
const SPARSE_PATIENCE = Math.max(1, SPARSE_GIB / 64);

test(`a sparse disk of ${SPARSE_GIB} GiB with ${SPARSE_DATA_MIB} MiB of data is read once, sends its data alone and takes no room for what is empty`, {
  timeout: 300_000 * SPARSE_PATIENCE,
}, async ({ site }) => {
  const disk = site.disk('sparse', SPARSE_GIB * 1024 * MIB);
  for (let piece = 0; piece < 8; piece += 1)
    sh(
      `dd if=/dev/urandom of=${disk.device} bs=1M count=${SPARSE_DATA_MIB / 8} seek=${piece * (SPARSE_GIB / 8) * 1024} oflag=direct status=none`,
    );
  const server = await site.startServer();
  await site.assign([disk]);
  const readBefore = sectorsRead(disk);
  const agent = await site.startAgent();
  const ended = await site.statusWhen(
    'the initial replication has ended',
    ({ lastResync, uploadedBarrier }) => lastResync !== undefined && uploadedBarrier !== undefined,
    { withinMs: 240_000 * SPARSE_PATIENCE },
  );
  const read = (sectorsRead(disk) - readBefore) * 512;
  expect(read).toBeGreaterThanOrEqual(disk.sizeBytes);
  expect(read).toBeLessThan(disk.sizeBytes * 1.01);
  const data = SPARSE_DATA_MIB * MIB;
  expect(ended.lastResync?.bytesSent).toBeGreaterThanOrEqual(data);
  expect(ended.lastResync?.bytesSent).toBeLessThan(data * 1.05);
  const journal = await journalBytes(site);
  expect(journal).toBeLessThan(data * 1.05);
  // Beside the log of the data itself (it is removed when uploaded): hashes of the data, bitmaps, states.
  const kept = diskUsage(site.cacheOf('ps1')) + diskUsage(path.join(site.directory, 'run'));
  expect(kept).toBeLessThan(data * 1.1 + 16 * MIB);
  expect(diskUsage(path.join(site.directory, 'run'))).toBeLessThan(4 * MIB);
  expect(sh(`du -k --exclude=log ${site.cacheOf('ps1')} | tail -1 | cut -f1`)).toSatisfy(
    (kib: string) => Number(kib) < 8 * 1024,
  );
  expect(peakMib(server.pid)).toBeLessThan(400);
  expect(peakMib(agent.pid)).toBeLessThan(400);
});

test('a pre-hook that never ends costs the application-consistent point alone, and the post-hooks run', async ({
  site,
}) => {
  const disk = site.disk('hooked', 48 * MIB);
  const hooks = path.join(site.directory, 'hooks');
  sh(
    `mkdir ${hooks}; printf '#!/bin/sh\\necho $1 >> ${hooks}.log\\n' > ${hooks}/10-app; printf '#!/bin/sh\\n[ $1 = post ] || sleep 600\\n' > ${hooks}/20-hangs; chmod +x ${hooks}/*`,
  );
  await site.startServer();
  const policy = {
    crashConsistentSeconds: 1,
    appConsistentSeconds: 2,
    hooks: { directory: hooks, timeoutSeconds: 1 },
  };
  await site.assign([disk], { policy });
  await site.startAgent();
  const told = await site.statusWhen(
    'a barrier is void for its hook',
    ({ barriers }) => barriers.lastVoid?.includes('20-hangs') === true,
  );
  expect(told.barriers.lastVoid).toContain('HookFailed');
  const next = await site.nextBarrier();
  expect(next.uploadedAppBarrier).toBeUndefined();
  expect(next.uploadedBarrier?.consistency).toBe('Crash');
  const seen = readFileSync(`${hooks}.log`, 'utf8').split('\n');
  expect(seen.slice(0, 2)).toEqual(['pre', 'post']);
  expect((await site.makePoints([disk])).every(({ consistency }) => consistency === 'Crash')).toBe(
    true,
  );
});

test('points of a machine with two disks hold both as they were at one moment', async ({
  site,
}) => {
  const disks = [site.disk('left', 48 * MIB), site.disk('right', 48 * MIB)];
  const mounts = disks.map(({ device }) => site.machine.mount(device));
  const counter = startCounter(mounts.map((mount) => `${mount}/counter`));
  site.machine.onCleanUp(counter.end);
  await site.startServer();
  await site.assign(disks);
  await site.startAgent();
  for (let barrier = 0; barrier < 4; barrier += 1) await site.nextBarrier();
  const stoppingMs = Date.now();
  await counter.stop();
  // Barriers go on meanwhile, and show the same numbers again.
  const points = (await site.makePoints(disks)).filter(({ timeMs }) => timeMs < stoppingMs);
  expect(points.length).toBeGreaterThanOrEqual(3);
  const reached: number[] = [];
  for (const point of points.slice(-3)) {
    const images = await site.download(point, String(point.lsn));
    const [left = 0, right = 0] = images.map(lastCount);
    // The left one is written first.
    expect([0, 1]).toContain(left - right);
    reached.push(left);
  }
  expect(new Set(reached).size).toBe(reached.length);
  expect(Math.min(...reached)).toBeGreaterThan(0);
});

/** None for so long that whatever it wrote has been taken note of. */
function barriersStopped(agent: { log: readonly Record<string, unknown>[] }): boolean {
  const last = agent.log.findLast(({ msg }) => msg === 'Barrier');
  return Date.now() - Date.parse(String(last?.time)) > 6_000;
}

async function journalBytes(site: Site): Promise<number> {
  let bytes = 0;
  for await (const { size } of site.stores.objects.list(`journal/${site.machineId}/`))
    bytes += size;
  return bytes;
}

function sectorsRead(disk: SourceDisk): number {
  const stat = readFileSync(`/sys/block/${path.basename(disk.device)}/stat`, 'utf8');
  return Number(stat.trim().split(/\s+/)[2]);
}

function diskUsage(directory: string): number {
  return Number(sh(`du -sk ${directory} | cut -f1`)) * 1024;
}

function peakMib(pid: number): number {
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) / 1024;
}

async function until(holds: () => boolean, what: string): Promise<void> {
  for (const deadline = performance.now() + 60_000; !holds(); await systemClock.sleep(5))
    if (performance.now() > deadline) throw new Error(`never came true: ${what}`);
}
