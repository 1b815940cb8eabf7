import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { BlobServiceClient } from '@azure/storage-blob';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { CHAIN_START, Chain } from '../../dataplane/journal/chain.ts';
import { RootBuilder } from '../../dataplane/journal/merkle.ts';
import { decodeRecord, LEAF_SIZE, RecordKind } from '../../dataplane/journal/record.ts';
import { SEGMENT_SIZE_MAX } from '../../dataplane/journal/segment.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import { openVaultStores } from '../../platform/azure/vaultStores.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { systemRandom } from '../../platform/node/random.ts';
import { type Azurite, startAzurite } from '../servers/azurite.ts';

const MEBIBYTES = 256;
const PEAK_LIMIT_MIB = 400;
const run = promisify(execFile);
const outcome = z.object({
  ingestSeconds: z.number(),
  totalSeconds: z.number(),
  peakMib: z.number(),
  root: z.string(),
  lsn: z.string(),
});

let azurite: Azurite;
let directory: string;

beforeAll(async () => {
  azurite = await startAzurite();
  await BlobServiceClient.fromConnectionString(azurite.connectionString)
    .getContainerClient('journal')
    .create();
  directory = await mkdtemp(path.join(tmpdir(), 'farshore-journal-'));
});

afterAll(async () => {
  await azurite?.stop();
  if (directory !== undefined) await rm(directory, { recursive: true, force: true });
});

describe('a journal into real blob storage', () => {
  test(`carries ${MEBIBYTES} MiB of incompressible data within bounded memory, and it comes back to the barrier's root`, async () => {
    const { connectionString } = azurite;
    const options = { directory, connectionString, container: 'journal', mebibytes: MEBIBYTES };
    const program = path.join(import.meta.dirname, '../servers/journalProcess.ts');
    const { stdout } = await run(process.execPath, [program, JSON.stringify(options)]);
    const moved = outcome.parse(JSON.parse(stdout));
    const rate = (seconds: number) => (MEBIBYTES / seconds).toFixed(0);
    console.log(
      `journaled at ${rate(moved.ingestSeconds)} MiB/s, in the vault at ${rate(moved.totalSeconds)} MiB/s, VmHWM ${moved.peakMib.toFixed(0)} MiB`,
    );
    expect(moved.peakMib).toBeLessThan(PEAK_LIMIT_MIB);

    const deps = { clock: systemClock, random: systemRandom };
    const { objects } = openVaultStores(deps, { connectionString, container: 'journal' });
    for await (const { size } of objects.list('journal/'))
      expect(size).toBeLessThanOrEqual(SEGMENT_SIZE_MAX);
    const machine = {
      machineId: '0123456789abcdef0123456789abcdef',
      dataKey: new Uint8Array(32).fill(7),
    };
    const builder = new RootBuilder({ sizeBytes: MEBIBYTES << 20 });
    const roots: string[] = [];
    let lsn = 0n;
    const chain = new Chain({ objects, codec: inlineCodec }, machine);
    for await (const segment of chain.segments(CHAIN_START))
      for await (const { records } of segment.batches())
        for (let offset = 0; offset < records.length; lsn += 1n) {
          const { record, next } = decodeRecord(records, offset);
          offset = next;
          if (record.kind === RecordKind.Data) builder.add(record.leaf * LEAF_SIZE, record.blocks);
          if (record.kind === RecordKind.Barrier)
            roots.push(...record.barrier.disks.map(({ root }) => root));
        }
    expect(String(lsn)).toBe(moved.lsn);
    expect(roots).toEqual([moved.root]);
    expect(builder.finish()).toBe(moved.root);
    expect((await chain.newest())?.position.lsn).toBe(lsn);
  });
});
