/** The resync that is under way, over any number of sessions and agents, and the last that ended. */
import type { Clock, Logger, SourceMachine } from '../../platform/ports.ts';
import type { EndedResync } from '../../vault/documents/machineStatus.ts';
import { Resync, type ResyncReport } from '../capture/resync.ts';
import type { Loss, MachineCapture } from './machineCapture.ts';
import type { Session, Welcome } from './session.ts';
import type { SavedState } from './state.ts';

type SavedResync = NonNullable<SavedState['resync']>;

export interface ResyncWorkDeps {
  clock: Clock;
  log: Logger;
  capture: MachineCapture;
  machine: SourceMachine;
}

export class ResyncWork {
  readonly #deps: ResyncWorkDeps;
  #resync: Resync | undefined;
  #cause: Loss | undefined;
  #last: EndedResync | undefined;

  constructor(deps: ResyncWorkDeps) {
    this.#deps = deps;
  }

  get isUnderWay(): boolean {
    return this.#resync !== undefined;
  }

  /** Of one whose beginning no process server has been told of yet. */
  get aboutToBegin(): Loss | undefined {
    if (this.#resync?.progress.beginLsn !== 0n) return undefined;
    return { reason: this.#resync.progress.reason, detail: 'a resync was about to begin' };
  }

  /** Why the one under way began, when this agent began it. */
  get cause(): Loss | undefined {
    return this.#resync === undefined ? undefined : this.#cause;
  }

  /** The newest that ended since the agent started. */
  get last(): EndedResync | undefined {
    return this.#last;
  }

  /** For a successor. */
  get saved(): SavedResync | undefined {
    const progress = this.#resync?.progress;
    if (progress === undefined) return undefined;
    const { reason, startedMs, beginLsn, bytesSent } = progress;
    return { reason, startedMs, beginLsn, bytesSent, cursors: [...progress.cursors] };
  }

  report(): ResyncReport | undefined {
    return this.#resync?.report(this.#deps.clock);
  }

  /** What a former agent left, over the disks that are tracked on. */
  adopt(saved: SavedResync): void {
    this.#resync = new Resync({
      disks: this.#deps.capture.disks,
      progress: { ...saved, cursors: new Map(saved.cursors), assumeZero: false },
    });
  }

  /** Forgets one that does not count for this journal. */
  welcome({ journaledLsn, resync }: Welcome): void {
    const progress = this.#resync?.progress;
    if (progress === undefined || progress.beginLsn === 0n) return;
    // Its beginning got lost with a cache: it begins again, where it is. Otherwise the journal knows whether it has ended, and
    // whether what it compared counts: a machine that went back in time, or a journal without hashes, begins from the first leaf.
    const isKept =
      progress.beginLsn > journaledLsn
        ? !resync.required || resync.reason === 'Initial'
        : resync.required && resync.beginLsn === progress.beginLsn;
    if (!isKept) this.#resync = undefined;
    else if (progress.beginLsn > journaledLsn) progress.beginLsn = 0n;
  }

  forget(): void {
    this.#resync = undefined;
  }

  /** Over the disks that were just opened, for this reason. `journalIsEmpty`: everything in it is zero. */
  begin(loss: Loss, options: { journalIsEmpty: boolean }): void {
    const { capture, clock, log } = this.#deps;
    this.#resync = new Resync({
      disks: capture.disks,
      progress: {
        reason: loss.reason,
        startedMs: clock.now(),
        beginLsn: 0n,
        assumeZero: options.journalIsEmpty,
        cursors: new Map(),
        bytesSent: 0,
      },
    });
    this.#cause = loss;
    log.info({ ...loss }, 'A resync begins');
  }

  /** Goes on to the end. Rejects as `Resync.run` does, and with what `checkpoint` rejects with; it is then called again. */
  async run(session: Session, checkpoint: () => Promise<void>): Promise<void> {
    const resync = this.#resync;
    if (resync === undefined) return;
    const { clock, capture, machine, log } = this.#deps;
    machine.giveWay(true);
    await resync.run({ sink: session, clock, checkpoint }).finally(() => machine.giveWay(false));
    const { reason, bytesTotal, bytesSent, startedMs } = resync.report(clock);
    this.#resync = undefined;
    capture.clearReadErrors();
    const finishedMs = Math.max(startedMs, clock.now());
    this.#last = { reason, bytesTotal, bytesSent, startedMs, finishedMs };
    const seconds = (finishedMs - startedMs) / 1000;
    log.info({ bytesSent, seconds }, 'The resync has ended');
  }
}
