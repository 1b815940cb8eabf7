import { errorCode, errorMessage, FarshoreError } from '../../platform/errors.ts';
import type { Clock, Logger, ObjectStore, PageBlobStore } from '../../platform/ports.ts';
import type { ApplierStatus } from '../../vault/documents/applierStatus.ts';
import type { CatalogDocument } from '../../vault/documents/catalog.ts';
import type { PointDocument } from '../../vault/documents/point.ts';
import { type BoxKey, openDataKey } from '../../vault/keys.ts';
import { listPoints } from '../../vault/pointIndex.ts';
import type { ApplyResult } from '../journal/applyRun.ts';
import { trimJournal } from '../journal/journalRetention.ts';
import { retirePoints } from '../journal/pointRetention.ts';
import { newestPoint } from '../journal/points.ts';
import { Replica } from '../journal/replica.ts';
import { ReplicaFenced } from '../journal/replicaErrors.ts';
import { readReplicaState } from '../journal/replicaFence.ts';
import { journalBacklog } from '../journal/replicaJournal.ts';
import { DEFAULT_SHARE_PER_DAY } from '../journal/sampling.ts';
import type { SegmentCodec } from '../journal/segmentCodec.ts';
import type { Gate } from './gate.ts';
import { Holding } from './holding.ts';
import type { ApplierMetrics } from './metrics.ts';
import { SampledVerification } from './verification.ts';

/** Between looks for new segments. */
const POLL_MS = 2_000;
const WAITING_POLL_MS = 5_000;
const BACKOFF_MAX_MS = 60_000;
const RETENTION_EVERY_MS = 60_000;
const RETIRE_AT_ONCE = 50;
/** Each look is a listing, which costs more than a read; a trimmed segment costs nothing. */
const TRIM_EVERY_MS = 600_000;
const TRIM_AT_ONCE = 100;
/** A machine's share before another one gets a turn: 4 GiB of full segments. */
const SHARE_SEGMENTS = 64;

export interface MachineLoopDeps {
  objects: ObjectStore;
  pages: PageBlobStore;
  clock: Clock;
  logger: Logger;
  codec: SegmentCodec;
  metrics: ApplierMetrics;
  /** Limits how many machines are applied at the same time. */
  gate: Gate;
  /** Likewise how many replicas are verified. */
  verifyGate: Gate;
}

export interface MachineLoopOptions {
  catalog: CatalogDocument;
  vaultId: string;
  key: BoxKey;
  /** Unique to this process: `applier:<name>:<instance>`. */
  holder: string;
}

type MachineReport = ApplierStatus['machines'][number];

/** Another party holds the replica: waited for, not an error of ours. */
class ReplicaHeld extends FarshoreError {
  constructor(holder: string) {
    super(
      'ReplicaHeld',
      `The replica is held by ${holder}; this applier goes on once it is released.`,
    );
  }
}

/** Keeps one machine's replica applied, for as long as it is in the catalog. */
export class MachineLoop {
  readonly #deps: MachineLoopDeps;
  readonly #options: MachineLoopOptions;
  readonly #holding: Holding;
  readonly #logger: Logger;
  #catalog: CatalogDocument;
  #replica: Replica | undefined;
  #report: MachineReport;
  #newestPoint: PointDocument | undefined;
  #failures = 0;
  #disksChanged = false;
  readonly #verification: SampledVerification;
  /** Set while the newest barrier could not be proven. */
  #refusal: MachineReport['error'];
  #retiredAt = Number.NEGATIVE_INFINITY;
  #trimmedAt = Number.NEGATIVE_INFINITY;
  readonly #ended = new AbortController();

  constructor(deps: MachineLoopDeps, options: MachineLoopOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#catalog = options.catalog;
    const { machineId, name, namespace } = options.catalog;
    this.#logger = deps.logger.child({ machine: name, namespace, machineId });
    this.#verification = new SampledVerification({ ...deps, logger: this.#logger });
    this.#holding = new Holding(deps, { machineId, holder: options.holder });
    this.#report = {
      machineId,
      appliedLsn: 0n,
      recoveryPointLsn: 0n,
      behindBytes: 0,
      bytesPerSecond: 0,
    };
  }

  /** A newer version of the machine's catalog document. */
  update(catalog: CatalogDocument): void {
    // A replica knows the disks that it was opened with.
    this.#disksChanged ||= JSON.stringify(catalog.disks) !== JSON.stringify(this.#catalog.disks);
    this.#catalog = catalog;
  }

  /** Of the machine's line in the applier's status. */
  report(): MachineReport {
    return this.#report;
  }

  get labels(): { namespace: string; machine: string } {
    return { namespace: this.#catalog.namespace, machine: this.#catalog.name };
  }

  /** Time of the newest point; undefined when there is none or it is not known yet. */
  get newestPointMs(): number | undefined {
    return this.#newestPoint?.timeMs;
  }

  /** Ends the loop; `run` resolves once the replica is given back. */
  end(): void {
    this.#ended.abort(new Error('the machine is no longer applied here'));
  }

  /** Runs until `end`. Never rejects: errors are reported, logged once, and tried again. */
  async run(): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      let pause: number;
      try {
        pause = await this.#turn(signal);
        this.#succeeded();
      } catch (error) {
        if (signal.aborted) break;
        pause = await this.#failed(error);
      }
      await this.#deps.clock.sleep(pause, signal).catch(() => {});
    }
    await this.#letGo();
  }

  /** One look at the journal, and what follows from it. Returns how long to wait. */
  async #turn(signal: AbortSignal): Promise<number> {
    if (this.#catalog.activeSide === 'Azure') {
      await this.#letGo();
      return WAITING_POLL_MS;
    }
    if (this.#disksChanged) await this.#letGo();
    const replica = this.#replica ?? (await this.#open());
    const { more, refused, point } = await this.#deps.gate.run(() =>
      replica.applyTo('end', {
        makePoints: true,
        maxSegments: SHARE_SEGMENTS,
        signal,
        onPoint: (point) => this.#sawPoint(point),
        onProgress: (progress) => {
          this.#change({
            appliedLsn: progress.lsn,
            behindBytes: Math.max(0, progress.bytesTotal - progress.bytesDone),
            bytesPerSecond: progress.bytesPerSecond,
          });
        },
      }),
    );
    if (!more) this.#change({ behindBytes: 0 });
    if (refused !== undefined || point !== undefined) this.#refusal = refusalOf(refused, point);
    await this.#retire();
    await this.#trim(replica);
    if (!more) await this.#verify(replica, signal);
    this.#showDamage(replica);
    return more ? 0 : POLL_MS;
  }

  async #open(): Promise<Replica> {
    this.#disksChanged = false;
    const { machineId, disks, dataKey: sealed } = this.#catalog;
    const { vaultId, key, holder } = this.#options;
    const dataKey = openDataKey({ sealed, key, vaultId, machineId });
    const other = await this.#holding.heldBy(this.#deps.clock.monotonic());
    if (other !== undefined) throw new ReplicaHeld(other);
    const deps = { ...this.#deps, logger: this.#logger };
    const replica = await Replica.open(deps, { machineId, disks, dataKey, holder });
    this.#replica = replica;
    const { recoveryPointLsn } = replica;
    this.#newestPoint = await newestPoint(this.#deps.objects, machineId);
    this.#change({ appliedLsn: replica.state.applied.lsn, recoveryPointLsn });
    return replica;
  }

  async #retire(): Promise<void> {
    const now = this.#deps.clock.monotonic();
    if (now - this.#retiredAt < RETENTION_EVERY_MS) return;
    this.#retiredAt = now;
    await retirePoints(
      { ...this.#deps, logger: this.#logger },
      { ...this.#retention(), limit: RETIRE_AT_ONCE },
    );
  }

  async #trim({ state }: Replica): Promise<void> {
    const now = this.#deps.clock.monotonic();
    if (now - this.#trimmedAt < TRIM_EVERY_MS) return;
    this.#trimmedAt = now;
    const { segments, more } = await trimJournal(
      { ...this.#deps, logger: this.#logger },
      { ...this.#retention(), applied: state.applied, limit: TRIM_AT_ONCE },
    );
    this.#deps.metrics.trimmed.inc(segments);
    if (more) this.#trimmedAt = Number.NEGATIVE_INFINITY;
  }

  async #verify(replica: Replica, signal: AbortSignal): Promise<void> {
    const newestPoint = this.#newestPoint;
    if (newestPoint === undefined) return;
    const { machineId, policy } = this.#catalog;
    const sharePerDay = policy.verifiedSharePerDay ?? DEFAULT_SHARE_PER_DAY;
    await this.#verification.run({ machineId, replica, newestPoint, sharePerDay }, signal);
  }

  #showDamage({ state }: Replica): void {
    const { damaged: _, ...whole } = this.#report;
    const { damaged = [] } = state;
    this.#report = { ...whole, ...(damaged.length === 0 ? {} : { damaged }) };
  }

  #retention(): { machineId: string; retentionMs: number; nowMs: number } {
    const { machineId, policy } = this.#catalog;
    const nowMs = this.#deps.clock.now();
    return { machineId, retentionMs: policy.retentionSeconds * 1000, nowMs };
  }

  #sawPoint(point: PointDocument): void {
    this.#newestPoint = point;
    this.#change({ recoveryPointLsn: point.lsn });
    this.#deps.metrics.points.inc();
    this.#logger.info(
      { lsn: point.lsn.toString(), timeMs: point.timeMs, consistency: point.consistency },
      'made a recovery point',
    );
  }

  #succeeded(): void {
    if (this.#failures > 0) this.#logger.info({}, 'the machine is applied again');
    this.#failures = 0;
    const { error: _, ...healthy } = this.#report;
    const error = this.#refusal;
    this.#report = { ...healthy, ...(error === undefined ? {} : { error }) };
  }

  /** Reports the error, gives the replica up (only a new open may go on), and says how long to wait. */
  async #failed(error: unknown): Promise<number> {
    const code = errorCode(error);
    const waiting = error instanceof ReplicaHeld || error instanceof ReplicaFenced;
    if (error instanceof ReplicaFenced) this.#holding.lost();
    if (this.#report.error?.code !== code) {
      const fields = { code, error };
      if (waiting) this.#logger.info(fields, 'the replica is in other hands');
      else this.#logger.warn(fields, 'the machine could not be applied; trying again');
    }
    if (!waiting) this.#deps.metrics.errors.inc({ code });
    this.#failures += 1;
    await this.#letGo();
    await this.#observe();
    this.#change({ error: { code, message: errorMessage(error) } });
    if (waiting) return WAITING_POLL_MS;
    return Math.min(BACKOFF_MAX_MS, POLL_MS * 2 ** Math.min(this.#failures - 1, 5));
  }

  /** Positions while somebody else applies, or while we can't: what Latest would wait for must stay visible. */
  async #observe(): Promise<void> {
    const { machineId } = this.#catalog;
    const { objects } = this.#deps;
    try {
      const state = await readReplicaState(objects, machineId);
      const { lsns } = await listPoints(objects, machineId);
      const seq = state?.applied.seq ?? -1;
      this.#change({
        appliedLsn: state?.applied.lsn ?? 0n,
        recoveryPointLsn: lsns.at(-1) ?? 0n,
        behindBytes: (await journalBacklog(objects, { machineId, seq })).bytes,
        bytesPerSecond: 0,
      });
    } catch (error) {
      this.#logger.debug({ code: errorCode(error) }, 'the replica could not be looked at');
    }
  }

  async #letGo(): Promise<void> {
    const replica = this.#replica;
    this.#replica = undefined;
    await replica?.close();
  }

  #change(change: Partial<MachineReport>): void {
    this.#report = { ...this.#report, ...change };
  }
}

function refusalOf(
  refused: ApplyResult['refused'],
  point: PointDocument | undefined,
): MachineReport['error'] {
  if (refused === undefined || (point !== undefined && point.lsn > refused.lsn)) return undefined;
  return {
    code: 'BarrierRootMismatch',
    message: `The barrier at LSN ${refused.lsn} is no recovery point: the blocks that arrived for ${refused.disks.join(', ')} do not give the root that the source computed. Request a resync of the machine (spec.resyncRequest).`,
  };
}
