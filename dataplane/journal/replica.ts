/**
 * A machine's replica: the page blobs that its journal is applied to. Used by the applier, and by a recovery in its place.
 *
 * Records are collected in rounds: the last state of each block is written, then state.json moves on by compare-and-set. A round that
 * was cut short is written again, with the same result (docs/INVARIANTS.md, 4). Whoever opened the replica last holds it; everybody
 * before gets ReplicaFenced.
 */
import type { Clock, Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import { DAMAGED_LEAVES_MAX, type DamagedLeaf } from '../../vault/documents/damagedLeaf.ts';
import type { DiskSpec } from '../../vault/documents/diskSpec.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import type { ReplicaState } from '../../vault/documents/replicaState.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import { type ApplyOptions, type ApplyResult, ApplyRun, type ApplyTarget } from './applyRun.ts';
import { WHOLE_LEAF } from './batchCheck.ts';
import { type Barrier, RecordKind } from './record.ts';
import { ReplicaDisks } from './replicaDisks.ts';
import { ReplicaPastTarget } from './replicaErrors.ts';
import { ReplicaFence } from './replicaFence.ts';
import { ReplicaHold } from './replicaHold.ts';
import { type JournalSegment, ReplicaJournal } from './replicaJournal.ts';
import { LeafChunkCache } from './replicaLeaves.ts';
import { completePoint, type PointMakerDeps, removeOrphanSnapshots } from './replicaPoint.ts';
import { ReplicaRound } from './replicaRound.ts';
import { inlineCodec, type SegmentCodec } from './segmentCodec.ts';

export interface ReplicaLimits {
  /**
   * A round is written once its records' segments hold this many bytes. Memory for records is this, the segment that filled the round
   * (64 MiB) and the next one, which is read meanwhile (64 MiB and a few pieces of 8 MiB).
   */
  pendingBytes: number;
  /** Requests to page blobs at the same time. */
  concurrency: number;
  /** 15 to 60. Leases are renewed each third of it. */
  leaseSeconds: number;
  /** Of leaf tables, for all disks together. */
  leafCacheBytes: number;
  /** A barrier that more than this many barriers follow is passed over: the replica is behind and catches up first. */
  backlogBarriers: number;
  /** How often a round is tried, the fence raised in between, before an error is given to the caller. */
  tries: number;
}

export const DEFAULT_REPLICA_LIMITS: ReplicaLimits = {
  pendingBytes: 32 << 20,
  concurrency: 4,
  leaseSeconds: 60,
  leafCacheBytes: 8 << 20,
  backlogBarriers: 8,
  tries: 4,
};

export interface ReplicaDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  clock: Clock;
  logger: Logger;
  /** Where segments are decrypted: this thread unless given. */
  codec?: SegmentCodec;
}

export interface ReplicaOptions {
  machineId: string;
  /** From the catalog; sizes may be 0 while nobody knows them. */
  disks: readonly DiskSpec[];
  /** 32 bytes. */
  dataKey: Uint8Array;
  /** Who we are, for state.json: `applier:<name>` or `recovery:<failover>`. */
  holder: string;
  limits?: Partial<ReplicaLimits>;
}

export class Replica {
  readonly #deps: ReplicaDeps;
  readonly #options: ReplicaOptions;
  readonly #limits: ReplicaLimits;
  readonly #fence: ReplicaFence;
  readonly #journal: ReplicaJournal;
  readonly #leafCache: LeafChunkCache;
  readonly #disks: ReplicaDisks;
  readonly #hold: ReplicaHold;
  #recoveryPointLsn: Lsn = 0n;

  private constructor(deps: ReplicaDeps, options: ReplicaOptions, fence: ReplicaFence) {
    this.#deps = deps;
    this.#options = options;
    this.#limits = { ...DEFAULT_REPLICA_LIMITS, ...options.limits };
    this.#fence = fence;
    this.#leafCache = new LeafChunkCache({ bytes: this.#limits.leafCacheBytes });
    this.#hold = new ReplicaHold(
      { fence, leafCache: this.#leafCache, clock: deps.clock, logger: deps.logger },
      this.#limits,
    );
    this.#disks = new ReplicaDisks(
      { pages: deps.pages, fence, leafCache: this.#leafCache },
      { machineId: options.machineId, catalog: options.disks },
    );
    this.#journal = new ReplicaJournal({
      objects: deps.objects,
      machineId: options.machineId,
      dataKey: options.dataKey,
      codec: deps.codec ?? inlineCodec,
    });
  }

  /**
   * Takes the replica from whoever holds it, fences its blobs, completes a point that was being made, and removes snapshots that
   * belong to none. Throws ReplicaFenced (somebody else took it meanwhile), ReplicaDamaged, StoreError, VaultDocumentError.
   */
  static async open(deps: ReplicaDeps, options: ReplicaOptions): Promise<Replica> {
    const leaseSeconds = options.limits?.leaseSeconds ?? DEFAULT_REPLICA_LIMITS.leaseSeconds;
    const { machineId, holder } = options;
    const fence = await ReplicaFence.take(deps, { machineId, holder, leaseSeconds });
    const replica = new Replica(deps, options, fence);
    await replica.#hold.run(() => replica.#openDisks());
    void replica.#hold.keepLeases();
    return replica;
  }

  /** As state.json has it now. */
  get state(): ReplicaState {
    return this.#fence.state;
  }

  /** LSN of the newest point; 0 when there is none. */
  get recoveryPointLsn(): Lsn {
    return this.#recoveryPointLsn;
  }

  /** Journal that waits to be applied. */
  async behindBytes(): Promise<number> {
    return (await this.#journal.backlog(this.state.applied.seq)).bytes;
  }

  /**
   * Applies the journal in order, from where the replica stands. With `makePoints`, barriers on the way become recovery points: the
   * target's own always, others unless the replica is far behind. Calls must not overlap.
   * Throws ReplicaFenced, ReplicaPastTarget, ReplicaDamaged, SegmentError, RecordError, StoreError; the signal's reason when aborted.
   */
  async applyTo(target: ApplyTarget, options: ApplyOptions): Promise<ApplyResult> {
    this.#hold.checkUsable();
    const run = new ApplyRun(target, options);
    if (await this.#nothingToDo(run)) return run.result(this.state.applied.lsn);
    const { applied } = this.state;
    if (run.target === undefined && (await this.#journal.nothingFollows(applied)))
      return run.result(applied.lsn);
    run.begin({
      backlog: await this.#journal.backlog(applied.seq),
      now: this.#deps.clock.monotonic(),
    });
    try {
      await this.#applyJournal(run);
    } catch (error) {
      // What could be read is applied all the same, and every barrier in it counts: a later one may never be reached.
      if (this.#hold.isLost || options.signal?.aborted === true) throw error;
      run.everyBarrier = true;
      await this.#applyUndamaged(run);
    }
    return run.result(this.state.applied.lsn);
  }

  /**
   * Takes note of leaves that were found damaged: until the journal writes them whole, points are marked. What lies behind the source's
   * bytes is put right at once. Must not overlap with `applyTo`. Throws ReplicaFenced, StoreError.
   */
  async noteDamaged(found: readonly DamagedLeaf[]): Promise<void> {
    this.#hold.checkUsable();
    const known = this.state.damaged ?? [];
    const isKnown = ({ disk, leaf }: DamagedLeaf) =>
      known.some((one) => one.disk === disk && one.leaf === leaf);
    // The table itself may be what is damaged: what was cached of it is not what the blob holds.
    this.#leafCache.clear();
    const blocksOf = ({ disk, leaf }: DamagedLeaf) => this.#disks.get(disk)?.blocksOf(leaf) ?? 0;
    const padded = found.filter((one) => blocksOf(one) !== WHOLE_LEAF).map(({ disk }) => disk);
    const added = found.filter((one) => blocksOf(one) !== 0 && !isKnown(one));
    await this.#hold.run(async () => {
      for (const index of new Set(padded)) await this.#disks.get(index)?.clearPadding();
      const damaged = [...known, ...added].slice(0, DAMAGED_LEAVES_MAX);
      if (damaged.length > 0) await this.#fence.save({ damaged });
    });
  }

  /** How far sampled verification is; saved with what is saved next. */
  noteSampled(sampling: NonNullable<ReplicaState['sampling']>): void {
    this.#fence.remember({ sampling });
  }

  /** Saves what was noted. Must not overlap with `applyTo`. Throws ReplicaFenced, StoreError. */
  async save(): Promise<void> {
    this.#hold.checkUsable();
    await this.#fence.save({});
  }

  /** Gives the leases back, so that others need not wait. Safe after any error. */
  async close(): Promise<void> {
    await this.#hold.close();
  }

  /** The journal up to where it can't be read. Whoever lost the replica may find it trimmed, and must not take that for damage. */
  async #applyUndamaged(run: ApplyRun): Promise<void> {
    try {
      await this.#applyJournal(run);
    } catch (error) {
      if (!this.#hold.isLost && run.options.signal?.aborted !== true) await this.#fence.verify();
      throw error;
    }
  }

  async #applyJournal(run: ApplyRun): Promise<void> {
    const { signal } = run.options;
    let round = new ReplicaRound(this.state);
    const segments = this.#journal.segments(this.state.applied, signal);
    try {
      for await (const segment of segments) {
        round = await this.#applySegment(segment, round, run);
        signal?.throwIfAborted();
        if (run.reached(round.position.lsn) || run.stopsHere()) break;
      }
    } catch (error) {
      const usable = !this.#hold.isLost && signal?.aborted !== true;
      if (usable && run.everyBarrier) await this.#finishRound(round, run);
      throw error;
    }
    await this.#finishRound(round, run);
  }

  /** Whether the replica stands at the target or past it already. */
  async #nothingToDo(run: ApplyRun): Promise<boolean> {
    const applied = this.state.applied.lsn;
    if (!run.reached(applied)) return false;
    const { target } = run;
    if (target === undefined) return false;
    const index = await listPoints(this.#deps.objects, this.state.machineId);
    if (index.lsns.includes(target)) return true;
    if (applied === target && !run.options.makePoints) return true;
    throw new ReplicaPastTarget({ machineId: this.state.machineId, target, applied });
  }

  async #applySegment(
    segment: JournalSegment,
    begun: ReplicaRound,
    run: ApplyRun,
  ): Promise<ReplicaRound> {
    let round = begun;
    const { seq, digest } = segment;
    for (const { lsn, record } of segment.records()) {
      if (run.target !== undefined && lsn > run.target) break;
      if (record.kind === RecordKind.Barrier) {
        round.advance({ lsn, seq, digest });
        round = await this.#passBarrier({ barrier: record.barrier, lsn, segment }, round, run);
      } else round.add(record, { lsn, seq, digest });
    }
    round.endSegment(segment.header.plainLength);
    if (!run.reached(segment.header.lastLsn))
      round.advance({ lsn: segment.header.lastLsn, seq, digest });
    run.passed(segment);
    return round.bytes >= this.#limits.pendingBytes ? await this.#finishRound(round, run) : round;
  }

  async #passBarrier(
    at: { barrier: Barrier; lsn: Lsn; segment: JournalSegment },
    round: ReplicaRound,
    run: ApplyRun,
  ): Promise<ReplicaRound> {
    const { barrier, lsn, segment } = at;
    const point = !round.resyncing && (await this.#becomesPoint(lsn, segment, run));
    const resized = barrier.disks.some(
      ({ index, sizeBytes }) => this.#disks.get(index)?.sizeBytes !== sizeBytes,
    );
    if (!point && !resized) return round;
    round.endAtBarrier(barrier);
    if (point) round.makePoint({ barrier, writerEpoch: segment.header.writerEpoch });
    return await this.#finishRound(round, run);
  }

  async #becomesPoint(lsn: Lsn, segment: JournalSegment, run: ApplyRun): Promise<boolean> {
    if (!run.options.makePoints) return false;
    if (lsn === run.target || run.everyBarrier) return true;
    const limit = this.#limits.backlogBarriers;
    const inside = segment.header.barriers.filter((other) => other.lsn > lsn).length;
    if (run.segmentsAfter(segment.seq) + inside <= limit) return true;
    const until = run.target === undefined ? {} : { until: run.target };
    const later = await this.#journal.barriersAfter(segment.seq, { limit: limit + 1, ...until });
    return inside + later <= limit;
  }

  /** Writes the round, moves state.json on, makes the point if the round ends at one. Returns the next round. */
  async #finishRound(round: ReplicaRound, run: ApplyRun): Promise<ReplicaRound> {
    if (round.changesNothing(this.state)) return round;
    await this.#hold.run(() => this.#writeRound(round, run));
    if (round.point !== undefined) {
      const point = await this.#completePoint();
      run.point = point;
      run.options.onPoint?.(point);
    }
    run.report(this.state.applied.lsn, this.#deps.clock.monotonic());
    return new ReplicaRound(this.state);
  }

  async #writeRound(round: ReplicaRound, run: ApplyRun): Promise<void> {
    await runAll(await this.#disks.prepare(round), this.#limits.concurrency);
    if (round.barrier !== undefined) await this.#disks.resize(round.barrier.disks);
    if (round.point !== undefined) {
      const disks = await this.#disks.mismatches(round.point.disks);
      if (disks.length > 0) this.#refusePoint(round, run, disks);
    }
    const damaged = this.#disks.stillDamaged(this.state.damaged ?? [], round);
    await this.#fence.save({
      damaged: damaged.length === 0 ? undefined : damaged,
      applied: round.position,
      resyncing: round.resyncing,
      disks: this.#disks.describe(),
      makingPoint: round.point,
    });
  }

  /** What can't be proven is not offered; applying goes on, for a resync may put it right. */
  #refusePoint(round: ReplicaRound, run: ApplyRun, disks: string[]): void {
    const { lsn } = round.position;
    round.point = undefined;
    run.refused = { lsn, disks };
    this.#deps.logger.error(
      {
        machineId: this.state.machineId,
        lsn: lsn.toString(),
        disks,
        code: 'BarrierRootMismatch',
      },
      'no recovery point is made: the leaf hashes of the replica do not give the root that the barrier carries',
    );
  }

  async #openDisks(): Promise<void> {
    await this.#disks.open();
    if (this.state.makingPoint !== undefined) await this.#completePoint({ resumed: true });
    await removeOrphanSnapshots(this.#pointDeps(), this.#disks.all());
    const index = await listPoints(this.#deps.objects, this.state.machineId);
    this.#recoveryPointLsn = index.lsns.at(-1) ?? 0n;
  }

  async #completePoint(options = { resumed: false }): Promise<PointDocument> {
    let { resumed } = options;
    return await this.#hold.run(async () => {
      const again = resumed;
      resumed = true;
      const point = await completePoint(this.#pointDeps(), this.#disks, { resumed: again });
      this.#recoveryPointLsn = point.lsn;
      return point;
    });
  }

  #pointDeps(): PointMakerDeps {
    return { ...this.#deps, fence: this.#fence };
  }
}

/** Runs all with at most `limit` at a time. Once one failed no further one begins; rejects when none is under way any more. */
async function runAll(work: readonly (() => Promise<void>)[], limit: number): Promise<void> {
  let next = 0;
  let failed = false;
  const worker = async () => {
    for (let item = work[next]; item !== undefined && !failed; item = work[next]) {
      next += 1;
      try {
        await item();
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: limit }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
