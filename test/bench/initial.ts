/**
 * Initial replication against what the blob service takes: incompressible data from a loop device through agent and process server
 * into the journal, and the same bytes as bare serial Put Blobs of 64 MiB into the same Azurite. Rounds alternate which comes first.
 */
import { systemClock } from '../../platform/node/clock.ts';
import { vaultLayout } from '../../vault/layout.ts';
import { Site, type SourceDisk } from '../fixtures/site.ts';
import { requireRoot } from '../integration/capture/machine.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { type Benchmark, type BenchOptions, median, settled } from './benchmark.ts';
import { fillWithNoise } from './content.ts';
import { cpuSeconds, peakMib } from './processUse.ts';
import { putBlobs } from './putBlobs.ts';
import { startReplicating } from './replicating.ts';

const MIB = 1 << 20;
/** Each look costs the server some CPU, which the copy lacks then. */
const POLL_MS = 100;
const DEADLINE_MS = 600_000;

export interface InitialRound {
  first: 'azurite' | 'farshore';
  azuriteSeconds: number;
  farshoreSeconds: number;
  processServerPeakMib: number;
  agentPeakMib: number;
  /** CPU time (user and system) that each took while Farshore copied. */
  cpuSeconds: { agent: number; processServer: number; azurite: number };
}

/** Memory that the process server may ever take, MiB. */
const PEAK_MIB_MAX = 400;

export const initial: Benchmark = async (options) => {
  requireRoot();
  const { rounds, tell, cleanup } = options;
  const mib = options.mib ?? 1024;
  const azurite = await startAzurite();
  const end = cleanup.add(() => azurite.stop());
  try {
    const done: InitialRound[] = [];
    for (let index = 0; index < rounds; index += 1) {
      const round = await runRound({ ...options, mib, azurite, index });
      tell(
        `round ${index + 1}: azurite ${(mib / round.azuriteSeconds).toFixed(1)} MiB/s, Farshore ${(mib / round.farshoreSeconds).toFixed(1)} MiB/s, process server ${round.processServerPeakMib.toFixed(0)} MiB, agent ${round.agentPeakMib.toFixed(0)} MiB; CPU seconds ${JSON.stringify(round.cpuSeconds)}`,
      );
      done.push(round);
    }
    const azuriteRate = mib / median(done.map((round) => round.azuriteSeconds));
    const farshoreRate = mib / median(done.map((round) => round.farshoreSeconds));
    const peak = Math.max(...done.map((round) => round.processServerPeakMib));
    return {
      rounds: done,
      figures: [
        { label: 'azurite, serial Put Blobs', value: azuriteRate, unit: 'MiB/s' },
        { label: 'Farshore, initial copy', value: farshoreRate, unit: 'MiB/s' },
        { label: 'ratio', value: farshoreRate / azuriteRate, unit: '', goal: { least: 0.6 } },
        { label: 'process server VmHWM', value: peak, unit: 'MiB', goal: { most: PEAK_MIB_MAX } },
      ],
    };
  } finally {
    await end();
  }
};

async function runRound(
  options: BenchOptions & { mib: number; azurite: Azurite; index: number },
): Promise<InitialRound> {
  const { azurite, index, cleanup } = options;
  const site = await Site.create({ azurite, container: `round-${index}` });
  const end = cleanup.add(() => site.end());
  try {
    const disk = site.disk('source', options.mib * MIB);
    fillWithNoise(disk.image, disk.sizeBytes);
    const { image, sizeBytes } = disk;
    const bare = () => putBlobs(azurite, { container: `bare-${index}`, image, bytes: sizeBytes });
    const whole = () => copyInitially(site, { ...options, disk });
    if (index % 2 === 0) {
      const azuriteSeconds = await settled(bare);
      return { first: 'azurite', azuriteSeconds, ...(await settled(whole)) };
    }
    const farshore = await settled(whole);
    return { first: 'farshore', azuriteSeconds: await settled(bare), ...farshore };
  } finally {
    await end();
  }
}

/** From the resync's begin in the agent until all of the disk's bytes are in the vault's journal. */
async function copyInitially(
  site: Site,
  options: { azurite: Azurite; disk: SourceDisk; profileDirectory?: string | undefined },
): Promise<Omit<InitialRound, 'first' | 'azuriteSeconds'>> {
  const { azurite, disk, profileDirectory } = options;
  const azuritePid = azurite.pid ?? 0;
  const azuriteBefore = cpuSeconds(azuritePid);
  const { server, agent, begunMs } = await startReplicating(site, {
    disks: [disk],
    profileDirectory,
  });
  const ended = await untilInJournal(site, disk.sizeBytes);
  const peaks = {
    processServerPeakMib: peakMib(server.pid),
    agentPeakMib: peakMib(agent.pid),
    cpuSeconds: {
      agent: cpuSeconds(agent.pid),
      processServer: cpuSeconds(server.pid),
      azurite: cpuSeconds(azuritePid) - azuriteBefore,
    },
  };
  await agent.kill('SIGTERM');
  await server.kill('SIGTERM');
  return { farshoreSeconds: (ended - begunMs) / 1000, ...peaks };
}

/** Incompressible data: it is all there once the segments are as long together. Returns when that was, wall clock. */
async function untilInJournal(site: Site, bytes: number): Promise<number> {
  const { objects } = site.stores;
  const deadline = performance.now() + DEADLINE_MS;
  let stored = 0;
  for (let seq = 0; stored < bytes; ) {
    const segment = await objects.head(vaultLayout.segment(site.machineId, seq));
    if (segment !== undefined) {
      stored += segment.size;
      seq += 1;
    } else if (performance.now() > deadline)
      throw new Error(`only ${stored} of ${bytes} bytes are in the journal`);
    else await systemClock.sleep(POLL_MS);
  }
  return Date.now();
}
