import type { RecordSink } from '../../dataplane/capture/sink.ts';
import { decodeRecord, RecordKind } from '../../dataplane/journal/record.ts';

export interface SentData {
  leaf: number;
  blockMask: number;
  zeroMask: number;
  blocks: Uint8Array;
  leafHash: Uint8Array;
}

/** Keeps the Data records that it is sent, in order. */
export class RecordingSink implements RecordSink {
  nextLsn = 1n;
  readonly batchBytes = 256 << 10;
  readonly sent: SentData[] = [];

  async send({ records, count }: { records: Uint8Array; count: number }): Promise<void> {
    this.nextLsn += BigInt(count);
    for (let offset = 0; offset < records.length; ) {
      const { record, next } = decodeRecord(records, offset);
      offset = next;
      if (record.kind !== RecordKind.Data) continue;
      const { leaf, blockMask, zeroMask, blocks, leafHash } = record;
      // The buffer is the sender's again once this resolves.
      const kept = { blocks: new Uint8Array(blocks), leafHash: new Uint8Array(leafHash) };
      this.sent.push({ leaf, blockMask, zeroMask, ...kept });
    }
  }

  async ask(): Promise<Uint8Array> {
    throw new Error('no resync here');
  }
}
