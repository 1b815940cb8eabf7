import type { RecordSink } from '../../dataplane/capture/sink.ts';
import { decodeRecord, LEAF_SIZE, RecordKind } from '../../dataplane/journal/record.ts';

/** Applies what it is sent to a copy of the disk. */
export class CopySink implements RecordSink {
  nextLsn = 1n;
  readonly batchBytes = 256 << 10;
  readonly copy: Uint8Array;
  readonly hashes = new Map<number, Uint8Array>();
  failAfter = Number.POSITIVE_INFINITY;

  constructor(sizeBytes: number) {
    this.copy = new Uint8Array(sizeBytes);
  }

  async send(batch: { records: Uint8Array; count: number }): Promise<void> {
    if (this.failAfter-- <= 0) throw new Error('the session ended');
    let offset = 0;
    while (offset < batch.records.length) {
      const { record, next } = decodeRecord(batch.records, offset);
      offset = next;
      if (record.kind !== RecordKind.Data) continue;
      let from = 0;
      for (let block = 0; block < 16; block += 1) {
        if ((record.blockMask & (1 << block)) === 0) continue;
        const zero = (record.zeroMask & (1 << block)) !== 0;
        const at = record.leaf * LEAF_SIZE + block * 4096;
        if (zero) this.copy.fill(0, at, at + 4096);
        else this.copy.set(record.blocks.subarray(from, from + 4096), at);
        if (!zero) from += 4096;
      }
      this.hashes.set(record.leaf, new Uint8Array(record.leafHash));
    }
    this.nextLsn += BigInt(batch.count);
  }

  async ask(): Promise<Uint8Array> {
    throw new Error('no resync here');
  }
}
