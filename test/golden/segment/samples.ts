/**
 * What the files in v1/ hold. They were written once, by version 1, and are never written again: a build that can't read them can't read
 * the vaults that exist. `node test/golden/segment/write.ts` made them.
 */
import { encodeControlRecord, RecordKind } from '../../../dataplane/journal/record.ts';
import { NO_DIGEST, type SegmentHeader } from '../../../dataplane/journal/segment.ts';
import { joined, resyncBegin, resyncEnd, SourceDisk } from '../../fakes/records.ts';

export interface GoldenSegment {
  name: string;
  dataKey: Uint8Array;
  header: SegmentHeader;
  records: Uint8Array;
}

const dataKey = Uint8Array.from({ length: 32 }, (_, i) => i);
const base = {
  side: 'Source',
  machineId: '00112233445566778899aabbccddeeff',
  writerEpoch: 1,
  salt: Uint8Array.from({ length: 32 }, (_, i) => 255 - i),
  sealedAtMs: 1_767_225_600_000,
} as const;

const source = new SourceDisk({ index: 2, sizeBytes: 1 << 20 });
for (let i = 0; i < 200_000; i++) source.bytes[i] = (i * 31 + (i >> 8)) & 0xff;

const barrier = {
  timeMs: 1_767_225_599_000,
  consistency: 'App' as const,
  disks: [{ index: 2, sizeBytes: 1 << 20, root: '5a'.repeat(32) }],
  freezeMs: 12.5,
};
const records = joined(
  resyncBegin('Initial'),
  source.record(0),
  source.record(3, 0x00f1),
  resyncEnd(),
  encodeControlRecord({ kind: RecordKind.Barrier, barrier }),
);
const nothing = new Uint8Array(0);

export const goldenSegments: readonly GoldenSegment[] = [
  {
    name: 'claim',
    dataKey,
    header: {
      ...base,
      kind: 'Claim',
      seq: 0,
      firstLsn: 1n,
      lastLsn: 0n,
      previousDigest: NO_DIGEST,
      plainLength: 0,
      chunkSize: 1 << 20,
      barriers: [],
      failover: undefined,
    },
    records: nothing,
  },
  {
    name: 'data',
    dataKey,
    header: {
      ...base,
      kind: 'Data',
      seq: 1,
      firstLsn: 1n,
      lastLsn: 5n,
      previousDigest: 'c3'.repeat(32),
      plainLength: records.length,
      chunkSize: 32_768,
      barriers: [{ lsn: 5n, timeMs: barrier.timeMs, consistency: 'App' }],
      failover: undefined,
    },
    records,
  },
  {
    name: 'seal',
    dataKey,
    header: {
      ...base,
      kind: 'Seal',
      side: 'Azure',
      seq: 2,
      writerEpoch: 7,
      firstLsn: 6n,
      lastLsn: 5n,
      previousDigest: '3c'.repeat(32),
      plainLength: 0,
      chunkSize: 1 << 20,
      barriers: [],
      failover: 'site-lost-2026',
    },
    records: nothing,
  },
];
