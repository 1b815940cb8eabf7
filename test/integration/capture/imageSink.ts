/** Takes records like a process server with a replica: applies them to one image a disk, and answers questions from it. */
import { closeSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { leafHash } from '../../../dataplane/capture/batch.ts';
import type { RecordSink } from '../../../dataplane/capture/sink.ts';
import {
  BLOCK_SIZE,
  decodeRecord,
  LEAF_SIZE,
  RecordKind,
} from '../../../dataplane/journal/record.ts';
import { AnswerCode } from '../../../dataplane/wire/messages.ts';

interface Image {
  file: number;
  sizeBytes: number;
}

export class ImageSink implements RecordSink {
  nextLsn = 1n;
  readonly batchBytes = 1 << 20;
  readonly #images = new Map<number, Image>();
  /** By disk and leaf: the hash that came with the newest record. */
  readonly hashes = new Map<string, Uint8Array>();
  readonly kinds: number[] = [];
  dataBytes = 0;
  leavesAsked = 0;
  /** Called before each batch; may throw to end the session. */
  beforeSend: () => Promise<void> = async () => undefined;

  add(disk: number, image: { path: string; sizeBytes: number }): void {
    const file = openSync(image.path, 'w+');
    ftruncateSync(file, image.sizeBytes);
    this.#images.set(disk, { file, sizeBytes: image.sizeBytes });
  }

  async send(batch: { records: Uint8Array; count: number }): Promise<void> {
    await this.beforeSend();
    let offset = 0;
    let count = 0;
    while (offset < batch.records.length) {
      const { record, next } = decodeRecord(batch.records, offset);
      offset = next;
      count += 1;
      this.kinds.push(record.kind);
      if (record.kind === RecordKind.Data) this.#apply(record);
    }
    if (count !== batch.count) throw new Error(`${count} records, ${batch.count} announced`);
    this.nextLsn += BigInt(count);
  }

  async ask(question: {
    disk: number;
    firstLeaf: number;
    hashes: Uint8Array;
  }): Promise<Uint8Array> {
    const count = question.hashes.length / 32;
    this.leavesAsked += count;
    const codes = new Uint8Array(count);
    for (let index = 0; index < count; index += 1) {
      const theirs = question.hashes.subarray(index * 32, (index + 1) * 32);
      const same =
        Buffer.compare(leafHash(this.#leaf(question.disk, question.firstLeaf + index)), theirs) ===
        0;
      codes[index] = same ? AnswerCode.SameUploaded : AnswerCode.Differs;
    }
    return codes;
  }

  sync(): void {
    for (const { file } of this.#images.values()) fsyncSync(file);
  }

  /** Leaves whose content is not what the newest hash says. */
  wrongHashes(): string[] {
    return [...this.hashes]
      .filter(([key, hash]) => {
        const [disk = 0, leaf = 0] = key.split(':').map(Number);
        return Buffer.compare(leafHash(this.#leaf(disk, leaf)), hash) !== 0;
      })
      .map(([key]) => key);
  }

  close(): void {
    for (const { file } of this.#images.values()) closeSync(file);
  }

  #apply(
    record: Extract<ReturnType<typeof decodeRecord>['record'], { kind: typeof RecordKind.Data }>,
  ): void {
    const image = this.#images.get(record.disk);
    if (image === undefined) throw new Error(`no disk ${record.disk}`);
    let from = 0;
    for (let block = 0; block < 16; block += 1) {
      if ((record.blockMask & (1 << block)) === 0) continue;
      const offset = record.leaf * LEAF_SIZE + block * BLOCK_SIZE;
      const length = Math.min(BLOCK_SIZE, image.sizeBytes - offset);
      const zero = (record.zeroMask & (1 << block)) !== 0;
      const bytes = zero
        ? new Uint8Array(BLOCK_SIZE)
        : record.blocks.subarray(from, from + BLOCK_SIZE);
      if (!zero) from += BLOCK_SIZE;
      if (length > 0) writeSync(image.file, bytes, 0, length, offset);
    }
    this.dataBytes += record.blocks.length;
    // A copy (Buffer's slice would be none): the batch's memory is used again once this call resolves.
    this.hashes.set(`${record.disk}:${record.leaf}`, Uint8Array.from(record.leafHash));
  }

  #leaf(disk: number, leaf: number): Uint8Array {
    const image = this.#images.get(disk);
    const bytes = new Uint8Array(LEAF_SIZE);
    if (image !== undefined)
      readSync(
        image.file,
        bytes,
        0,
        Math.min(LEAF_SIZE, image.sizeBytes - leaf * LEAF_SIZE),
        leaf * LEAF_SIZE,
      );
    return bytes;
  }
}
