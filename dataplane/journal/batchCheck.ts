import { hash } from 'node:crypto';
import { type JournalDisk, JournalError, type RecordBatch } from './machineJournal.ts';
import { sameBytes } from './merkle.ts';
import {
  BLOCK_SIZE,
  BLOCKS_PER_LEAF,
  type DataRecord,
  decodeRecord,
  type JournalRecord,
  LEAF_SIZE,
  RecordKind,
} from './record.ts';

export const WHOLE_LEAF = 0xffff;
/** What one append may carry: a wire frame's records. */
export const BATCH_BYTES_MAX = 4 << 20;

const scratchLeaf = new Uint8Array(LEAF_SIZE);

/**
 * Decodes and judges every record that an agent sent: nothing it says is believed. Views into the batch. Whole leaves are hashed (the
 * one check of content against hash that can be made before a barrier). Throws JournalError, RecordError.
 */
export function checkBatch(
  batch: RecordBatch,
  disks: ReadonlyMap<number, JournalDisk>,
): JournalRecord[] {
  const { records: bytes } = batch;
  if (bytes.length > BATCH_BYTES_MAX)
    throw new JournalError(
      'BatchTooLong',
      `A batch of ${bytes.length} bytes at LSN ${batch.firstLsn}; ${BATCH_BYTES_MAX} is the most.`,
    );
  const records: JournalRecord[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const { record, next } = decodeRecord(bytes, offset);
    const lsn = batch.firstLsn + BigInt(records.length);
    if (record.kind === RecordKind.Data) checkData(record, lsn, disks);
    else if (record.kind === RecordKind.Barrier)
      throw new JournalError(
        'RecordRefused',
        `The record of LSN ${lsn} is a barrier; the process server alone writes those.`,
      );
    records.push(record);
    offset = next;
  }
  if (records.length !== batch.count || records.length === 0)
    throw new JournalError(
      'RecordRefused',
      `The batch at LSN ${batch.firstLsn} holds ${records.length} records and claims ${batch.count}.`,
    );
  return records;
}

function checkData(record: DataRecord, lsn: bigint, disks: ReadonlyMap<number, JournalDisk>): void {
  const disk = disks.get(record.disk);
  if (disk === undefined)
    throw new JournalError(
      'RecordRefused',
      `The record of LSN ${lsn} is for disk ${record.disk}, which this machine does not have.`,
    );
  if (record.leaf * LEAF_SIZE >= disk.sizeBytes)
    throw new JournalError(
      'RecordRefused',
      `The record of LSN ${lsn} is for leaf ${record.leaf} of disk ${disk.name}, past its end (${disk.sizeBytes} bytes).`,
    );
  if (record.blockMask !== WHOLE_LEAF) return;
  if (!sameBytes(hashOf(record), record.leafHash))
    throw new JournalError(
      'LeafHashMismatch',
      `The record of LSN ${lsn} holds leaf ${record.leaf} of disk ${disk.name} whole, and its bytes do not have the hash that it states: it was damaged on the way or in the agent. Nothing of the batch was kept.`,
    );
}

function hashOf(record: DataRecord): Uint8Array {
  const content = record.zeroMask === 0 ? record.blocks : unfold(record);
  return hash('sha256', content, 'buffer');
}

function unfold(record: DataRecord): Uint8Array {
  scratchLeaf.fill(0);
  let taken = 0;
  for (let block = 0; block < BLOCKS_PER_LEAF; block++) {
    if ((record.zeroMask & (1 << block)) !== 0) continue;
    scratchLeaf.set(record.blocks.subarray(taken, taken + BLOCK_SIZE), block * BLOCK_SIZE);
    taken += BLOCK_SIZE;
  }
  return scratchLeaf;
}
