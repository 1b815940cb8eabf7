/**
 * Applying a journal to a replica in Azurite, a sequential one (whole leaves one after the other) and a scattered one (single blocks
 * anywhere), against bare serial Put Pages of the same sizes at the same offsets to the same Azurite. The applier reads and opens the
 * segments, writes the pages, hashes and snapshots beside that, and makes a point at the end. Rounds alternate which comes first.
 */
import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { BlobServiceClient } from '@azure/storage-blob';
import { BLOCKS_PER_LEAF, LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { Replica } from '../../dataplane/journal/replica.ts';
import {
  codecWorkerUrl,
  pooledCodec,
  type SegmentCodec,
} from '../../dataplane/journal/segmentCodec.ts';
import { ensureVaultContainer, openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { WorkerPool } from '../../platform/node/workerPool.ts';
import type { PageBlobStore } from '../../platform/ports.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import { SampleMachine } from '../replica/sampleMachine.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';
import { type Benchmark, median, timed } from './benchmark.ts';

const MIB = 1 << 20;
const world = { clock: systemClock, random: systemRandom };
const PATTERNS = ['sequential', 'scattered'] as const;
type Pattern = (typeof PATTERNS)[number];
/** Single blocks of a scattered journal for each MiB of disk. */
const SCATTERED_PER_MIB = 8;
const CUT_BYTES = 32 * MIB;

interface Written {
  offset: number;
  length: number;
}

interface ApplyRound {
  pattern: Pattern;
  first: 'bare' | 'apply';
  writes: number;
  mib: number;
  applySeconds: number;
  bareSeconds: number;
}

export const apply: Benchmark = async ({ rounds, tell, cleanup, mib = 256 }) => {
  const azurite = await startAzurite();
  // As many as the applier's process has.
  const pool = new WorkerPool({
    module: codecWorkerUrl,
    size: Math.max(1, availableParallelism() - 1),
  });
  const end = cleanup.add(async () => {
    await pool.close();
    await azurite.stop();
  });
  try {
    const codec = pooledCodec(pool);
    const done: ApplyRound[] = [];
    /** Journals of one pattern are all the same, so the next round knows what will be written. */
    const known = new Map<Pattern, readonly Written[]>();
    for (let index = 0; index < rounds; index += 1)
      for (const pattern of PATTERNS) {
        const container = `${pattern}-${index}`;
        const round = await runRound(azurite, { pattern, mib, container, codec, known });
        tell(
          `round ${index + 1}, ${pattern}, ${round.first} first: ${round.writes} writes of ${round.mib.toFixed(0)} MiB: apply ${round.applySeconds.toFixed(2)} s, bare ${round.bareSeconds.toFixed(2)} s`,
        );
        done.push(round);
      }
    return {
      rounds: done,
      figures: PATTERNS.flatMap((pattern) => {
        const own = done.filter((round) => round.pattern === pattern);
        const bare = median(own.map((round) => round.bareSeconds));
        const applied = median(own.map((round) => round.applySeconds));
        return [
          { label: `${pattern}, bare Put Pages`, value: bare, unit: 's' },
          { label: `${pattern}, apply`, value: applied, unit: 's' },
          { label: `${pattern}, ratio`, value: bare / applied, unit: '', goal: { least: 0.8 } },
        ];
      }),
    };
  } finally {
    await end();
  }
};

interface RoundOptions {
  pattern: Pattern;
  mib: number;
  container: string;
  codec: SegmentCodec;
  known: Map<Pattern, readonly Written[]>;
}

async function runRound(azurite: Azurite, options: RoundOptions): Promise<ApplyRound> {
  const { pattern, mib, container, known } = options;
  const before = known.get(pattern);
  const bare = (written: readonly Written[]) =>
    putPages(azurite, { container: `${container}-bare`, mib, written });
  let bareSeconds = before === undefined ? undefined : await bare(before);
  const first = bareSeconds === undefined ? 'apply' : 'bare';
  const { seconds: applySeconds, written } = await applyJournal(azurite, options);
  bareSeconds ??= await bare(written);
  if (first === 'apply') known.set(pattern, written);
  else known.delete(pattern);
  const bytes = written.reduce((sum, { length }) => sum + length, 0);
  return { pattern, first, writes: written.length, mib: bytes / MIB, applySeconds, bareSeconds };
}

async function applyJournal(
  azurite: Azurite,
  options: RoundOptions,
): Promise<{ seconds: number; written: Written[] }> {
  const { pattern, mib, container, codec } = options;
  const access = { connectionString: azurite.connectionString, container };
  await ensureVaultContainer(world, access);
  const stores = openVaultStores(world, access);
  const machine = new SampleMachine({ objects: stores.objects, seed: 1, sizes: [mib * MIB] });
  await writeJournal(machine, pattern);
  const written: Written[] = [];
  const pages = noting(stores.pages, written);
  const { machineId, disks, dataKey } = machine;
  const replica = await Replica.open(
    { objects: stores.objects, pages, clock: systemClock, logger: silentLogger, codec },
    { machineId, disks, dataKey, holder: 'applier:bench' },
  );
  execFileSync('sync');
  const { seconds } = await timed(() => replica.applyTo('end', { makePoints: true }));
  await replica.close();
  return { seconds, written };
}

async function writeJournal(machine: SampleMachine, pattern: Pattern): Promise<void> {
  const leaves = (machine.disks[0]?.sizeBytes ?? 0) / LEAF_SIZE;
  machine.resyncBegin();
  machine.resyncEnd();
  const records = pattern === 'sequential' ? leaves : (leaves / 16) * SCATTERED_PER_MIB;
  const perCut = CUT_BYTES / (pattern === 'sequential' ? LEAF_SIZE : LEAF_SIZE / BLOCKS_PER_LEAF);
  for (let record = 0; record < records; record += 1) {
    const leaf = pattern === 'sequential' ? record : machine.random.below(leaves);
    const blockMask =
      pattern === 'sequential' ? 0xffff : 1 << machine.random.below(BLOCKS_PER_LEAF);
    machine.write({ index: 0, leaf, blockMask, zeroMask: 0 });
    if ((record + 1) % perCut === 0) await machine.cut();
  }
  machine.barrier();
  await machine.cut();
}

/** Notes what is written to replicas; leaf tables are the applier's own expense. */
function noting(pages: PageBlobStore, written: Written[]): PageBlobStore {
  return new Proxy(pages, {
    get: (target, name) => {
      const method = Reflect.get(target, name) as unknown;
      if (typeof method !== 'function') return method;
      if (name !== 'write') return method.bind(target);
      return async (...args: Parameters<PageBlobStore['write']>) => {
        const [key, bytes, offset] = args;
        if (key.endsWith('.vhd')) written.push({ offset, length: bytes.length });
        await target.write(...args);
      };
    },
  });
}

async function putPages(
  azurite: Azurite,
  options: { container: string; mib: number; written: readonly Written[] },
): Promise<number> {
  const { container, mib, written } = options;
  const service = BlobServiceClient.fromConnectionString(azurite.connectionString);
  const client = service.getContainerClient(container);
  await client.create();
  const blob = client.getPageBlobClient('bare');
  await blob.create(mib * MIB + 512);
  const buffer = Buffer.from(systemRandom.bytes(4 * MIB));
  execFileSync('sync');
  const { seconds } = await timed(async () => {
    for (const { offset, length } of written)
      await blob.uploadPages(buffer.subarray(0, length), offset, length);
  });
  return seconds;
}
