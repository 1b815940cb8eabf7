/**
 * RPO under steady change: fio writes 20 MB/s of incompressible data to a mounted filesystem for some minutes, with a barrier every 15
 * seconds, through agent and process server into the journal in Azurite. RPO is now less the time of the newest barrier that is durable in
 * the vault, at every tenth of a second; durable is when the barrier's segment is seen there. (ASR makes a point every 5 minutes.)
 */
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Site, type SourceDisk } from '../fixtures/site.ts';
import { requireRoot } from '../integration/capture/machine.ts';
import { startAzurite } from '../servers/azurite.ts';
import { type Benchmark, type BenchOptions, percentile } from './benchmark.ts';
import { runFio } from './fio.ts';
import { firstBarrier, segmentsAsTheyCome } from './journalWatch.ts';
import { startReplicating } from './replicating.ts';

const MIB = 1 << 20;
const CHANGE_BYTES_PER_SECOND = 20_000_000;
const MINUTES = 20;
const BARRIER_SECONDS = 15;
const SAMPLE_MS = 100;
const DEADLINE_MS = 600_000;

/** A barrier (wall clock) and when it was seen in the vault. */
export interface DurableBarrier {
  timeMs: number;
  seenMs: number;
}

export const rpo: Benchmark = async (options) => {
  requireRoot();
  const { cleanup, tell, minutes = MINUTES, barrierSeconds = BARRIER_SECONDS } = options;
  requireSpace(minutes);
  const azurite = await startAzurite();
  const end = cleanup.add(() => azurite.stop());
  try {
    const site = await Site.create({ azurite, container: 'rpo' });
    const endSite = cleanup.add(() => site.end());
    try {
      const disk = site.disk('source', (options.mib ?? 2048) * MIB);
      const mountPoint = site.machine.mount(disk.device);
      await startReplicating(site, { disks: [disk], barrierSeconds });
      const { objects } = site.stores;
      const { machineId } = site;
      await firstBarrier(objects, { machineId, withinMs: DEADLINE_MS });
      const { durable, from, to } = await watch(site, { ...options, disk, mountPoint, minutes });
      const samples = rpoSamples(durable, { from, to });
      const status = await site.status();
      tell(
        `${durable.length} barriers durable in ${((to - from) / 1000).toFixed(0)} s; voided so far: ${status?.barriers.voided ?? '?'}`,
      );
      return {
        rounds: [{ durable, from, to }],
        figures: [
          { label: 'RPO p50', value: percentile(samples, 0.5), unit: 's' },
          { label: 'RPO p99', value: percentile(samples, 0.99), unit: 's', goal: { most: 30 } },
          { label: 'RPO, worst', value: percentile(samples, 1), unit: 's' },
          {
            label: 'longest freeze',
            value: status?.barriers.maxFreezeMs ?? Number.NaN,
            unit: 'ms',
          },
        ],
      };
    } finally {
      await endSite();
    }
  } finally {
    await end();
  }
};

/** What is written stays in the vault until the end. */
function requireSpace(minutes: number): void {
  const { bavail, bsize } = statfsSync(tmpdir());
  const needed = 1.5 * minutes * 60 * CHANGE_BYTES_PER_SECOND;
  if (bavail * bsize < needed)
    throw new Error(
      `${minutes} minutes need ${(needed / 1e9).toFixed(0)} GB in ${tmpdir()}, which has ${((bavail * bsize) / 1e9).toFixed(0)} GB. Give it room, or use --minutes.`,
    );
}

async function watch(
  site: Site,
  options: BenchOptions & { disk: SourceDisk; mountPoint: string; minutes: number },
): Promise<{ durable: DurableBarrier[]; from: number; to: number }> {
  const { cleanup, disk, mountPoint, minutes } = options;
  const watching = new AbortController();
  const durable: DurableBarrier[] = [];
  const { objects } = site.stores;
  const collecting = (async () => {
    const { machineId } = site;
    const { signal } = watching;
    for await (const segment of segmentsAsTheyCome(objects, { machineId, signal })) {
      const newest = segment.barriers.at(-1);
      if (newest !== undefined) durable.push({ timeMs: newest.timeMs, seenMs: segment.seenMs });
    }
  })();
  try {
    const from = Date.now();
    const load = {
      name: 'change',
      filename: path.join(mountPoint, 'data'),
      size: Math.floor(disk.sizeBytes / 2),
      rw: 'randwrite',
      bs: '64k',
      direct: 1,
      ioengine: 'libaio',
      iodepth: 4,
      refill_buffers: 1,
      rate: CHANGE_BYTES_PER_SECOND,
      time_based: 1,
      runtime: Math.ceil(minutes * 60),
    };
    await Promise.race([runFio(load, { cleanup }), collecting]);
    return { durable, from, to: Date.now() };
  } finally {
    watching.abort();
    await collecting.catch(() => undefined);
  }
}

/** RPO in seconds at every tenth of a second, ascending. Times before the first barrier was durable are left out. */
export function rpoSamples(
  durable: readonly DurableBarrier[],
  span: { from: number; to: number },
): number[] {
  const samples: number[] = [];
  let next = 0;
  let newest: number | undefined;
  for (let now = span.from; now <= span.to; now += SAMPLE_MS) {
    for (
      let barrier = durable[next];
      barrier !== undefined && barrier.seenMs <= now;
      barrier = durable[next]
    ) {
      newest = Math.max(newest ?? barrier.timeMs, barrier.timeMs);
      next += 1;
    }
    if (newest !== undefined) samples.push((now - newest) / 1000);
  }
  return samples.sort((a, b) => a - b);
}
