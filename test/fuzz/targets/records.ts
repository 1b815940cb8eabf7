import { checkBatch } from '../../../dataplane/journal/batchCheck.ts';
import { JournalError } from '../../../dataplane/journal/machineJournal.ts';
import {
  decodeRecord,
  encodeControlRecord,
  RecordError,
  RecordKind,
  recordLength,
} from '../../../dataplane/journal/record.ts';
import { FarshoreError } from '../../../platform/errors.ts';
import { joined, resyncBegin, resyncEnd, SourceDisk } from '../../fakes/records.ts';
import { SeededRandom } from '../../fakes/seededRandom.ts';
import { expectOwn, expectSame, type FuzzTarget } from '../target.ts';

const source = new SourceDisk({ index: 5, sizeBytes: 1 << 20 });
source.bytes.set(new SeededRandom(2).bytes(500));
source.bytes.fill(7, 65536, 65536 + 100);
const disks = new Map([[5, { index: 5, name: 'sda', sizeBytes: 1 << 20 }]]);
const barrier = encodeControlRecord({
  kind: RecordKind.Barrier,
  barrier: {
    timeMs: 1,
    consistency: 'App',
    disks: [{ index: 0, sizeBytes: 512, root: 'ab'.repeat(32) }],
    freezeMs: 1.5,
    final: { failover: 'f' },
  },
});

/** Records end to end, as in Data frames, log entries and segments; and as a batch that an agent sends. */
export const records: FuzzTarget = {
  name: 'records',
  samples: () => [
    joined(resyncBegin(), source.record(0, 3), resyncEnd()),
    joined(source.record(1), source.record(9, 0x8001)),
    joined(barrier, resyncEnd()),
  ],
  run: (bytes) => {
    let count = 0;
    try {
      for (let offset = 0; offset < bytes.length; count++) {
        const { record, next } = decodeRecord(bytes, offset);
        expectSame('a record has two lengths', next, offset + recordLength(bytes, offset));
        if (next > bytes.length) throw new Error('a record ends behind its bytes');
        if (record.kind !== RecordKind.Data)
          expectSame(
            'a record changes',
            decodeRecord(encodeControlRecord(record), 0).record,
            record,
          );
        offset = next;
      }
    } catch (error) {
      expectOwn(error, RecordError, /^RecordInvalid$/);
    }
    try {
      checkBatch({ firstLsn: 1n, count: Math.max(count, 1), records: bytes }, disks);
    } catch (error) {
      if (!(error instanceof JournalError)) expectOwn(error, FarshoreError, /^RecordInvalid$/);
    }
  },
};
