/**
 * A process that does nothing but take records into a cache and carry them to a vault: what it costs is the journal's cost.
 * Arguments as JSON: { directory, connectionString, container, mebibytes }. Prints one JSON line.
 */
import { createHash, randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { z } from 'zod';
import { Cache } from '../../dataplane/journal/cache.ts';
import { DATA_HEADER_SIZE, encodeDataHeader, LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { codecWorkerUrl, pooledCodec } from '../../dataplane/journal/segmentCodec.ts';
import { openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { openDisk } from '../../platform/node/disk.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { WorkerPool } from '../../platform/node/workerPool.ts';
import { resyncBegin, resyncEnd } from '../fakes/records.ts';
import { silentLogger } from '../fakes/silentLogger.ts';

const MIB = 1 << 20;
const LEAVES_PER_BATCH = 48;
/** Batches on their way at a time: what a process server's credit allows. */
const IN_FLIGHT = 4;

const { directory, connectionString, container, mebibytes } = z
  .object({
    directory: z.string(),
    connectionString: z.string(),
    container: z.string(),
    mebibytes: z.number().int(),
  })
  .parse(JSON.parse(process.argv[2] ?? ''));
const deps = { clock: systemClock, random: systemRandom };
const pool = new WorkerPool({ module: codecWorkerUrl, size: availableParallelism() });
const cache = await Cache.open({
  ...deps,
  ...openVaultStores(deps, { connectionString, container }),
  disk: openDisk(directory),
  logger: silentLogger,
  codec: pooledCodec(pool),
});
const sizeBytes = mebibytes * MIB;
const journal = await cache.openMachine({
  machineId: '0123456789abcdef0123456789abcdef',
  writerEpoch: 1,
  dataKey: new Uint8Array(32).fill(7),
  disks: [{ index: 0, name: 'sda', sizeBytes }],
});
const started = performance.now();
let makingMs = 0;
let lsn = 1n;
const inFlight: Promise<void>[] = [];
const send = async (records: Uint8Array, count: number) => {
  inFlight.push(journal.append({ firstLsn: lsn, count, records }));
  lsn += BigInt(count);
  if (inFlight.length >= IN_FLIGHT) await inFlight.shift();
};
await send(resyncBegin(), 1);
for (let leaf = 0; leaf < sizeBytes / LEAF_SIZE; leaf += LEAVES_PER_BATCH) {
  const count = Math.min(LEAVES_PER_BATCH, sizeBytes / LEAF_SIZE - leaf);
  const before = performance.now();
  const batch = makeBatch(leaf, count);
  makingMs += performance.now() - before;
  await send(batch, count);
}
await send(resyncEnd(), 1);
await Promise.all(inFlight);
const ingestSeconds = (performance.now() - started - makingMs) / 1000;
const barrier = await journal.barrier({
  lsn,
  timeMs: systemClock.now(),
  consistency: 'Crash',
  disks: [{ index: 0, sizeBytes }],
  freezeMs: 0,
});
while (journal.positions().uploadedLsn < lsn) await systemClock.sleep(5);
const totalSeconds = (performance.now() - started - makingMs) / 1000;
const status = readFileSync('/proc/self/status', 'utf8');
const peakMib = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
const root = barrier.disks[0]?.root;
console.log(JSON.stringify({ ingestSeconds, totalSeconds, peakMib, root, lsn: String(lsn) }));
await cache.close();
await pool.close();

function makeBatch(firstLeaf: number, count: number): Uint8Array {
  const batch = new Uint8Array(count * (DATA_HEADER_SIZE + LEAF_SIZE));
  randomFillSync(batch);
  for (let i = 0; i < count; i++) {
    const offset = i * (DATA_HEADER_SIZE + LEAF_SIZE);
    const content = batch.subarray(
      offset + DATA_HEADER_SIZE,
      offset + DATA_HEADER_SIZE + LEAF_SIZE,
    );
    encodeDataHeader(batch, offset, {
      disk: 0,
      leaf: firstLeaf + i,
      blockMask: 0xffff,
      zeroMask: 0,
      leafHash: createHash('sha256').update(content).digest(),
    });
  }
  return batch;
}
