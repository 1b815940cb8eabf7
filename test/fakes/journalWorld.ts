import { Cache, type CacheLimits } from '../../dataplane/journal/cache.ts';
import { CHAIN_START, Chain } from '../../dataplane/journal/chain.ts';
import type { JournalDisk } from '../../dataplane/journal/machineJournal.ts';
import { RootBuilder } from '../../dataplane/journal/merkle.ts';
import { decodeRecord, RecordKind } from '../../dataplane/journal/record.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import type { Disk, ObjectStore } from '../../platform/ports.ts';
import { ManualClock } from './manualClock.ts';
import { MemoryDisk } from './memoryDisk.ts';
import { MemoryObjectStore } from './memoryObjectStore.ts';
import { MemoryPageBlobStore } from './memoryPageBlobStore.ts';
import { applyRecord } from './records.ts';
import { SeededRandom } from './seededRandom.ts';
import { recordingLogger } from './silentLogger.ts';

const MIB = 1 << 20;
export const machineId = '0123456789abcdef0123456789abcdef';
export const dataKey: Uint8Array = new Uint8Array(32).fill(7);
export const sda: JournalDisk = { index: 0, name: 'sda', sizeBytes: 3 * MIB };

/** A vault, a clock, and as many process servers' caches as a test opens. */
export class JournalWorld {
  readonly clock = new ManualClock();
  readonly objects: MemoryObjectStore;
  readonly pages = new MemoryPageBlobStore({ clock: this.clock });
  readonly disk = new MemoryDisk();
  readonly logger = recordingLogger();
  readonly random: SeededRandom;
  readonly #limits: Partial<CacheLimits>;

  /** `objects`: a vault that is there already, copied. */
  constructor(
    options: { limits?: Partial<CacheLimits>; seed?: number; objects?: MemoryObjectStore } = {},
  ) {
    const { clock } = this;
    this.objects = options.objects?.copy({ clock }) ?? new MemoryObjectStore({ clock });
    this.#limits = { logFileBytes: MIB, minFreeBytes: 0, ...options.limits };
    this.random = new SeededRandom(options.seed ?? 1);
  }

  async open(options: { disk?: Disk; objects?: ObjectStore } = {}): Promise<Cache> {
    const { clock, pages, random, logger } = this;
    return await Cache.open({
      ...{ clock, pages, random, logger },
      codec: inlineCodec,
      limits: this.#limits,
      disk: options.disk ?? this.disk,
      objects: options.objects ?? this.objects,
    });
  }

  machine(options: { writerEpoch?: number; disks?: readonly JournalDisk[] } = {}) {
    return { machineId, writerEpoch: 1, dataKey, disks: [sda], ...options };
  }

  chain(): Chain {
    return new Chain({ objects: this.objects, codec: inlineCodec }, { machineId, dataKey });
  }

  /**
   * The disk that the vault's journal makes, also as it is after the record of LSN `at`, and the barriers whose root is not the disk's
   * at that moment.
   */
  async replayVault(sizeBytes = sda.sizeBytes, at = 0n) {
    const disk = new Uint8Array(sizeBytes);
    let before = disk.slice();
    const barriers: bigint[] = [];
    const wrongBarriers: bigint[] = [];
    let lsn = 0n;
    for await (const segment of this.chain().segments(CHAIN_START))
      for await (const { records } of segment.batches())
        for (let offset = 0; offset < records.length; ) {
          const { record, next } = decodeRecord(records, offset);
          offset = next;
          lsn += 1n;
          applyRecord(record, new Map([[0, disk]]));
          if (lsn === at) before = disk.slice();
          if (record.kind !== RecordKind.Barrier) continue;
          barriers.push(lsn);
          if (record.barrier.disks[0]?.root !== rootOf(disk)) wrongBarriers.push(lsn);
        }
    return { disk, before, barriers, wrongBarriers, lsn };
  }
}

export function rootOf(bytes: Uint8Array): string {
  const builder = new RootBuilder({ sizeBytes: bytes.length });
  builder.add(0, bytes);
  return builder.finish();
}

/** Lets everything that can go on do so, until a condition holds. */
export async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    if (turn > 20_000) throw new Error('it does not come to pass');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
