import { expect, test } from 'vitest';
import { dataKey, machineId } from '../../test/fakes/journalWorld.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { encodeControlRecord, RecordKind } from './record.ts';
import {
  discardSealed,
  listSealed,
  readSealed,
  removeUnfinished,
  sealToFile,
} from './sealedFile.ts';
import { NO_DIGEST, SEGMENT_CHUNK_SIZE, type SegmentHeader } from './segment.ts';
import { inlineCodec } from './segmentCodec.ts';

const directory = `machines/${machineId}`;

async function seal(disk: MemoryDisk, seq: number, reason: string) {
  const record = encodeControlRecord({ kind: RecordKind.ResyncBegin, reason });
  const header: SegmentHeader = {
    kind: 'Data',
    side: 'Source',
    machineId,
    seq,
    writerEpoch: 1,
    firstLsn: BigInt(seq + 1),
    lastLsn: BigInt(seq + 1),
    previousDigest: seq === 0 ? NO_DIGEST : 'ab'.repeat(32),
    salt: new Uint8Array(32).fill(seq),
    plainLength: record.length,
    chunkSize: SEGMENT_CHUNK_SIZE,
    sealedAtMs: 0,
    barriers: [],
    failover: undefined,
  };
  const plain = (async function* () {
    yield record;
  })();
  return await sealToFile({ disk, codec: inlineCodec }, { header, dataKey, plain });
}

async function emptyCache(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await disk.makeDirectory(directory);
  return disk;
}

test('a file that is written over again holds the new segment alone, also when that is shorter', async () => {
  const disk = await emptyCache();
  const first = await seal(disk, 0, 'long '.repeat(2000));
  await discardSealed(disk, first, { othersWait: true });
  const third = await seal(disk, 2, 'short');
  expect(third.sizeBytes).toBeLessThan(first.sizeBytes);
  expect(await disk.list(directory)).toHaveLength(1);
  const name = third.path.slice(directory.length + 1);
  const found = await readSealed(disk, { machineId, name, digest: third.digest });
  expect(found).toMatchObject({ sizeBytes: third.sizeBytes, header: { seq: 2 } });
});

test('nothing is kept of a segment that no other waits behind', async () => {
  const disk = await emptyCache();
  await discardSealed(disk, await seal(disk, 0, 'Initial'), { othersWait: false });
  expect(await disk.list(directory)).toEqual([]);
});

test('what was kept to be written over is no segment, and goes with the next life', async () => {
  const disk = await emptyCache();
  await discardSealed(disk, await seal(disk, 0, 'Initial'), { othersWait: true });
  expect(await listSealed(disk, machineId)).toEqual([]);
  await removeUnfinished(disk, machineId);
  expect(await disk.list(directory)).toEqual([]);
});
