/** The chain, from the outside: see hack/demo. main.ts runs it. */

import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Failover, ProtectedVM } from '../../crds/index.ts';
import { lastDurableRecord } from '../../test/machines/workload.ts';
import { ensureKubernetes } from '../kubernetes.ts';
import { type Cloud, startCloud } from './cloud.ts';
import { startAgent, startApplier, startOperator, startProcessServer } from './farshore.ts';
import { checkImages, checkWorkload } from './images.ts';
import { interruption } from './interruption.ts';
import {
  applyFailover,
  applyMachine,
  applySite,
  FAILOVER,
  installCrds,
  MACHINE,
  makeRecoveryKey,
  NAMESPACE,
  PROCESS_SERVER,
  secretValue,
  VAULT,
} from './manifests.ts';
import { machineFigures } from './metrics.ts';
import { parseOptions } from './options.ts';
import { type Running, tail } from './process.ts';
import { emptyReport, publish } from './report.ts';
import { type SourceMachine, startSource } from './source.ts';
import { Undo } from './undo.ts';
import { SETTLED, verdictOf } from './verdict.ts';
import { getObject, isTrue, machineLine, StepLines, waitFor } from './watch.ts';

const MINUTE = 60_000;
const started = performance.now();
const options = parseOptions(process.argv.slice(2));
const undo = new Undo();
const interrupted = interruption(say);

const report = emptyReport();
let published = false;
const folder = mkdtempSync(path.join(os.tmpdir(), 'farshore-demo-'));
undo.add(`remove ${folder}`, () => rmSync(folder, { recursive: true, force: true }));
// Some programs keep what they compiled, by default in a folder that they leave behind.
process.env.NODE_COMPILE_CACHE ??= path.join(folder, 'compiled');
try {
  const cloud = await demonstrate();
  report.ok = true;
  if (options.keep) await stayUntilInterrupted(cloud);
} catch (error) {
  report.error = error instanceof Error ? error.message : String(error);
  say(`FAILED: ${report.error}`);
}
const failures = await undo.all();
for (const failure of failures) say(`could not ${failure}`);
if (failures.length > 0) {
  report.ok = false;
  report.error ??= `could not ${failures.join('; could not ')}`;
} else say(`${report.ok ? 'done: ' : ''}everything that was started is gone`);
// With --keep it was published before: standard output must not get a second one.
if (options.json !== undefined && !(published && options.json === 'stdout'))
  publish(report, options.json);
process.exit(report.ok ? 0 : 1);

async function demonstrate(): Promise<Cloud> {
  const logs = path.join(folder, 'logs');
  mkdirSync(logs);
  const place = { folder, logs, undo };
  for (const line of checkImages(options.disks)) say(line);
  if (options.workload !== undefined) checkWorkload(options.workload);
  process.env.KUBEBUILDER_ASSETS = await ensureKubernetes({ say, signal: interrupted.signal });
  say('starting a Kubernetes API server, Azurite, and an emulator of Azure Resource Manager');
  const cloud = await startCloud({ folder, undo });
  interrupted.signal.throwIfAborted();
  installCrds(cloud);

  say('making a recovery key, applying the sample manifests');
  const passphrase = randomBytes(18).toString('base64url');
  const processServerPort = await freePort();
  const recoveryRecipient = makeRecoveryKey(path.join(folder, 'recovery.key'));
  applySite({ cloud, recoveryRecipient, passphrase, processServerPort });
  const metricsPort = await freePort();
  const operator = startOperator(cloud, { ...place, metricsPort });
  await until('the vault is ready', [operator], () =>
    isTrue(getObject(cloud, 'recoveryvault', VAULT), 'Ready'),
  );
  const bootstraps = await waitFor(
    {
      what: 'the bootstrap files',
      timeoutMs: MINUTE,
      needs: [operator],
      signal: interrupted.signal,
    },
    () => {
      const processServer = secretValue(cloud, `${PROCESS_SERVER}-bootstrap`, 'bootstrap.json');
      const applier = secretValue(cloud, `${VAULT}-applier-bootstrap`, 'bootstrap.json');
      return processServer && applier ? { processServer, applier } : undefined;
    },
  );

  say('starting a process server and an applier');
  const processServer = startProcessServer(bootstraps.processServer, place);
  const applier = startApplier(bootstraps.applier, place);
  say(
    `making a source machine${options.disks.length > 0 ? ` of ${options.disks.length} given disks` : ' that boots, with a workload on it'}`,
  );
  const { disks: images, workload } = options;
  const source = await startSource({
    ...{ folder: path.join(folder, 'source'), logs, undo },
    ...{ images, workload, say },
  });
  interrupted.signal.throwIfAborted();
  applyMachine(cloud, source.disks);
  const agent = startAgent({ passphrase, port: processServerPort }, place);
  const running = [operator, processServer, applier, agent];
  await replicate(cloud, { source, running, metricsPort });

  const disasterAt = await disaster({ agent, processServer, source });
  await recover(cloud, { operator, disasterAt, ours: options.disks.length === 0 });
  compareRecords(source);
  if (options.keep) report.recoveredDisks = await recoveredDisks(cloud, source);
  return cloud;
}

async function replicate(
  cloud: Cloud,
  at: { source: SourceMachine; running: readonly Running[]; metricsPort: number },
): Promise<void> {
  const { source, running, metricsPort } = at;
  let shown = '';
  const look = async () => {
    const machine = getObject<ProtectedVM>(cloud, 'protectedvm', MACHINE);
    const figures = await machineFigures(metricsPort);
    const line = machine === undefined ? shown : machineLine(machine, figures);
    if (line !== shown) say(`  ${line}`);
    shown = line;
    checkWorkloadGoesOn(source);
    return { machine, figures };
  };
  const wait = { needs: running, signal: interrupted.signal };
  const replicated = await waitFor(
    { ...wait, what: 'the initial replication', timeoutMs: 20 * MINUTE },
    async () => {
      const { machine } = await look();
      return isTrue(machine, 'InitialReplicationComplete') ? machine : undefined;
    },
  );
  const initial = replicated?.status?.initialReplication;
  report.initialReplication = {
    bytes: initial?.bytesTotal ?? 0,
    bytesSent: initial?.bytesSent ?? 0,
    seconds: (Date.parse(initial?.finishedAt ?? '') - Date.parse(initial?.startedAt ?? '')) / 1000,
  };
  const begun = Date.now();
  await waitFor(
    {
      ...wait,
      what: 'a barrier that was taken under the workload and is durable in the vault',
      timeoutMs: options.seconds * 1000 + 5 * MINUTE,
    },
    async () => {
      const { figures } = await look();
      const seconds = (Date.now() - begun) / 1000;
      // Not its recovery point: where the applier is behind, the failover applies the rest.
      const fresh = (figures?.rpoSeconds ?? Number.POSITIVE_INFINITY) < seconds;
      return seconds >= options.seconds && fresh ? true : undefined;
    },
  );
}

/** A workload of others may end when it has done its work; ours never does. */
function checkWorkloadGoesOn({ workload }: SourceMachine): void {
  if (workload === undefined || workload.alive()) return;
  const failure =
    workload.failure() ?? (options.workload === undefined ? 'ended by itself' : undefined);
  if (failure === undefined) return;
  throw new Error(`the workload ${failure}; it said:\n${tail(workload) || '(nothing)'}`);
}

/** Nobody is told: processes are killed, their directories removed, the machine stops where it stands. */
async function disaster(victims: {
  agent: Running & { state: string; run: string };
  processServer: Running & { cache: string };
  source: SourceMachine;
}): Promise<number> {
  say('DISASTER: the agent and the process server are killed, their directories are gone');
  const { agent, processServer, source } = victims;
  await Promise.all([agent.kill(), processServer.kill(), source.halt()]);
  const disasterAt = Date.now();
  for (const lost of [agent.state, agent.run, processServer.cache])
    rmSync(lost, { recursive: true, force: true });
  return disasterAt;
}

async function recover(
  cloud: Cloud,
  after: { operator: Running; disasterAt: number; ours: boolean },
): Promise<void> {
  say('creating an Unplanned Failover');
  applyFailover(cloud, {
    saysWhatItRecovered: after.ours,
    bootTimeout: options.bootTimeout,
  });
  const lines = new StepLines();
  const failover = await waitFor(
    {
      what: 'the failover',
      timeoutMs: 15 * MINUTE,
      needs: [after.operator],
      signal: interrupted.signal,
    },
    () => {
      const seen = getObject<Failover>(cloud, 'failover', FAILOVER);
      if (seen === undefined) return undefined;
      for (const line of lines.news(seen)) say(`  ${line}`);
      return SETTLED.has(seen.status?.phase ?? '') ? seen : undefined;
    },
  );
  const { status } = failover;
  const point = status?.recoveryPoint;
  const verdict = verdictOf(failover, { saysWhatItRecovered: after.ours });
  report.rootsMatch = verdict.rootsMatch;
  report.booted = verdict.booted;
  report.recordRecovered = verdict.recordRecovered;
  report.rtoSeconds = status?.rtoSeconds ?? null;
  if (point !== undefined) {
    report.recoveryPoint = { lsn: point.lsn, time: point.time };
    report.rpoSeconds = Math.max(0, (after.disasterAt - Date.parse(point.time)) / 1000);
  }
  const barriers = getObject<ProtectedVM>(cloud, 'protectedvm', MACHINE)?.status?.barriers;
  report.barriers = { count: barriers?.count ?? 0, freezeMsMax: barriers?.maxFreezeMs ?? 0 };
  if (verdict.trouble !== undefined) throw new Error(verdict.trouble);
}

function compareRecords(source: SourceMachine): void {
  const { recoveryPoint, recordRecovered } = report;
  if (options.disks.length > 0 || source.durableLog === undefined || recoveryPoint === null) return;
  report.recordAtBarrier = lastDurableRecord(source.durableLog, Date.parse(recoveryPoint.time));
  const newest = lastDurableRecord(source.durableLog, Number.POSITIVE_INFINITY);
  say(
    `the barrier promised record ${report.recordAtBarrier}; the booted machine has record ${recordRecovered}`,
  );
  say(`(the source had written up to record ${newest} when it was lost)`);
  if (recordRecovered === null)
    throw new Error('the booted machine found its records damaged or gone');
  if (recordRecovered < report.recordAtBarrier)
    throw new Error('the booted machine lacks records that the barrier promised');
}

/** Raw copies of the disks as they were imported, before the machine started and wrote to them; in the order of the machine's disks. */
async function recoveredDisks(cloud: Cloud, source: SourceMachine): Promise<string[]> {
  const resources = await cloud.arm.control.resources();
  return source.disks.flatMap((disk) => {
    const managed = resources.find(
      (one) => one.file !== undefined && one.name.startsWith(`${MACHINE}-${disk.name}-`),
    );
    return managed?.file === undefined ? [] : [`${managed.file}.imported`];
  });
}

async function stayUntilInterrupted(cloud: Cloud): Promise<void> {
  if (options.json !== undefined) publish(report, options.json);
  published = true;
  const { kubeconfigPath, binaries } = cloud.kubernetes;
  say('left running (--keep). To look around, from another terminal:');
  say(`  export KUBECONFIG=${kubeconfigPath}`);
  say(`  ${binaries}/kubectl get farshore -n ${NAMESPACE}`);
  say(`  logs: ${folder}/logs`);
  for (const disk of report.recoveredDisks ?? []) say(`  recovered disk: ${disk}`);
  say('Ctrl-C ends it and removes everything');
  if (!interrupted.signal.aborted)
    await new Promise((resolve) =>
      interrupted.signal.addEventListener('abort', resolve, { once: true }),
    );
}

async function until(what: string, needs: readonly Running[], look: () => boolean): Promise<void> {
  await waitFor({ what, timeoutMs: 2 * MINUTE, needs, signal: interrupted.signal }, () =>
    look() ? true : undefined,
  );
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function say(line: string): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  const stream = options.json === 'stdout' ? process.stderr : process.stdout;
  stream.write(`${seconds} s  ${line}\n`);
}
