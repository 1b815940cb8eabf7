/**
 * Applying a journal to a replica in Azurite, a sequential one (whole leaves one after the other) and a scattered one (single blocks
 * anywhere), against bare serial Put Pages of the same sizes at the same offsets to the same Azurite. The applier reads and opens the
 * segments, writes the pages, hashes and snapshots beside that, and makes a point at the end.
 */
import { BlobServiceClient } from '@azure/storage-blob';
import { BLOCKS_PER_LEAF, LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { Replica } from '../../dataplane/journal/replica.ts';
import { ensureVaultContainer, openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
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
  writes: number;
  mib: number;
  applySeconds: number;
  bareSeconds: number;
}

export const apply: Benchmark = async ({ rounds, tell, cleanup, mib = 256 }) => {
  const azurite = await startAzurite();
  const end = cleanup.add(() => azurite.stop());
  try {
    const done: ApplyRound[] = [];
    for (let index = 0; index < rounds; index += 1)
      for (const pattern of PATTERNS) {
        const round = await runRound(azurite, { pattern, mib, container: `${pattern}-${index}` });
        tell(
          `round ${index + 1}, ${pattern}: ${round.writes} writes of ${round.mib.toFixed(0)} MiB: apply ${round.applySeconds.toFixed(2)} s, bare ${round.bareSeconds.toFixed(2)} s`,
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

async function runRound(
  azurite: Azurite,
  options: { pattern: Pattern; mib: number; container: string },
): Promise<ApplyRound> {
  const { pattern, mib, container } = options;
  const access = { connectionString: azurite.connectionString, container };
  await ensureVaultContainer(world, access);
  const stores = openVaultStores(world, access);
  const machine = new SampleMachine({ objects: stores.objects, seed: 1, sizes: [mib * MIB] });
  await writeJournal(machine, pattern);
  const written: Written[] = [];
  const replica = await Replica.open(
    {
      objects: stores.objects,
      pages: noting(stores.pages, written),
      clock: systemClock,
      logger: silentLogger,
    },
    {
      machineId: machine.machineId,
      disks: machine.disks,
      dataKey: machine.dataKey,
      holder: 'applier:bench',
    },
  );
  const { seconds: applySeconds } = await timed(() => replica.applyTo('end', { makePoints: true }));
  await replica.close();
  const bareSeconds = await putPages(azurite, { container: `${container}-bare`, mib, written });
  const bytes = written.reduce((sum, { length }) => sum + length, 0);
  return { pattern, writes: written.length, mib: bytes / MIB, applySeconds, bareSeconds };
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
  const { seconds } = await timed(async () => {
    for (const { offset, length } of written)
      await blob.uploadPages(buffer.subarray(0, length), offset, length);
  });
  return seconds;
}
