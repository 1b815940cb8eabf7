/** One real process server with many agents: what it holds in memory does not grow with them, and a limit on its uploads is kept. */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import {
  encodeControlRecord,
  encodeDataHeader,
  RecordKind,
} from '../../dataplane/journal/record.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { freshMemory, ScriptedAgent } from '../fakes/scriptedAgent.ts';
import type { AssignedMachine } from '../fakes/scriptedOperator.ts';
import { type ServerRoom, test } from '../fixtures/serverRoom.ts';
import type { ProcessServerProcess } from '../servers/processServerProcess.ts';

const GIB = 2 ** 30;
const AGENTS = 200;
const AT_ONCE = 16;
/** Each agent's, 64 KiB. */
const LEAVES = 32;
const PEAK_MIB_MAX = 600;

/** Agents of machines on the list, welcomed; few at a time, for the two cores do both sides of every handshake. */
async function connectAll(
  room: ServerRoom,
  server: ProcessServerProcess,
  machines: readonly { machineId: string }[],
): Promise<ScriptedAgent[]> {
  const agents: ScriptedAgent[] = [];
  const left = [...machines];
  const some = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift())
      agents.push(await connect(room, server, next.machineId));
  };
  const connecting = new AbortController();
  const talking = (async () => {
    // Nobody is silent for half a minute, however long the others take.
    while (!connecting.signal.aborted) {
      for (const agent of agents) await agent.reportStatus();
      await systemClock.sleep(5_000, connecting.signal).catch(() => undefined);
    }
  })();
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, some));
  } finally {
    connecting.abort();
    await talking;
  }
  return agents;
}

/** Tried again until the list has arrived. */
async function connect(
  room: ServerRoom,
  server: ProcessServerProcess,
  machineId: string,
): Promise<ScriptedAgent> {
  const proof = await room.credentials(machineId);
  for (const deadline = performance.now() + 60_000; ; ) {
    try {
      const channel = await room.channelTo(server, proof);
      const memory = freshMemory(machineId);
      const agent = new ScriptedAgent({ channel, clock: systemClock, memory });
      agent.sizeBytes = 64 * GIB;
      await agent.begin();
      return agent;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await systemClock.sleep(500);
    }
  }
}

/** Leaves of noise, made once: each agent sends them in another order. */
const noise = Array.from({ length: LEAVES }, () => {
  const content = randomBytes(65536);
  return { content, leafHash: createHash('sha256').update(content).digest() };
});

/** A whole leaf; those of an agent lie far apart, each in another page of the table of hashes. */
function record(index: number, shift: number): Uint8Array {
  const { content, leafHash } = noise[(index + shift) % noise.length] as (typeof noise)[number];
  const bytes = new Uint8Array(48 + content.length);
  const leaf = index * 1024;
  encodeDataHeader(bytes, 0, { disk: 0, leaf, blockMask: 0xffff, zeroMask: 0, leafHash });
  bytes.set(content, 48);
  return bytes;
}

/** A resync of `leaves` leaves of noise, and the barrier behind it; resolves when that is in the vault. */
async function replicate(agent: ScriptedAgent, options: { leaves: number; shift: number }) {
  const begin = { kind: RecordKind.ResyncBegin, reason: 'Initial' } as const;
  await agent.sendRecords([encodeControlRecord(begin)]);
  for (let index = 0; index < options.leaves; index += 1)
    await agent.sendRecords([record(index, options.shift)]);
  await agent.sendRecords([encodeControlRecord({ kind: RecordKind.ResyncEnd })]);
  const { lsn } = await agent.barrier();
  await agent.waitForUploaded(lsn);
}

/** The most memory that the process server ever had resident, MiB. */
function peakMib(server: ProcessServerProcess): number {
  const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

test(`${AGENTS} agents that send at the same time are served within ${PEAK_MIB_MAX} MiB of memory`, async ({
  room,
}) => {
  const server = await room.start();
  await server.port();
  const machines: AssignedMachine[] = Array.from({ length: AGENTS }, (_, index) => ({
    machineId: room.operator.addMachine(`m${index}`),
    name: `m${index}`,
  }));
  await room.operator.assign('ps1', machines);
  const agents = await connectAll(room, server, machines);
  await Promise.all(agents.map((agent, shift) => replicate(agent, { leaves: LEAVES, shift })));
  const status = await room.operator.status('ps1');
  expect(status?.machines).toHaveLength(AGENTS);
  console.log(`VmHWM of the process server: ${peakMib(server).toFixed(0)} MiB`);
  expect(peakMib(server)).toBeLessThan(PEAK_MIB_MAX);
}, 300_000);

test('a limit in the list slows the uploads of a process server that runs', async ({ room }) => {
  const server = await room.start();
  await server.port();
  const machines = [{ machineId: room.operator.addMachine('slow'), name: 'slow' }];
  const bytesPerSecond = 512 << 10;
  await room.operator.assign('ps1', machines, { bandwidth: { bytesPerSecond, windows: [] } });
  const agent = await connect(room, server, machines[0]?.machineId ?? '');
  const since = performance.now();
  await replicate(agent, { leaves: LEAVES, shift: 0 });
  const seconds = (performance.now() - since) / 1000;
  // 2 MiB, less what the bucket holds.
  expect((LEAVES * 65536) / seconds).toBeLessThan(1.25 * bytesPerSecond);
  const metrics = await fetch(`http://127.0.0.1:${await server.metricsPort()}/metrics`);
  expect(await metrics.text()).toContain(
    `farshore_processserver_upload_limit_bytes_per_second ${bytesPerSecond}`,
  );
});
