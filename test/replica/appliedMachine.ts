/** A sample machine whose journal is applied, and whose vault is kept within a retention: what an applier does, in steps of a test's own. */
import { Chain } from '../../dataplane/journal/chain.ts';
import { type Trimmed, trimJournal } from '../../dataplane/journal/journalRetention.ts';
import { retirePoints } from '../../dataplane/journal/pointRetention.ts';
import { readPoints } from '../../dataplane/journal/points.ts';
import { decodeRecord, RecordKind } from '../../dataplane/journal/record.ts';
import type { Replica } from '../../dataplane/journal/replica.ts';
import { readReplicaState } from '../../dataplane/journal/replicaFence.ts';
import { inlineCodec } from '../../dataplane/journal/segmentCodec.ts';
import type { Clock, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { sequenceOfSegmentKey, vaultLayout } from '../../vault/layout.ts';
import { applyRecord } from '../fakes/records.ts';
import { silentLogger } from '../fakes/silentLogger.ts';
import { problemsOfPoint } from './checkPoint.ts';
import { openReplica } from './openReplica.ts';
import { SampleMachine } from './sampleMachine.ts';

const MIB = 1 << 20;

export class AppliedMachine {
  readonly machine: SampleMachine;
  readonly deps: {
    objects: ObjectStore;
    pages: PageBlobStore;
    clock: Clock;
    logger: typeof silentLogger;
  };

  constructor(
    stores: { objects: ObjectStore; pages: PageBlobStore; clock: Clock },
    options: { seed: number; startMs?: number; sizes?: readonly number[] },
  ) {
    const { objects } = stores;
    this.machine = new SampleMachine({ objects, ...options, sizes: options.sizes ?? [MIB] });
    this.deps = { ...stores, logger: silentLogger };
  }

  /** Each round is a segment that ends with a barrier; the first one comes behind a claim. */
  async write(rounds: number): Promise<void> {
    await this.machine.writeRounds(rounds, { records: 3 });
  }

  async open(holder = 'applier:test'): Promise<Replica> {
    const limits = { backlogBarriers: 1000 };
    return await openReplica(this.deps, this.machine, { holder, limits });
  }

  /** Makes every barrier a recovery point, up to an LSN or to the journal's end. */
  async apply(to?: bigint): Promise<void> {
    const replica = await this.open();
    await replica.applyTo(to === undefined ? 'end' : { lsn: to }, { makePoints: true });
    await replica.close();
  }

  async trim(options: { retentionMs: number; nowMs: number; limit?: number }): Promise<Trimmed> {
    const { machineId } = this.machine;
    const state = await readReplicaState(this.deps.objects, machineId);
    if (state === undefined) throw new Error('there is no replica');
    const { applied } = state;
    return await trimJournal(this.deps, { limit: 1000, ...options, machineId, applied });
  }

  async retire(options: { retentionMs: number; nowMs: number }): Promise<void> {
    const { machineId } = this.machine;
    await retirePoints(this.deps, { ...options, machineId, limit: 1000 });
  }

  chain(): Chain {
    return new Chain({ objects: this.deps.objects, codec: inlineCodec }, this.machine);
  }

  /** Sequence numbers that are there. */
  async segments(): Promise<number[]> {
    const found: number[] = [];
    const prefix = vaultLayout.journalPrefix(this.machine.machineId);
    for await (const { key } of this.deps.objects.list(prefix)) {
      const seq = sequenceOfSegmentKey(key);
      if (seq !== undefined) found.push(seq);
    }
    return found;
  }

  /**
   * What is wrong with the points, and with the journal behind each: it must lead to the disks of every later barrier, from the
   * newest point in any case, and from others unless it was trimmed there.
   */
  async problems(options: { of: 'every' | 'newest' } = { of: 'every' }): Promise<string[]> {
    const problems: string[] = [];
    const points = await readPoints(this.deps.objects, this.machine.machineId);
    if (points.length === 0) problems.push('there is no point');
    for (const point of options.of === 'every' ? points : points.slice(-1)) {
      const barrier = this.#barrier(point.lsn);
      if (barrier === undefined) problems.push(`a point at LSN ${point.lsn}`);
      else problems.push(...(await problemsOfPoint(this.deps.pages, point, barrier)));
      problems.push(...(await this.#problemsBehind(point, { newest: point === points.at(-1) })));
    }
    return problems;
  }

  async #problemsBehind(point: PointDocument, options: { newest: boolean }): Promise<string[]> {
    const { segment, lsn } = point;
    const bodies = new Map(
      [...(this.#barrier(lsn)?.bodies ?? [])].map(([index, body]) => [index, body.slice()]),
    );
    const problems: string[] = [];
    let at = lsn;
    try {
      for await (const { batches } of this.chain().segments({ ...segment, lsn }))
        for await (const { records } of batches())
          for (let offset = 0; offset < records.length; ) {
            const { record, next } = decodeRecord(records, offset);
            offset = next;
            at += 1n;
            applyRecord(record, bodies);
            if (record.kind !== RecordKind.Barrier) continue;
            const same = [...(this.#barrier(at)?.bodies ?? [])].every(
              ([index, body]) => Buffer.compare(bodies.get(index) ?? body.subarray(1), body) === 0,
            );
            if (!same) problems.push(`from ${lsn} the journal leads to other disks at ${at}`);
          }
    } catch (error) {
      const { code } = error as { code?: string };
      if (options.newest || code !== 'ChainTrimmed')
        problems.push(`the journal behind the point at ${lsn} can't be read: ${code}`);
      return problems;
    }
    if (at !== this.machine.lsn) problems.push(`from ${lsn} the journal ends at ${at}`);
    return problems;
  }

  #barrier(lsn: bigint) {
    return this.machine.barriers.find((barrier) => barrier.lsn === lsn);
  }
}
