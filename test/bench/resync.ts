/**
 * A resync after lost tracking: some leaves of a large, sparse disk changed while nobody watched. What the agent sends for it (everything
 * that leaves it: records, the hashes that it asks about, framing, TLS), counted between it and the process server, against the changed
 * leaves themselves.
 */
import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { Site, type SourceDisk } from '../fixtures/site.ts';
import { requireRoot } from '../integration/capture/machine.ts';
import type { CuttableProxy } from '../servers/cuttableProxy.ts';
import { startNullStore } from '../servers/nullStoreProcess.ts';
import { type Benchmark, type BenchOptions, median } from './benchmark.ts';
import { fillWithNoise } from './content.ts';
import { firstBarrier } from './journalWatch.ts';
import { startReplicating } from './replicating.ts';

const MIB = 1 << 20;
const DEADLINE_MS = 600_000;
/** 2,048 leaves of 4 GiB. */
const CHANGED_SHARE = 1 / 32;
/** Of the disk, before anything changes; the rest is a hole. */
const FILLED_SHARE = 1 / 16;

interface ResyncRound {
  leaves: number;
  changedLeaves: number;
  recordBytes: number;
  sentBytes: number;
  seconds: number;
}

export const resync: Benchmark = async (options) => {
  requireRoot();
  const { rounds, tell, cleanup } = options;
  const mib = options.mib ?? 4096;
  const store = await startNullStore();
  const end = cleanup.add(() => store.stop());
  try {
    const site = await Site.create({ azurite: store, container: 'resync' });
    const endSite = cleanup.add(() => site.end());
    try {
      const disk = site.disk('source', mib * MIB);
      fillWithNoise(disk.image, disk.sizeBytes * FILLED_SHARE);
      const link = await replicate(site, { ...options, disk });
      const done: ResyncRound[] = [];
      for (let index = 0; index < rounds; index += 1) {
        const round = await runRound(site, { disk, link });
        tell(
          `round ${index + 1}: ${round.changedLeaves} of ${round.leaves} leaves changed: ${(round.recordBytes / MIB).toFixed(1)} MiB of records, ${(round.sentBytes / MIB).toFixed(1)} MiB in all, ${round.seconds.toFixed(1)} s`,
        );
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

function figures(done: readonly ResyncRound[]) {
  const mid = (of: (round: ResyncRound) => number) => median(done.map(of));
  const changed = mid(({ changedLeaves }) => changedLeaves * LEAF_SIZE);
  const sent = mid(({ sentBytes }) => sentBytes);
  return [
    { label: 'changed leaves', value: changed / MIB, unit: 'MiB' },
    { label: 'sent as records', value: mid(({ recordBytes }) => recordBytes) / MIB, unit: 'MiB' },
    { label: 'sent in all, hashes counted', value: sent / MIB, unit: 'MiB' },
    { label: 'ratio', value: sent / changed, unit: '', goal: { most: 1.05 } },
    { label: 'duration', value: mid(({ seconds }) => seconds), unit: 's' },
  ];
}

/** The initial replication, over a link that counts. The agent is stopped when it is through. */
async function replicate(
  site: Site,
  options: BenchOptions & { disk: SourceDisk },
): Promise<CuttableProxy> {
  let link: CuttableProxy | undefined;
  const { agent } = await startReplicating(site, {
    disks: [options.disk],
    through: async (port) => {
      link = await site.agentLink({ host: '127.0.0.1', port });
      return link.port;
    },
  });
  const { machineId } = site;
  await firstBarrier(site.stores.objects, { machineId, withinMs: DEADLINE_MS });
  await agent.kill('SIGTERM');
  if (link === undefined) throw new Error('the agent was given no link');
  return link;
}

async function runRound(
  site: Site,
  options: { disk: SourceDisk; link: CuttableProxy },
): Promise<ResyncRound> {
  const { disk, link } = options;
  site.forgetTracking();
  const leaves = disk.sizeBytes / LEAF_SIZE;
  const changedLeaves = changeLeaves(disk, Math.floor(leaves * CHANGED_SHARE));
  const before = link.forwarded;
  const agent = await site.startAgent({ ports: [link.port] });
  const ended = await agent.logged('The resync has ended');
  // The process server has all of it now; what follows is no longer the resync's.
  const sentBytes = link.forwarded - before;
  await site.nextBarrier();
  await agent.kill('SIGTERM');
  return {
    leaves,
    changedLeaves,
    recordBytes: Number(ended.bytesSent),
    sentBytes,
    seconds: Number(ended.seconds),
  };
}

/** New noise in so many different leaves, anywhere. */
function changeLeaves(disk: SourceDisk, count: number): number {
  const chosen = new Set<number>();
  while (chosen.size < count) chosen.add(randomInt(disk.sizeBytes / LEAF_SIZE));
  const file = openSync(disk.image, 'r+');
  try {
    for (const leaf of chosen)
      writeSync(file, systemRandom.bytes(LEAF_SIZE), 0, LEAF_SIZE, leaf * LEAF_SIZE);
  } finally {
    closeSync(file);
  }
  execFileSync('sync');
  return count;
}
