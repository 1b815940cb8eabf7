/**
 * What an agent costs the machine's own work: fio on a mounted filesystem, random writes and a mix of reads and writes as fast as it
 * goes, and random writes at a steady rate, without an agent and with one at 60 s barriers, in turn. Process server and store stand for
 * other machines: they take and forget, and have only the time here that neither the work nor the agent wants.
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { Site } from '../fixtures/site.ts';
import { stepAside } from '../fixtures/stepAside.ts';
import { requireRoot } from '../integration/capture/machine.ts';
import type { AgentProcess } from '../servers/agentProcess.ts';
import { startNullStore } from '../servers/nullStoreProcess.ts';
import { NULL_PROCESS_SERVER } from '../servers/processServerProcess.ts';
import { type Benchmark, type BenchOptions, type Figure, median } from './benchmark.ts';
import { type FioResult, runFio } from './fio.ts';
import { cpuSeconds } from './processUse.ts';
import { startReplicating } from './replicating.ts';

const MIB = 1 << 20;
const MINUTES = 1;
const BARRIER_SECONDS = 60;
const DEADLINE_MS = 600_000;
const LOADS = {
  randwrite: { rw: 'randwrite' },
  mixed: { rw: 'randrw', rwmixread: 70 },
  // Of a machine that is not at its limit: neither its disk nor its processors.
  steady: { rw: 'randwrite', rate_iops: 5_000 },
} as const;
type Load = keyof typeof LOADS;
const NAMES = Object.keys(LOADS) as Load[];

interface ImpactRound {
  agent: boolean;
  results: Record<Load, FioResult>;
  /** Made while fio ran, void, and what the agent took of the processors for them and all else. */
  barriers: number;
  voided: number;
  agentCpuSeconds: number;
}

export const impact: Benchmark = async (options) => {
  requireRoot();
  const { rounds, tell, cleanup, barrierSeconds = BARRIER_SECONDS } = options;
  const store = await startNullStore({ ownSession: true });
  const end = cleanup.add(() => store.stop());
  try {
    const site = await Site.create({ azurite: store, container: 'impact' });
    const endSite = cleanup.add(() => site.end());
    try {
      const disk = site.disk('source', (options.mib ?? 1024) * MIB);
      const file = path.join(site.machine.mount(disk.device), 'data');
      const work = { ...options, file, bytes: Math.floor(disk.sizeBytes * 0.7) };
      await layOut(work);
      const { server, agent } = await startReplicating(site, {
        disks: [disk],
        barrierSeconds,
        server: { program: NULL_PROCESS_SERVER, ownSession: true },
      });
      await site.nextBarrier({ withinMs: DEADLINE_MS });
      await stop(site, agent);
      const others = [server.pid, store.pid];
      const done: ImpactRound[] = [];
      for (let index = 0; index < 2 * rounds; index += 1) {
        // without, with, with, without, …
        const withAgent = index % 4 === 1 || index % 4 === 2;
        const round = await runRound(site, { ...work, others, withAgent });
        tell(`${withAgent ? 'with' : 'without'} an agent: ${describe(round)}`);
        done.push(round);
      }
      return { rounds: done, figures: figures(done) };
    } finally {
      await endSite();
    }
  } finally {
    await end();
  }
};

interface Work extends BenchOptions {
  file: string;
  bytes: number;
}

async function layOut({ file, bytes, cleanup }: Work): Promise<void> {
  const options = {
    name: 'lay-out',
    filename: file,
    size: bytes,
    rw: 'write',
    bs: '1m',
    direct: 1,
  };
  await runFio({ ...options, end_fsync: 1, refill_buffers: 1 }, { cleanup });
}

async function runRound(
  site: Site,
  work: Work & { others: readonly number[]; withAgent: boolean },
): Promise<ImpactRound> {
  if (!work.withAgent)
    return {
      agent: false,
      results: await runLoads(work),
      barriers: 0,
      voided: 0,
      agentCpuSeconds: 0,
    };
  const agent = await site.startAgent();
  await agent.logged('The resync has ended');
  const before = await site.nextBarrier({ withinMs: DEADLINE_MS });
  for (const pid of work.others) stepAside(pid);
  const usedBefore = cpuSeconds(agent.pid);
  const results = await runLoads(work);
  const agentCpuSeconds = cpuSeconds(agent.pid) - usedBefore;
  for (const pid of work.others) stepAside(pid, false);
  const after = await site.status();
  await stop(site, agent);
  const barriers = (after?.barriers.count ?? 0) - before.barriers.count;
  const voided = (after?.barriers.voided ?? 0) - before.barriers.voided;
  return { agent: true, results, barriers, voided, agentCpuSeconds };
}

async function stop(site: Site, agent: AgentProcess): Promise<void> {
  await agent.kill('SIGTERM');
  // Otherwise the kernel goes on following writes for the agent to come.
  site.forgetTracking();
}

async function runLoads(work: Work): Promise<Record<Load, FioResult>> {
  const results: Partial<Record<Load, FioResult>> = {};
  for (const name of NAMES) results[name] = await runLoad(work, name);
  return results as Record<Load, FioResult>;
}

async function runLoad(
  { file, bytes, cleanup, minutes = MINUTES }: Work,
  name: Load,
): Promise<FioResult> {
  execFileSync('sync');
  return await runFio(
    {
      name,
      ...LOADS[name],
      filename: file,
      size: bytes,
      bs: '4k',
      direct: 1,
      ioengine: 'libaio',
      iodepth: 4,
      time_based: 1,
      runtime: Math.ceil(minutes * 60),
    },
    { cleanup },
  );
}

/** What is compared, of each load. */
const MEASURES: readonly {
  load: Load;
  what: string;
  of: (result: FioResult) => number | undefined;
}[] = NAMES.flatMap((load) => [
  { load, what: 'IOPS', of: ({ iops }: FioResult) => iops },
  ...(['read', 'write'] as const).flatMap((direction) =>
    (['p50', 'p99'] as const).map((at) => ({
      load,
      what: `${direction} ${at}`,
      of: (result: FioResult) => result[direction]?.[at],
    })),
  ),
]);

/** The ratio of the medians with an agent to those without. */
function figures(done: readonly ImpactRound[]): Figure[] {
  const found: Figure[] = [];
  for (const { load, what, of } of MEASURES) {
    const middle = (agent: boolean) => {
      const rounds = done.filter((round) => round.agent === agent);
      return median(rounds.map(({ results }) => of(results[load]) ?? Number.NaN));
    };
    const [without, withAgent] = [middle(false), middle(true)];
    if (Number.isNaN(without)) continue;
    const unit = what === 'IOPS' ? '/s' : 'ms';
    found.push({ label: `${load}, ${what}, no agent`, value: without, unit });
    const ratio = { label: `${load}, ${what}, ratio`, value: withAgent / without, unit: '' };
    if (what === 'IOPS') found.push({ ...ratio, goal: { least: 0.95 } });
    else found.push(what.endsWith('p99') ? { ...ratio, goal: { most: 1.1 } } : ratio);
  }
  return found;
}

function describe({ agent, results, barriers, voided, agentCpuSeconds }: ImpactRound): string {
  const loads = MEASURES.flatMap(({ load, what, of }) => {
    const value = of(results[load]);
    return value === undefined ? [] : [`${load} ${what} ${value.toFixed(what === 'IOPS' ? 0 : 3)}`];
  });
  const used = `${barriers} barriers, ${voided} void, agent ${agentCpuSeconds.toFixed(1)} CPU s`;
  return `${loads.join(', ')}${agent ? `; ${used}` : ''}`;
}
