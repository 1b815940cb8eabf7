/**
 * Ingest without a vault's cost: two agents on loop devices → process server → its durable cache → sealed segments, put into a store that
 * takes and forgets (a process of its own; the process server is the product's, unchanged). The peer is a pipeline over the same bytes on
 * the same cores: `tee >(sha256sum) | zstd -1 | openssl enc -aes-256-ctr` into a file, with fsync. Rounds alternate which comes first.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { Site, type SourceDisk } from '../fixtures/site.ts';
import { requireRoot } from '../integration/capture/machine.ts';
import { type NullStore, startNullStore } from '../servers/nullStoreProcess.ts';
import { type Benchmark, type BenchOptions, median, timed } from './benchmark.ts';
import { fillHalfAndHalf } from './content.ts';
import { firstBarrier } from './journalWatch.ts';
import { cpuSeconds, peakMib } from './processUse.ts';
import { runProgram } from './program.ts';
import { profileOptions, resyncBegun } from './replicating.ts';

const MIB = 1 << 20;
const MACHINES = ['db1', 'db2'] as const;
const DEADLINE_MS = 600_000;

interface IngestRound {
  first: 'pipeline' | 'farshore';
  pipelineSeconds: number;
  farshoreSeconds: number;
  journalMib: number;
  processServerPeakMib: number;
  /** CPU time (user and system) that each took; the agents together. */
  cpuSeconds: { agents: number; processServer: number; store: number };
}

export const ingest: Benchmark = async (options) => {
  requireRoot();
  const { rounds, tell } = options;
  const mib = options.mib ?? 2048;
  const done: IngestRound[] = [];
  for (let index = 0; index < rounds; index += 1) {
    const round = await runRound({ ...options, mib, index });
    tell(
      `round ${index + 1}, ${round.first} first: pipeline ${(mib / round.pipelineSeconds).toFixed(1)} MiB/s, Farshore ${(mib / round.farshoreSeconds).toFixed(1)} MiB/s (${round.journalMib.toFixed(0)} MiB of segments), process server ${round.processServerPeakMib.toFixed(0)} MiB; CPU seconds ${JSON.stringify(round.cpuSeconds)}`,
    );
    done.push(round);
  }
  const pipeline = mib / median(done.map((round) => round.pipelineSeconds));
  const farshore = mib / median(done.map((round) => round.farshoreSeconds));
  return {
    rounds: done,
    figures: [
      { label: 'tee, sha256sum, zstd, openssl', value: pipeline, unit: 'MiB/s' },
      { label: 'Farshore, ingest', value: farshore, unit: 'MiB/s' },
      { label: 'ratio', value: farshore / pipeline, unit: '', goal: { least: 0.7 } },
    ],
  };
};

async function runRound(
  options: BenchOptions & { mib: number; index: number },
): Promise<IngestRound> {
  const { cleanup, index, mib } = options;
  const store = await startNullStore();
  const endStore = cleanup.add(() => store.stop());
  try {
    const site = await Site.create({ azurite: store, container: `round-${index}` });
    const endSite = cleanup.add(() => site.end());
    try {
      const disks = MACHINES.map((name) => {
        const disk = site.disk(name, (mib * MIB) / MACHINES.length);
        fillHalfAndHalf(disk.image, disk.sizeBytes);
        return disk;
      });
      execFileSync('sync');
      const pipeline = () => runPipeline(site, { ...options, disks });
      if (index % 2 === 0) {
        const pipelineSeconds = await pipeline();
        return {
          first: 'pipeline',
          pipelineSeconds,
          ...(await replicate(site, { ...options, disks, store })),
        };
      }
      const farshore = await replicate(site, { ...options, disks, store });
      return { first: 'farshore', pipelineSeconds: await pipeline(), ...farshore };
    } finally {
      await endSite();
    }
  } finally {
    await endStore();
  }
}

/** Seconds until the last byte is on the disk. It reads past the page cache, as an agent does. */
async function runPipeline(
  site: Site,
  { disks, cleanup }: BenchOptions & { disks: readonly SourceDisk[] },
): Promise<number> {
  const output = path.join(site.directory, 'pipeline');
  const read = `for disk in ${disks.map(({ image }) => image).join(' ')}; do dd if=$disk bs=1M iflag=direct status=none; done`;
  const [key, iv] = [randomBytes(32).toString('hex'), randomBytes(16).toString('hex')];
  const pipeline = `set -o pipefail; { ${read}; } | tee >(sha256sum >/dev/null) | zstd -1 -q -c | openssl enc -aes-256-ctr -K ${key} -iv ${iv} | dd of=${output} bs=1M iflag=fullblock conv=fsync status=none`;
  const { seconds } = await timed(() => runProgram('bash', ['-c', pipeline], { cleanup }));
  rmSync(output);
  execFileSync('sync');
  return seconds;
}

/** From the first resync's begin until the first barrier of each machine is in the store: everything before it is, too. */
async function replicate(
  site: Site,
  options: BenchOptions & { disks: readonly SourceDisk[]; store: NullStore },
): Promise<Omit<IngestRound, 'first' | 'pipelineSeconds'>> {
  const { disks, store } = options;
  const nodeOptions = profileOptions(options.profileDirectory);
  const machines = MACHINES.map((name, index) => ({
    name,
    machineId: index === 0 ? site.machineId : site.addMachine(name),
  }));
  const server = await site.startServer({ nodeOptions });
  await site.operator.assign(
    'ps1',
    machines.map((machine, index) => ({
      ...machine,
      disks: [{ index: 0, name: 'disk0', device: disks[index]?.device ?? '', sizeBytes: 0 }],
      policy: { crashConsistentSeconds: 1, appConsistentSeconds: 0 },
    })),
  );
  const before = cpuSeconds(store.pid);
  const agents = await Promise.all(MACHINES.map((name) => site.startAgent({ name, nodeOptions })));
  const begun = await Promise.all(agents.map(resyncBegun));
  await site.closeEnrolment();
  const ends = await Promise.all(
    machines.map(({ machineId }) =>
      firstBarrier(site.stores.objects, { machineId, withinMs: DEADLINE_MS }),
    ),
  );
  const use = {
    journalMib: ends.reduce((sum, { journalBytes }) => sum + journalBytes, 0) / MIB,
    processServerPeakMib: peakMib(server.pid),
    cpuSeconds: {
      agents: agents.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0),
      processServer: cpuSeconds(server.pid),
      store: cpuSeconds(store.pid) - before,
    },
  };
  for (const agent of agents) await agent.kill('SIGTERM');
  await server.kill('SIGTERM');
  const endedMs = Math.max(...ends.map(({ seenMs }) => seenMs));
  return { farshoreSeconds: (endedMs - Math.min(...begun)) / 1000, ...use };
}
