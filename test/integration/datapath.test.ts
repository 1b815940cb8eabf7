/**
 * The data path end to end with its real processes: a machine's disks under load, through agent, process server and vault, into points
 * that are compared with the disks byte for byte.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { RecordKind } from '../../dataplane/journal/record.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { Site, type SourceDisk } from '../fixtures/site.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { CuttableProxy } from '../servers/cuttableProxy.ts';
import { type FaultProxy, startFaultProxy, throughProxy } from '../servers/faultProxy.ts';
import { requireRoot, sh } from './capture/machine.ts';

const MIB = 1 << 20;

let azurite: Azurite;
let directory: string;
let site: Site;
let proxies: { close(): Promise<void> }[];
let vaults = 0;

beforeAll(async () => {
  requireRoot();
  directory = await mkdtemp(path.join(tmpdir(), 'farshore-datapath-vault-'));
  azurite = await startAzurite({ dir: directory });
});

afterAll(async () => {
  await azurite.stop();
  await rm(directory, { recursive: true, force: true });
});

beforeEach(async () => {
  vaults += 1;
  proxies = [];
  site = await Site.create({ azurite, container: `datapath-${vaults}` });
});

afterEach(async () => {
  await site.end();
  for (const proxy of proxies) await proxy.close();
});

/** The way to the vault, throttled or broken. */
async function vaultLink(): Promise<FaultProxy> {
  const proxy = await startFaultProxy({ target: azurite.blobEndpoint });
  proxies.push({ close: () => proxy.stop() });
  return proxy;
}

async function agentLink(port: number): Promise<CuttableProxy> {
  const proxy = await CuttableProxy.to({ host: '127.0.0.1', port });
  proxies.push(proxy);
  return proxy;
}

/** The final barrier's journal, and the point that is made of it, are the source's disks as they stay frozen. */
async function expectSourceRecovered(disks: readonly SourceDisk[], processServer = 'ps1') {
  const status = await site.finalBarrier(disks, {
    processServer,
    writerEpoch: (await site.status(processServer))?.writerEpoch ?? 1,
  });
  const points = await site.makePoints(disks);
  const last = points.at(-1);
  if (last === undefined) throw new Error('no point was made');
  expect(last.lsn).toBe(status.finalBarrier?.lsn);
  const images = await site.download(last, 'final');
  for (const [index, { image }] of disks.entries()) sh(`cmp ${image} ${images[index]}`);
  return { status, points };
}

/** Writes each number to its file with O_SYNC, one after the other, and says how long the slowest write took. */
function startCounter(files: readonly string[]) {
  const program = `
    const { openSync, writeSync } = require('node:fs');
    const files = process.argv.slice(1).map((file) => openSync(file, 'as'));
    let slowest = 0;
    let count = 0;
    process.on('SIGTERM', () => { process.stdout.write(JSON.stringify({ slowest, count })); process.exit(); });
    const step = () => {
      const started = performance.now();
      count += 1;
      for (const file of files) writeSync(file, String(count).padStart(11) + '\\n');
      slowest = Math.max(slowest, performance.now() - started);
      setTimeout(step, 5);
    };
    step();`;
  const child = spawn(process.execPath, ['-e', program, ...files], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (chunk) => {
    said += chunk;
  });
  return {
    stop: async (): Promise<{ slowest: number; count: number }> => {
      const ended = once(child, 'close');
      child.kill('SIGTERM');
      await ended;
      return JSON.parse(said);
    },
    end: () => void child.kill('SIGKILL'),
  };
}

function noise(target: string, mib: number): void {
  sh(`dd if=/dev/urandom of=${target} bs=1M count=${mib} oflag=direct status=none`);
}

test('a machine that writes faster than the link carries falls behind in the open, is never held up, and its point comes when the link catches up', async () => {
  const disk = site.disk('busy', 192 * MIB);
  const mount = site.machine.mount(disk.device);
  const link = await vaultLink();
  const server = await site.startServer({
    connectionString: throughProxy(azurite.connectionString, link),
  });
  await site.assign([disk]);
  await site.startAgent({ ports: [(await agentLink(await server.port())).port] });
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
  await expectSourceRecovered([disk]);
});

test('one write that the tracer did not see ends the run in ResyncRequired(TrackingLost), and no point is offered until the resync has ended', async () => {
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
  const { points } = await expectSourceRecovered([disk]);
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
