import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { CHAIN_START, Chain } from '../../dataplane/journal/chain.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { ensureVaultContainer, openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import type { ObjectStore } from '../../platform/ports.ts';
import type { MachineStatus } from '../../vault/documents/machineStatus.ts';
import { type AssignedMachine, ScriptedOperator } from '../fakes/scriptedOperator.ts';
import { AgentProcess } from '../servers/agentProcess.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { ProcessServerProcess } from '../servers/processServerProcess.ts';
import { ImageSink } from './capture/imageSink.ts';
import { LoopMachine, sh } from './capture/machine.ts';

const deps = { clock: systemClock, random: systemRandom };
const MIB = 1 << 20;
const NAME = 'db1';

let azurite: Azurite;
let directory: string;
let containers = 0;
let store: ObjectStore;
let operator: ScriptedOperator;
let machine: LoopMachine;
let server: ProcessServerProcess;
let agents: AgentProcess[];
let machineId: string;
let atWork: AbortController;
let working: Promise<void>;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'farshore-agent-vault-'));
  azurite = await startAzurite({ dir: directory });
});

afterAll(async () => {
  await azurite.stop();
  await rm(directory, { recursive: true, force: true });
});

beforeEach(async () => {
  machine = new LoopMachine();
  agents = [];
  containers += 1;
  const access = { connectionString: azurite.connectionString, container: `agent-${containers}` };
  await ensureVaultContainer(deps, access);
  store = openVaultStores(deps, access).objects;
  operator = await ScriptedOperator.create({ ...deps, store });
  machineId = operator.addMachine(NAME);
  machine.onCleanUp(() =>
    sh(
      `cd /sys/kernel/tracing/instances; for n in $(seq 40); do [ -d farshore-${machineId} ] || break; rmdir farshore-${machineId} 2>/dev/null || sleep 0.1; done`,
    ),
  );
  atWork = new AbortController();
  working = answerEnrolments(atWork.signal);
  await writeFile(path.join(machine.directory, 'passphrase'), operator.passphrase);
  server = await ProcessServerProcess.start({
    directory: machine.directory,
    bootstrap: {
      name: 'ps1',
      vault: {
        container: access.container,
        prefix: '',
        connectionString: azurite.connectionString,
      },
      vaultId: operator.vault.vaultId,
      controllerPublicKey: operator.signingKey.publicKey,
      token: operator.token,
    },
  });
  await server.port();
});

afterEach(async () => {
  await machine.stopWorkload();
  await Promise.all(agents.map((agent) => agent.kill('SIGKILL')));
  await server.kill('SIGKILL');
  atWork.abort();
  await working;
  await machine.cleanUp();
});

async function answerEnrolments(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await operator.answerEnrolments().catch(() => undefined);
    await systemClock.sleep(100, signal).catch(() => undefined);
  }
}

async function startAgent(...args: string[]): Promise<AgentProcess> {
  const agent = new AgentProcess([
    ...['--name', NAME, '--process-server', `127.0.0.1:${await server.port()}`],
    ...['--passphrase-file', path.join(machine.directory, 'passphrase')],
    ...[
      '--state',
      path.join(machine.directory, 'state'),
      '--run',
      path.join(machine.directory, 'run'),
    ],
    ...args,
  ]);
  agents.push(agent);
  return agent;
}

async function assign(
  devices: readonly string[],
  changes: Partial<AssignedMachine> = {},
): Promise<void> {
  await operator.assign('ps1', [
    {
      machineId,
      name: NAME,
      disks: devices.map((device, index) => ({
        index,
        name: `disk${index}`,
        device,
        sizeBytes: 0,
      })),
      policy: { crashConsistentSeconds: 1, appConsistentSeconds: 0 },
      ...changes,
    },
  ]);
}

async function statusWhen(
  holds: (status: MachineStatus) => boolean,
  what: string,
): Promise<MachineStatus> {
  const deadline = performance.now() + 90_000;
  let last: MachineStatus | undefined;
  while (performance.now() < deadline) {
    last = (await operator.status('ps1'))?.machines.find(
      (status) => status.machineId === machineId,
    );
    if (last !== undefined && holds(last)) return last;
    await systemClock.sleep(200);
  }
  const told = JSON.stringify(last, (_, value) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  throw new Error(
    `never came true: ${what}\n${told}\n${agents
      .at(-1)
      ?.log.slice(-30)
      .map((line) => JSON.stringify(line))
      .join('\n')}`,
  );
}

/** The journal in the vault, replayed into images. */
async function replay(devices: readonly { image: string; sizeBytes: number }[]): Promise<string[]> {
  const sink = new ImageSink();
  const images = devices.map(({ sizeBytes }, index) => {
    const image = path.join(machine.directory, `replayed-${index}.img`);
    sink.add(index, { path: image, sizeBytes });
    return image;
  });
  const chain = new Chain(
    { objects: store, codec: inlineCodec },
    { machineId, dataKey: operator.dataKey(machineId) },
  );
  for await (const segment of chain.segments(CHAIN_START))
    for await (const batch of segment.batches()) await sink.send(batch);
  sink.sync();
  sink.close();
  return images;
}

describe('an agent', () => {
  test('replicates a machine under load, goes on after a restart without a resync, and leaves it frozen at a planned failover', async () => {
    const first = machine.disk('first', 256 * MIB);
    const second = machine.disk('second', 64 * MIB);
    const mount = machine.mount(first.device);
    machine.mount(second.device, { name: 'second' });
    machine.run(
      `fio --thread --name=w --directory=${mount} --size=32m --rw=randwrite --bs=4k --ioengine=psync --direct=1 --time_based --runtime=300 --rate_iops=300`,
    );
    machine.run(
      `i=0; while :; do cp /bin/bash ${mount}/f$((i%9)); sync ${mount}/f$((i%9)); i=$((i+1)); sleep 0.1; done`,
    );
    const agent = await startAgent();
    await agent.logged('This machine is enrolled');
    await assign([first.device, second.device]);
    const some = await statusWhen((status) => status.barriers.count >= 3, 'three barriers');
    expect(some.barriers.maxFreezeMs).toBeLessThan(2000);

    expect(await agent.kill('SIGTERM')).toBe(0);
    const lsn = some.uploadedBarrier?.lsn ?? 0n;
    await startAgent();
    await statusWhen(
      (status) => (status.uploadedBarrier?.lsn ?? 0n) > lsn + 1n,
      'a barrier of the second agent',
    );
    expect(
      agents
        .at(-1)
        ?.log.some((line) => line.msg === 'Tracking goes on where the last agent left it'),
    ).toBe(true);
    expect(agents.at(-1)?.log.some((line) => line.msg === 'A resync begins')).toBe(false);

    await assign([first.device, second.device], {
      finalSync: { failover: 'move', powerOff: false },
    });
    await statusWhen((status) => status.finalBarrier?.failover === 'move', 'the final barrier');
    const images = await replay([
      { image: first.image, sizeBytes: 256 * MIB },
      { image: second.image, sizeBytes: 64 * MIB },
    ]);
    sh(`cmp ${first.image} ${images[0]}`);
    sh(`cmp ${second.image} ${images[1]}`);
    // Frozen still, without the agent.
    expect(await agents.at(-1)?.kill('SIGTERM')).toBe(0);
    sh(`cmp ${first.image} ${images[0]}`);

    // Cancelled: a third agent thaws what the second held.
    await startAgent();
    await assign([first.device, second.device]);
    await agents.at(-1)?.logged('The failover was cancelled');
    sh(`timeout 5 sh -c 'echo on > ${mount}/goes'`);
  });

  test('killed without warning loses nothing: it resyncs when writes may have been missed', async () => {
    const { device, image } = machine.disk('disk', 96 * MIB);
    const mount = machine.mount(device);
    const agent = await startAgent();
    await agent.logged('This machine is enrolled');
    await assign([device]);
    await statusWhen((status) => status.barriers.count >= 1, 'a barrier');
    sh(`cp /bin/bash ${mount}/before; sync -f ${mount}`);
    await agent.kill('SIGKILL');
    sh(`cp /bin/bash ${mount}/while-dead; sync -f ${mount}`);
    await startAgent();
    await assign([device], { finalSync: { failover: 'move', powerOff: false } });
    await statusWhen((status) => status.finalBarrier !== undefined, 'the final barrier');
    const [replayed] = await replay([{ image, sizeBytes: 96 * MIB }]);
    sh(`cmp ${image} ${replayed}`);
  });

  test('with the wrong passphrase ends with a clear error', async () => {
    await writeFile(path.join(machine.directory, 'passphrase'), 'wrong');
    const agent = await startAgent();
    expect(await agent.exited).toBe(1);
    expect(agent.log.at(-1)).toMatchObject({
      code: 'EnrolmentRefused',
      msg: expect.stringContaining('WrongPassphrase'),
    });
  });

  test('says which disk can not be had, and goes on once it can', async () => {
    const agent = await startAgent();
    await agent.logged('This machine is enrolled');
    const device = path.join(machine.directory, 'late-disk');
    await assign([device]);
    await statusWhen(
      (status) => status.disks.some((disk) => disk.error?.includes('late-disk') === true),
      'the error',
    );
    const disk = machine.disk('disk', 32 * MIB);
    sh(`ln -s ${disk.device} ${device}`);
    await statusWhen((status) => status.barriers.count >= 1, 'a barrier');
  });

  test('runs pre- and post-hooks around an application-consistent barrier, and a failing one makes none', async () => {
    const { device } = machine.disk('disk', 32 * MIB);
    const hooks = path.join(machine.directory, 'hooks');
    sh(
      `mkdir ${hooks}; printf '#!/bin/sh\\necho $1 >> ${hooks}.log\\n' > ${hooks}/10-app; chmod +x ${hooks}/10-app`,
    );
    const agent = await startAgent();
    await agent.logged('This machine is enrolled');
    const policy = {
      crashConsistentSeconds: 1,
      appConsistentSeconds: 1,
      hooks: { directory: hooks, timeoutSeconds: 5 },
    };
    await assign([device], { policy });
    const good = await statusWhen(
      (status) => status.uploadedAppBarrier !== undefined,
      'an application barrier',
    );
    expect(sh(`head -2 ${hooks}.log | tr '\\n' ' '`)).toBe('pre post');
    sh(`printf '#!/bin/sh\\n[ $1 = post ]\\n' > ${hooks}/20-fails; chmod +x ${hooks}/20-fails`);
    const bad = await statusWhen(
      (status) => status.barriers.lastVoid?.includes('20-fails') === true,
      'a void barrier',
    );
    expect(bad.barriers.lastVoid).toContain('HookFailed');
    await statusWhen(
      (status) => (status.uploadedBarrier?.lsn ?? 0n) > (good.uploadedBarrier?.lsn ?? 0n),
      'a crash-consistent one goes on',
    );
  });
});

describe('while an agent has a disk frozen', () => {
  async function frozen(deadlineMs: number) {
    const { device } = machine.disk('disk', 64 * MIB);
    const mount = machine.mount(device);
    const child = spawn(
      process.execPath,
      [path.resolve(import.meta.dirname, 'capture/frozenProcess.ts'), String(deadlineMs), device],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    await once(child.stdout, 'data');
    const startedMs = performance.now();
    const writer = spawn('sh', ['-c', `echo x > ${mount}/other; sync ${mount}/other`]);
    const written = once(writer, 'exit').then(() => performance.now() - startedMs);
    return { child, written };
  }

  test('its death lets other writers go on at once', async () => {
    const { child, written } = await frozen(30_000);
    await systemClock.sleep(300);
    child.kill('SIGKILL');
    const ms = await written;
    expect(ms).toBeGreaterThan(290);
    expect(ms).toBeLessThan(3_000);
  });

  test('its being stopped lets other writers go on at the deadline', async () => {
    const { child, written } = await frozen(1_500);
    child.kill('SIGSTOP');
    try {
      const ms = await written;
      expect(ms).toBeGreaterThan(500);
      expect(ms).toBeLessThan(4_000);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
