/**
 * Carries a machine's backlog into the vault: one uncommitted segment at a time, in order, the next one being sealed meanwhile. Both
 * wait for the machine's turn (turns.ts).
 */
import { errorCode, errorMessage } from '../../platform/errors.ts';
import type { Clock, Disk, Logger, ObjectStore, Random } from '../../platform/ports.ts';
import { vaultLayout } from '../../vault/layout.ts';
import type { Backlog, Cut } from './backlog.ts';
import { LogDamage, readEntries } from './cacheLog.ts';
import type { ChainPosition } from './chain.ts';
import { fencedBy } from './claim.ts';
import type { Fenced } from './machineJournal.ts';
import { type SealedSegment, sealedBody, sealToFile } from './sealedFile.ts';
import { SEGMENT_CHUNK_SIZE } from './segment.ts';
import type { SegmentCodec } from './segmentCodec.ts';
import { commitSegment } from './segmentCommit.ts';
import type { TurnRequest } from './turns.ts';
import type { Uplink } from './uplink.ts';

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;

export interface UploaderDeps {
  disk: Disk;
  objects: ObjectStore;
  codec: SegmentCodec;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** That of all machines. */
  uplink: Uplink;
}

/** What the journal does about what the uploader finds. */
export interface UploadEvents {
  /** The segment is in the vault. Awaited: the next one is put only when this is durable. */
  committed(sealed: SealedSegment): Promise<void>;
  fenced(fenced: Fenced): void;
  /** The log does not give back what it had acknowledged. */
  damaged(error: Error): void;
}

export class Uploader {
  readonly #deps: UploaderDeps;
  readonly #machine: { machineId: string; dataKey: Uint8Array; writerEpoch: number };
  readonly #backlog: Backlog;
  readonly #sealAfterMs: number;
  readonly #sealEarlyBytes: number;
  readonly #events: UploadEvents;
  readonly #abort = new AbortController();
  /** Of sealing and of putting, which go on side by side. */
  readonly #errors = new Map<'seal' | 'put', { error: Error; sinceMs: number }>();
  #running: Promise<void> = Promise.resolve();
  /** Resolves when the put that is under way is over; undefined while there is none. */
  #putting: Promise<void> | undefined;

  constructor(
    deps: UploaderDeps,
    options: {
      machine: { machineId: string; dataKey: Uint8Array; writerEpoch: number };
      backlog: Backlog;
      sealAfterMs: number;
      sealEarlyBytes: number;
      events: UploadEvents;
    },
  ) {
    this.#deps = deps;
    this.#machine = options.machine;
    this.#backlog = options.backlog;
    this.#sealAfterMs = options.sealAfterMs;
    this.#sealEarlyBytes = options.sealEarlyBytes;
    this.#events = options.events;
  }

  get error(): { error: Error; sinceMs: number } | undefined {
    return this.#errors.get('put') ?? this.#errors.get('seal');
  }

  /** Goes on behind `position`; `waiting` is a segment that an earlier life sealed for the next sequence number. */
  start(position: ChainPosition, waiting: SealedSegment | undefined): void {
    this.#running = this.#run(position, waiting).catch((error: unknown) => {
      if (this.#abort.signal.aborted) return;
      this.#events.damaged(error instanceof Error ? error : new Error(String(error)));
    });
    this.#running = this.#running.finally(() => this.#deps.uplink.leave(this.#machine.machineId));
  }

  /** Ends without finishing: a put under way may still take effect. */
  async close(): Promise<void> {
    this.#abort.abort(new Error('the uploader was closed'));
    await this.#running;
  }

  async #run(start: ChainPosition, waiting: SealedSegment | undefined): Promise<void> {
    let position = start;
    let next: Promise<SealedSegment | undefined> = Promise.resolve(waiting);
    for (;;) {
      const sealed = (await next) ?? (await this.#sealNext(position));
      position = positionAfter(sealed);
      let following: SealedSegment | undefined;
      const putting = this.#put(sealed, () => following);
      const ahead = this.#sealNext(position).then((segment) => {
        following = segment;
        return segment;
      });
      // Looked at when its turn comes; until then its failure is nobody's surprise.
      ahead.catch(() => {});
      next = ahead;
      const committed = await putting;
      if (!committed) {
        this.#abort.abort(new Error('the journal is fenced'));
        await ahead.catch(() => {});
        return;
      }
    }
  }

  /** False when the journal is another writer's. */
  async #put(sealed: SealedSegment, following: () => SealedSegment | undefined): Promise<boolean> {
    const over = Promise.withResolvers<void>();
    this.#putting = over.promise;
    try {
      const committed = await this.#commit(sealed, following);
      if (committed) await this.#events.committed(sealed);
      return committed;
    } finally {
      this.#putting = undefined;
      over.resolve();
    }
  }

  /** Waits for a whole cut behind `previous` and seals it. */
  async #sealNext(previous: ChainPosition): Promise<SealedSegment> {
    const cut = await this.#nextCut(previous.lsn + 1n);
    return await this.#untilItWorks('seal', () =>
      this.#deps.uplink.seal(this.#turn(cut.plainLength), () => this.#seal(cut, previous)),
    );
  }

  async #seal(cut: Cut, previous: ChainPosition): Promise<SealedSegment> {
    const { random, clock } = this.#deps;
    const header = {
      kind: 'Data',
      side: 'Source',
      machineId: this.#machine.machineId,
      seq: previous.seq + 1,
      writerEpoch: this.#machine.writerEpoch,
      firstLsn: cut.firstLsn,
      lastLsn: cut.lastLsn,
      previousDigest: previous.digest,
      salt: random.bytes(32),
      plainLength: cut.plainLength,
      chunkSize: SEGMENT_CHUNK_SIZE,
      sealedAtMs: Math.floor(clock.now()),
      barriers: cut.barriers,
      failover: undefined,
    } as const;
    const plain = payloadsOf(this.#deps.disk, cut);
    return await sealToFile(this.#deps, { header, dataKey: this.#machine.dataKey, plain });
  }

  /** A cut is whole at a barrier, at its full length, when its oldest record has waited long enough, or when the link waits for it. */
  async #nextCut(firstLsn: bigint): Promise<Cut> {
    const { clock } = this.#deps;
    const { signal } = this.#abort;
    for (;;) {
      signal.throwIfAborted();
      const cut = this.#backlog.closedAt(firstLsn);
      if (cut !== undefined) return cut;
      const changed = this.#backlog.changed();
      const openSince = this.#backlog.openSinceMs;
      const left =
        openSince === undefined ? undefined : openSince + this.#sealAfterMs - clock.monotonic();
      const early = this.#putting === undefined && this.#backlog.openBytes >= this.#sealEarlyBytes;
      if (early || (left !== undefined && left <= 0)) this.#backlog.closeOpen();
      else
        await this.#wait(left, [changed, ...(this.#putting === undefined ? [] : [this.#putting])]);
    }
  }

  async #wait(ms: number | undefined, events: readonly Promise<unknown>[]): Promise<void> {
    const over = new AbortController();
    const aborted = Promise.withResolvers<never>();
    aborted.promise.catch(() => {});
    const { signal } = this.#abort;
    const abort = () => aborted.reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    const sleep = ms === undefined ? [] : [this.#deps.clock.sleep(ms, over.signal).catch(() => {})];
    try {
      if (!signal.aborted) await Promise.race([...events, aborted.promise, ...sleep]);
    } finally {
      over.abort();
      signal.removeEventListener('abort', abort);
    }
  }

  #turn(bytes: number): TurnRequest {
    return {
      machineId: this.#machine.machineId,
      bytes,
      oldestBarrierMs: () => this.#backlog.oldestBarrierMs(0n),
      signal: this.#abort.signal,
    };
  }

  #following(
    { header }: SealedSegment,
    next: SealedSegment | undefined,
  ): ReturnType<NonNullable<TurnRequest['followedBy']>> {
    if (next === undefined) return undefined;
    const oldestBarrierMs = this.#backlog.oldestBarrierMs(header.lastLsn);
    return { bytes: next.sizeBytes, oldestBarrierMs };
  }

  /** False when the journal is another writer's. */
  async #commit(
    sealed: SealedSegment,
    following: () => SealedSegment | undefined,
  ): Promise<boolean> {
    const { objects, uplink } = this.#deps;
    const { machineId } = this.#machine;
    const { seq } = sealed.header;
    const turn = {
      ...this.#turn(sealed.sizeBytes),
      followedBy: () => this.#following(sealed, following()),
    };
    // A try that failed gives its turn back: others need not fail.
    const outcome = await this.#untilItWorks('put', () =>
      uplink.put(turn, async () => {
        const { signal } = this.#abort;
        const body = await sealedBody(this.#deps, sealed, signal);
        const segment = { machineId, seq, body, digest: sealed.digest };
        return await commitSegment(objects, segment, { signal });
      }),
    );
    if (outcome.outcome === 'committed') return true;
    const { header } = outcome.by;
    // Of our own epoch and not ours: another process writes as us, and it was first.
    const fenced = fencedBy(header, this.#machine.writerEpoch) ?? ({ by: 'HigherEpoch' } as const);
    this.#deps.logger.error(
      {
        machineId,
        segment: vaultLayout.segment(machineId, seq),
        writerEpoch: header.writerEpoch,
        fenced,
      },
      'the journal is not ours any more: another segment holds our sequence number',
    );
    this.#events.fenced(fenced);
    return false;
  }

  /** Tries for ever, with backoff. Damage of the log is no transient failure and is thrown. */
  async #untilItWorks<T>(what: 'seal' | 'put', act: () => Promise<T>): Promise<T> {
    const { clock, random } = this.#deps;
    for (let attempt = 0; ; attempt++) {
      try {
        this.#abort.signal.throwIfAborted();
        const result = await act();
        this.#errors.delete(what);
        return result;
      } catch (error) {
        this.#abort.signal.throwIfAborted();
        if (error instanceof LogDamage || error instanceof RangeError) throw error;
        this.#remember(what, error instanceof Error ? error : new Error(String(error)));
        const jitter = 0.5 + (random.bytes(1)[0] as number) / 512;
        const delay = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt, 10)) * jitter;
        await clock.sleep(delay, this.#abort.signal);
      }
    }
  }

  /** Logged when it is news, not at every try. */
  #remember(what: 'seal' | 'put', error: Error): void {
    const before = this.#errors.get(what);
    this.#errors.set(what, { error, sinceMs: before?.sinceMs ?? this.#deps.clock.now() });
    if (before !== undefined && errorCode(before.error) === errorCode(error)) return;
    this.#deps.logger.warn(
      { machineId: this.#machine.machineId, code: errorCode(error) },
      `can't ${what} the next segment and will go on trying: ${errorMessage(error)}`,
    );
  }
}

export function positionAfter(sealed: SealedSegment): ChainPosition {
  return {
    seq: sealed.header.seq,
    digest: sealed.digest,
    lsn: sealed.header.lastLsn,
    writerEpoch: sealed.header.writerEpoch,
    sealed: false,
  };
}

async function* payloadsOf(disk: Disk, cut: Cut): AsyncGenerator<Uint8Array> {
  for (const run of cut.runs)
    for await (const { payload } of readEntries(disk, run.place, run)) yield payload;
}
