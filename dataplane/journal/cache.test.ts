import { describe, expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { MemoryDisk } from '../../test/fakes/memoryDisk.ts';
import { MemoryObjectStore } from '../../test/fakes/memoryObjectStore.ts';
import { MemoryPageBlobStore } from '../../test/fakes/memoryPageBlobStore.ts';
import {
  applyRecord,
  joined,
  resyncBegin,
  resyncEnd,
  SourceDisk,
} from '../../test/fakes/records.ts';
import { SeededRandom } from '../../test/fakes/seededRandom.ts';
import { recordingLogger } from '../../test/fakes/silentLogger.ts';
import { Cache, type CacheLimits } from './cache.ts';
import { CHAIN_START, Chain } from './chain.ts';
import { LeafAnswer } from './leafTable.ts';
import type { MachineJournal } from './machineJournal.ts';
import { RootBuilder } from './merkle.ts';
import { decodeRecord, RecordKind } from './record.ts';
import { inlineCodec } from './segmentCodec.ts';

const MIB = 1 << 20;
const machineId = '0123456789abcdef0123456789abcdef';
const dataKey = new Uint8Array(32).fill(7);

function world(limits: Partial<CacheLimits> = {}) {
  const clock = new ManualClock();
  const objects = new MemoryObjectStore({ clock });
  const pages = new MemoryPageBlobStore({ clock });
  const disk = new MemoryDisk();
  const logger = recordingLogger();
  const random = new SeededRandom(1);
  const deps = { clock, objects, pages, random, logger, codec: inlineCodec };
  const small = { logFileBytes: 1 * MIB, minFreeBytes: 0, ...limits };
  return {
    clock,
    objects,
    pages,
    disk,
    logger,
    deps,
    open: (on = disk) => Cache.open({ ...deps, disk: on, limits: small }),
  };
}

const sda = { index: 0, name: 'sda', sizeBytes: 3 * MIB };
const machine = (writerEpoch = 1) => ({ machineId, writerEpoch, dataKey, disks: [sda] });

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    if (turn > 5000) throw new Error('it does not come to pass');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Initial replication of the given leaves, then a barrier. */
async function replicate(journal: MachineJournal, source: SourceDisk, leaves: number[]) {
  let lsn = journal.positions().journaledLsn + 1n;
  const records = [resyncBegin(), ...leaves.map((leaf) => source.record(leaf)), resyncEnd()];
  await journal.append({ firstLsn: lsn, count: records.length, records: joined(...records) });
  lsn += BigInt(records.length);
  return await barrier(journal, source, lsn);
}

async function barrier(journal: MachineJournal, source: SourceDisk, lsn: bigint) {
  return await journal.barrier({
    lsn,
    timeMs: 1_000_000,
    consistency: 'Crash',
    disks: [{ index: source.index, sizeBytes: source.bytes.length }],
    freezeMs: 5,
  });
}

function rootOf(bytes: Uint8Array): string {
  const builder = new RootBuilder({ sizeBytes: bytes.length });
  builder.add(0, bytes);
  return builder.finish();
}

/** Replays the vault's journal; checks each barrier's roots against the disks at that moment. */
async function replayVault(objects: MemoryObjectStore, sizeBytes = sda.sizeBytes) {
  const disks = new Map([[0, new Uint8Array(sizeBytes)]]);
  const barriers: bigint[] = [];
  let lsn = 0n;
  const chain = new Chain({ objects, codec: inlineCodec }, { machineId, dataKey });
  for await (const segment of chain.segments(CHAIN_START))
    for await (const { records, firstLsn } of segment.batches()) {
      expect(firstLsn).toBe(lsn + 1n);
      for (let offset = 0; offset < records.length; ) {
        const { record, next } = decodeRecord(records, offset);
        offset = next;
        lsn += 1n;
        applyRecord(record, disks);
        if (record.kind !== RecordKind.Barrier) continue;
        barriers.push(lsn);
        expect(record.barrier.disks[0]?.root).toBe(rootOf(disks.get(0) as Uint8Array));
      }
    }
  return { disk: disks.get(0) as Uint8Array, barriers, lsn };
}

describe('a machine journal', () => {
  test('carries what was appended into the vault, with barriers whose roots are those of the disk', async () => {
    const { objects, open } = world();
    const cache = await open();
    const journal = await cache.openMachine(machine());
    expect(journal.resync()).toEqual({ required: true, reason: 'Initial' });
    const source = new SourceDisk({ index: 0, sizeBytes: sda.sizeBytes });
    source.bytes.fill(1, 100, 300_000);
    const made = await replicate(journal, source, [0, 1, 2, 3, 4]);
    expect(made.disks[0]?.root).toBe(rootOf(source.bytes));
    expect(journal.resync()).toEqual({ required: false });
    const end = journal.positions().journaledLsn;
    await until(() => journal.positions().uploadedLsn === end);
    expect(journal.positions().uploadedBarrier?.lsn).toBe(end);
    expect(journal.backlogBytes()).toBe(0);
    const replayed = await replayVault(objects);
    expect(replayed.barriers).toEqual([end]);
    expect(Buffer.compare(replayed.disk, source.bytes)).toBe(0);
    await cache.close();
  });

  test('goes on after a clean close without asking the vault', async () => {
    const { objects, open } = world();
    let cache = await open();
    let journal = await cache.openMachine(machine());
    const source = new SourceDisk({ index: 0, sizeBytes: sda.sizeBytes });
    source.bytes.fill(1, 0, 200_000);
    await replicate(journal, source, [0, 1, 2, 3]);
    await until(() => journal.positions().uploadedLsn === journal.positions().journaledLsn);
    const { cacheId } = cache;
    const before = journal.positions();
    await cache.close();
    const asked = objects.log.length;
    cache = await open();
    journal = await cache.openMachine(machine());
    expect(cache.cacheId).toBe(cacheId);
    expect(objects.log.length).toBe(asked);
    expect(journal.positions()).toEqual(before);
    source.bytes.fill(9, 65536, 65536 + 4096);
    await journal.append({
      firstLsn: before.journaledLsn + 1n,
      count: 1,
      records: source.record(1, 1),
    });
    const made = await barrier(journal, source, before.journaledLsn + 2n);
    expect(made.disks[0]?.root).toBe(rootOf(source.bytes));
    expect(made.timeMs).toBeGreaterThan(1_000_000);
    await until(() => journal.positions().uploadedLsn === before.journaledLsn + 2n);
    expect((await replayVault(objects)).barriers).toHaveLength(2);
    await cache.close();
  });

  test('answers what it holds: uploaded, pending, or differs, and never by an unsettled hash', async () => {
    const { objects, open } = world();
    const cache = await open();
    const journal = await cache.openMachine(machine());
    const source = new SourceDisk({ index: 0, sizeBytes: sda.sizeBytes });
    source.bytes.fill(1, 0, 3 * 65536);
    await replicate(journal, source, [0, 1, 2]);
    await until(() => journal.positions().uploadedLsn === journal.positions().journaledLsn);
    const { SameUploaded, SamePending, Differs } = LeafAnswer;
    const ask = async (leaves: number) => {
      const hashes = joined(...Array.from({ length: leaves }, (_, i) => source.leafHash(i)));
      return [...(await journal.ask({ disk: 0, firstLeaf: 0, hashes }))];
    };
    expect(await ask(4)).toEqual([SameUploaded, SameUploaded, SameUploaded, SameUploaded]);
    objects.fault = (operation) =>
      operation === 'putIfAbsent' ? { when: 'before', error: new Error('no link') } : undefined;
    source.bytes.fill(2, 0, 65536 + 4096);
    let lsn = journal.positions().journaledLsn + 1n;
    const records = joined(source.record(0), source.record(1, 1));
    await journal.append({ firstLsn: lsn, count: 2, records });
    source.bytes.fill(3, 2 * 65536, 2 * 65536 + 1);
    expect(await ask(4)).toEqual([SamePending, Differs, Differs, SameUploaded]);
    lsn += 2n;
    await journal.append({ firstLsn: lsn, count: 1, records: source.record(2, 1) });
    await barrier(journal, source, lsn + 1n);
    expect(await ask(4)).toEqual([SamePending, SamePending, SamePending, SameUploaded]);
    await cache.close();
  });
});
