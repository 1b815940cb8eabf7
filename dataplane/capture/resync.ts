/**
 * Initial replication and resync, which are one algorithm: hash every leaf, ask the process server which it has, send the others whole.
 *
 * Disk by disk, in order, each leaf read once. Reading, hashing, asking and sending overlap: while one group is read, the last is
 * hashed, and up to QUESTIONS_MAX groups wait for answers in their own buffers. Groups of zeros need no buffer; they are asked for
 * in long runs, and not at all when the journal is empty, where everything is zero.
 *
 * A leaf is taken off the dirty set before it is read, so that a write during the resync (tracking began before it) is sent by a later
 * pass. Where it got to is kept in `ResyncProgress`: another session goes on from there.
 */
import type { Clock } from '../../platform/ports.ts';
import type { ResyncReason } from '../../vault/documents/machineStatus.ts';
import { encodeControlRecord, LEAF_SIZE, RecordKind } from '../journal/record.ts';
import { AnswerCode } from '../wire/messages.ts';
import { BatchSender, isZero, leafHash, ZERO_LEAF_HASH } from './batch.ts';
import type { CapturedDisk } from './disk.ts';
import type { RecordSink } from './sink.ts';

/** 8 MiB: long enough to keep a fast disk busy. */
const GROUP_LEAVES = 128;
const PARALLEL_READS = 2;
const QUESTIONS_MAX = 3;
/** Zero leaves in one question: 1 GiB of disk. */
const ZERO_RUN_MAX = 16384;
const RATE_WINDOW_MS = 10_000;

export interface ResyncProgress {
  reason: ResyncReason;
  startedMs: number;
  /** LSN of the ResyncBegin record; 0: not sent yet. */
  beginLsn: bigint;
  /** The journal was empty when it began: zero leaves need not be asked for. */
  assumeZero: boolean;
  /** Leaves finished, by disk index. */
  cursors: Map<number, number>;
  bytesSent: number;
}

export interface ResyncReport {
  reason: ResyncReason;
  bytesTotal: number;
  bytesDone: number;
  bytesSent: number;
  startedMs: number;
  /** Of late; the time left is (total - done) / this. */
  bytesPerSecond: number;
}

export interface ResyncDeps {
  sink: RecordSink;
  clock: Clock;
  /** Called between groups; rejects when the resync must stop (tracking lost, paused). */
  checkpoint: () => Promise<void>;
}

export class Resync {
  readonly progress: ResyncProgress;
  readonly #disks: readonly CapturedDisk[];
  readonly #samples: { atMs: number; bytes: number }[] = [];

  constructor(options: { progress: ResyncProgress; disks: readonly CapturedDisk[] }) {
    this.progress = options.progress;
    this.#disks = options.disks;
  }

  report(clock: Clock): ResyncReport {
    const { reason, startedMs, bytesSent } = this.progress;
    const bytesTotal = this.#disks.reduce((sum, disk) => sum + disk.identity.sizeBytes, 0);
    return {
      reason,
      startedMs,
      bytesSent,
      bytesTotal,
      bytesDone: this.#bytesDone(),
      bytesPerSecond: this.#rate(clock),
    };
  }

  /** Goes on from where it is to the end. Rejects when the session ends; call it again with the next one. */
  async run(deps: ResyncDeps): Promise<void> {
    try {
      await this.#run(deps);
    } catch (error) {
      // What was sent may be in the journal: it is no longer known to be empty.
      this.progress.assumeZero = false;
      throw error;
    }
  }

  async #run(deps: ResyncDeps): Promise<void> {
    const { progress } = this;
    if (progress.beginLsn === 0n) {
      const begin = encodeControlRecord({ kind: RecordKind.ResyncBegin, reason: progress.reason });
      const lsn = deps.sink.nextLsn;
      await deps.sink.send({ records: begin, count: 1 });
      progress.beginLsn = lsn;
    }
    for (const disk of this.#disks) await new DiskResync(disk, this, deps).run();
    await deps.sink.send({
      records: encodeControlRecord({ kind: RecordKind.ResyncEnd }),
      count: 1,
    });
  }

  /** Leaves up to here are finished on this disk. */
  advance(disk: CapturedDisk, leaf: number, clock: Clock): void {
    this.progress.cursors.set(disk.index, leaf);
    const nowMs = clock.monotonic();
    this.#samples.push({ atMs: nowMs, bytes: this.#bytesDone() });
    while ((this.#samples[1]?.atMs ?? nowMs) < nowMs - RATE_WINDOW_MS) this.#samples.shift();
  }

  #bytesDone(): number {
    return this.#disks.reduce((sum, disk) => {
      const leaves = this.progress.cursors.get(disk.index) ?? 0;
      return sum + Math.min(disk.identity.sizeBytes, leaves * LEAF_SIZE);
    }, 0);
  }

  #rate(clock: Clock): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined) return 0;
    // Up to now, so that a stall shows.
    const elapsedMs = clock.monotonic() - first.atMs;
    return elapsedMs <= 0 ? 0 : ((last.bytes - first.bytes) * 1000) / elapsedMs;
  }
}

/** A group on its way: read, then asked for, then sent. */
interface Group {
  firstLeaf: number;
  leafCount: number;
  /** Absent: all zero. */
  bytes?: Uint8Array;
  hashes: Uint8Array[];
  answer: Promise<Uint8Array> | undefined;
}

class DiskResync {
  readonly #disk: CapturedDisk;
  readonly #resync: Resync;
  readonly #deps: ResyncDeps;
  readonly #sender: BatchSender;
  readonly #free: Uint8Array[] = [];
  readonly #waiting: Group[] = [];
  #zeroRun: { firstLeaf: number; leafCount: number } | undefined;
  #counted = 0;

  constructor(disk: CapturedDisk, resync: Resync, deps: ResyncDeps) {
    this.#disk = disk;
    this.#resync = resync;
    this.#deps = deps;
    this.#sender = new BatchSender(deps.sink);
  }

  async run(): Promise<void> {
    let next = this.#resync.progress.cursors.get(this.#disk.index) ?? 0;
    let reading = this.#read(next);
    try {
      while (next < this.#disk.leafCount) {
        const group = await reading;
        next = group.firstLeaf + group.leafCount;
        await this.#deps.checkpoint();
        await this.#makeRoom();
        reading = this.#read(next);
        reading.catch(() => undefined);
        await this.#handle(group);
      }
      this.#askForZeros();
      while (this.#waiting.length > 0) await this.#finishOldest();
      await this.#sender.flush();
      this.#account(this.#disk.leafCount);
    } catch (error) {
      await reading.catch(() => undefined);
      await this.#sender.abandon();
      throw error;
    }
  }

  /** Reads a group whole, in small pieces. At the end of the disk: an empty one. */
  async #read(
    firstLeaf: number,
  ): Promise<{ firstLeaf: number; leafCount: number; bytes: Uint8Array }> {
    const leafCount = Math.min(GROUP_LEAVES, this.#disk.leafCount - firstLeaf);
    if (leafCount <= 0) return { firstLeaf, leafCount: 0, bytes: new Uint8Array(0) };
    const buffer = this.#free.pop() ?? this.#disk.device.alignedBuffer(GROUP_LEAVES * LEAF_SIZE);
    const bytes = buffer.subarray(0, leafCount * LEAF_SIZE);
    // What is written from here on is dirty again.
    for (let leaf = firstLeaf; leaf < firstLeaf + leafCount; leaf += 1)
      this.#disk.dirt.dirty.take(leaf);
    const throttle = this.#disk.throttle(this.#deps.clock);
    let next = 0;
    const readOn = async () => {
      while (next < leafCount) {
        const leaf = next;
        next = Math.min(leafCount, leaf + throttle.gentleBytes / LEAF_SIZE);
        const piece = bytes.subarray(leaf * LEAF_SIZE, next * LEAF_SIZE);
        await throttle.time(piece.length, () => this.#disk.readLeaves(piece, firstLeaf + leaf));
      }
    };
    const stop = (error: unknown) => {
      next = leafCount;
      throw error;
    };
    const readers = Array.from({ length: PARALLEL_READS }, () => readOn().catch(stop));
    const results = await Promise.allSettled(readers);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return { firstLeaf, leafCount, bytes };
  }

  async #handle(read: { firstLeaf: number; leafCount: number; bytes: Uint8Array }): Promise<void> {
    const { firstLeaf, leafCount, bytes } = read;
    if (isZero(bytes)) {
      this.#free.push(wholeBuffer(bytes));
      this.#addZeros(firstLeaf, leafCount);
      return;
    }
    this.#askForZeros();
    const hashes: Uint8Array[] = [];
    for (let leaf = 0; leaf < leafCount; leaf += 1) {
      const content = bytes.subarray(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE);
      hashes.push(isZero(content) ? ZERO_LEAF_HASH : leafHash(content));
    }
    this.#enqueue({ firstLeaf, leafCount, bytes, hashes, answer: undefined });
  }

  #addZeros(firstLeaf: number, leafCount: number): void {
    if (this.#zeroRun === undefined) this.#zeroRun = { firstLeaf, leafCount };
    else this.#zeroRun.leafCount += leafCount;
    if (this.#zeroRun.leafCount + GROUP_LEAVES > ZERO_RUN_MAX) this.#askForZeros();
  }

  #askForZeros(): void {
    const run = this.#zeroRun;
    if (run === undefined) return;
    this.#zeroRun = undefined;
    const hashes = new Array<Uint8Array>(run.leafCount).fill(ZERO_LEAF_HASH);
    this.#enqueue({ ...run, hashes, answer: undefined });
  }

  #enqueue(group: Group): void {
    if (!this.#resync.progress.assumeZero) {
      group.answer = this.#deps.sink.ask({
        disk: this.#disk.index,
        firstLeaf: group.firstLeaf,
        hashes: Buffer.concat(group.hashes),
      });
      group.answer.catch(() => undefined);
    }
    this.#waiting.push(group);
  }

  async #makeRoom(): Promise<void> {
    while (this.#waiting.length >= QUESTIONS_MAX) await this.#finishOldest();
  }

  async #finishOldest(): Promise<void> {
    const group = this.#waiting.shift();
    if (group === undefined) return;
    const codes = await group.answer;
    for (let index = 0; index < group.leafCount; index += 1) {
      const hash = group.hashes[index] ?? ZERO_LEAF_HASH;
      const code = codes === undefined ? assumedCode(hash) : codes[index];
      const leaf = group.firstLeaf + index;
      const mask = this.#disk.dirt.dirty.wholeMask(leaf);
      if (code === AnswerCode.SameUploaded) continue;
      if (code === AnswerCode.SamePending) {
        this.#disk.dirt.markSent(leaf, mask);
        continue;
      }
      const bytes = group.bytes?.subarray(index * LEAF_SIZE, (index + 1) * LEAF_SIZE) ?? zeroLeaf;
      await this.#sender.add(this.#disk, { leaf, mask, bytes, hash });
    }
    if (group.bytes !== undefined) this.#free.push(wholeBuffer(group.bytes));
    // What the sender still holds is dirty again when it can't be sent, so the cursor may pass it.
    this.#account(group.firstLeaf + group.leafCount);
  }

  #account(leaf: number): void {
    const { progress } = this.#resync;
    progress.bytesSent += this.#sender.bytesSent - this.#counted;
    this.#counted = this.#sender.bytesSent;
    this.#resync.advance(this.#disk, leaf, this.#deps.clock);
  }
}

const zeroLeaf = new Uint8Array(LEAF_SIZE);

function assumedCode(hash: Uint8Array): number {
  return hash === ZERO_LEAF_HASH ? AnswerCode.SameUploaded : AnswerCode.Differs;
}

/** The buffer that a shorter group at the disk's end was a part of. */
function wholeBuffer(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, 0, GROUP_LEAVES * LEAF_SIZE);
}
