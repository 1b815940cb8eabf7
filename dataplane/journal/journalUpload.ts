/**
 * A machine's journal on its way to the vault: what waits for it, and what follows once a segment is there, once somebody else is found to
 * write, or once the cache turns out not to hold what waits.
 */
import { errorMessage } from '../../platform/errors.ts';
import type { Lsn } from '../../vault/documents/fields.ts';
import { Backlog } from './backlog.ts';
import { LogDamage } from './cacheLog.ts';
import type { Fenced } from './machineJournal.ts';
import type { MachineState, StoredState } from './machineState.ts';
import { discardSealed, type SealedSegment } from './sealedFile.ts';
import { Uploader, type UploaderDeps } from './uploader.ts';

export interface JournalUploadDeps extends UploaderDeps {
  stored: StoredState;
  /** The local disk does not do what it must: the whole cache stops. */
  onFailed(error: Error): void;
}

export interface JournalUploadOptions {
  dataKey: Uint8Array;
  segmentBytes: number;
  sealAfterMs: number;
  sealEarlyBytes: number;
}

export interface UploadingJournal {
  /** The vault has everything up to here, and the state says so. */
  reached(lsn: Lsn): void;
  /** The segment's file is out of the way, too. */
  uploaded(): void;
  /** Called once. */
  fenced(fenced: Fenced): void;
}

export class JournalUpload {
  readonly backlog: Backlog;
  readonly #deps: JournalUploadDeps;
  readonly #journal: UploadingJournal;
  readonly #uploader: Uploader;

  constructor(deps: JournalUploadDeps, options: JournalUploadOptions, journal: UploadingJournal) {
    this.#deps = deps;
    this.#journal = journal;
    const { clock, stored } = deps;
    const { dataKey, segmentBytes, sealAfterMs, sealEarlyBytes } = options;
    this.backlog = new Backlog({
      plainMax: segmentBytes,
      now: () => ({ wallMs: clock.now(), monotonicMs: clock.monotonic() }),
    });
    const { machineId, writerEpoch } = stored.state;
    this.#uploader = new Uploader(deps, {
      machine: { machineId, dataKey, writerEpoch },
      backlog: this.backlog,
      sealAfterMs,
      sealEarlyBytes,
      events: {
        committed: (sealed) => this.#onCommitted(sealed),
        fenced: (fenced) => journal.fenced(fenced),
        damaged: (error) => this.#onDamaged(error),
      },
    });
  }

  /** Why uploading does not get on, since when; undefined when it does. */
  get error(): { error: Error; sinceMs: number } | undefined {
    return this.#uploader.error;
  }

  /** Goes on behind what is uploaded; `waiting` is a segment that an earlier life sealed. */
  start(waiting: SealedSegment | undefined): void {
    const { seq, digest, lsn } = this.#deps.stored.state.uploaded;
    this.#uploader.start({ seq, digest, lsn }, waiting);
  }

  /** Ends without finishing: a put under way may still take effect. */
  async close(): Promise<void> {
    await this.#uploader.close();
  }

  async #onCommitted(sealed: SealedSegment): Promise<void> {
    const { disk, stored } = this.#deps;
    const { lastLsn, plainLength } = sealed.header;
    await stored.change({ uploaded: uploadedAfter(sealed, stored.state.uploaded) });
    this.backlog.removeThrough(lastLsn);
    this.#journal.reached(lastLsn);
    await discardSealed(disk, sealed, { othersWait: this.backlog.bytes > plainLength });
    this.#journal.uploaded();
  }

  /** The next open begins again from the vault; until then nothing is accepted. */
  #onDamaged(error: Error): void {
    const { logger, onFailed, stored } = this.#deps;
    // The disk failed in another way, and what it holds may be whole: the next open looks.
    if (!(error instanceof LogDamage || error instanceof RangeError)) {
      onFailed(error);
      return;
    }
    logger.error(
      { machineId: stored.state.machineId, cause: errorMessage(error) },
      'the cache lost journaled data of this machine; it begins again from the vault, with a resync',
    );
    stored.change({ distrusted: errorMessage(error) }).then(
      () => onFailed(error),
      () => onFailed(error),
    );
  }
}

function uploadedAfter(
  { header, digest }: SealedSegment,
  before: MachineState['uploaded'],
): MachineState['uploaded'] {
  const { seq, lastLsn, barriers } = header;
  const barrier = barriers.at(-1) ?? before.barrier;
  const appBarrier =
    barriers.findLast(({ consistency }) => consistency === 'App') ?? before.appBarrier;
  return {
    seq,
    digest,
    lsn: lastLsn,
    ...(barrier === undefined ? {} : { barrier }),
    ...(appBarrier === undefined ? {} : { appBarrier }),
  };
}
