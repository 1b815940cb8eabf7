/**
 * Tracking of all of a machine's disks together: one tracer, an account a disk.
 *
 * `absorb` is the only place where events become dirt. Rounds never overlap; whoever calls during one waits for the next.
 */
import type { Clock, Tracer, WriteEvent } from '../../platform/ports.ts';
import { TrackingLostError } from './accounting.ts';
import type { CapturedDisk } from './disk.ts';

export interface Round {
  /** Events that changed a disk's canonical image; swap bodies left out. */
  events: { disk: CapturedDisk; event: WriteEvent }[];
  /** How many there were; `events` names the first of them. */
  count: number;
  /** Discards, and a RAID's own records, were all there was: nobody writes past a frozen filesystem. */
  harmless: boolean;
}

/** While filesystems are frozen, these are read again; anything else voids a barrier. */
export function isHarmless(disk: CapturedDisk, event: WriteEvent): boolean {
  return event.kind === 'discard' || disk.isRaidRecord(event);
}

const EVENTS_NAMED = 16;
/** Longer than an account needs between a drain and the next reading. */
const SETTLE_PAUSE_MS = 25;

function emptyRound(): Round {
  return { events: [], count: 0, harmless: true };
}

export class Tracking {
  readonly disks: readonly CapturedDisk[];
  readonly #tracer: Tracer;
  readonly #clock: Clock;
  #running: Promise<unknown> = Promise.resolve();
  #lost: TrackingLostError | undefined;
  #watched: Round = emptyRound();
  #eventsTaken = 0;

  constructor(options: { tracer: Tracer; clock: Clock; disks: readonly CapturedDisk[] }) {
    this.#tracer = options.tracer;
    this.#clock = options.clock;
    this.disks = options.disks;
  }

  /** Why tracking is void; it stays so until disks are opened anew. */
  get lost(): TrackingLostError | undefined {
    return this.#lost;
  }

  get dirtyBytes(): number {
    return this.disks.reduce((sum, disk) => sum + disk.dirt.dirty.bytes, 0);
  }

  /** Dirt that somebody made: a RAID's own records are the kernel's, which writes them when all is still. */
  get foreignDirtyBytes(): number {
    return this.disks.reduce((sum, disk) => sum + disk.foreignDirtyBytes, 0);
  }

  /** Events taken from the kernel so far: who dies now takes those since it last saved along. */
  get eventsTaken(): number {
    return this.#eventsTaken;
  }

  get uncertainSectors(): number {
    return Math.max(0, ...this.disks.map((disk) => disk.account.uncertainty));
  }

  get proven(): boolean {
    return this.disks.every((disk) => disk.account.proven);
  }

  /** From now on `watched` gathers what happens, whoever absorbs it. */
  watch(): void {
    this.#watched = emptyRound();
  }

  get watched(): Readonly<Round> {
    return this.#watched;
  }

  /**
   * Waits until every account is exact, so that from then on a single lost sector shows. Under constant load that may not come:
   * resolves with the sectors of doubt left after `patienceMs`; the first freeze then settles it.
   */
  async settle(options: { patienceMs: number }): Promise<{ uncertainSectors: number }> {
    const until = this.#clock.monotonic() + options.patienceMs;
    for (;;) {
      await this.absorb();
      if (this.uncertainSectors === 0 || this.#clock.monotonic() >= until)
        return { uncertainSectors: this.uncertainSectors };
      await this.#clock.sleep(SETTLE_PAUSE_MS);
    }
  }

  /**
   * Takes in every write completed so far. Throws TrackingLostError when some may be missing, BlockDeviceError when a disk vanished.
   * `last`: nothing is taken from the kernel any more after this round.
   */
  absorb(options: { last?: boolean } = {}): Promise<Round> {
    const round = this.#running.then(() => this.#round(options));
    this.#running = round.catch(() => undefined);
    return round;
  }

  /** Nobody turned tracking off, and the disks are those we opened. Throws as `absorb`, and DiskResizedError. */
  async verify(): Promise<void> {
    const state = await this.#tracer.intact();
    if (!state.intact) throw this.#loss(new TrackingLostError(state.problem));
    for (const disk of this.disks) {
      const now = await disk.device.identity();
      if (now.devT !== disk.identity.devT || now.diskSequence !== disk.identity.diskSequence)
        throw this.#loss(
          new TrackingLostError(`${disk.device.path} is another disk than it was before`),
        );
      if (now.sizeBytes !== disk.identity.sizeBytes)
        throw this.#loss(new DiskResizedError(disk, now.sizeBytes));
    }
  }

  async #round(options: { last?: boolean }): Promise<Round> {
    if (this.#lost !== undefined) throw this.#lost;
    try {
      for (const disk of this.disks) {
        const { written, discarded } = await disk.device.writtenSectors();
        disk.account.beforeDrain(written + discarded, this.#clock.monotonic());
      }
      return await this.#drain(options);
    } catch (error) {
      throw error instanceof TrackingLostError ? this.#loss(error) : error;
    }
  }

  async #drain(options: { last?: boolean }): Promise<Round> {
    const round = emptyRound();
    const byNumber = new Map(this.disks.map((disk) => [disk.identity.devT, { disk, sectors: 0 }]));
    const { lost } = await this.#tracer.drain((event) => {
      const entry = byNumber.get(event.devT);
      if (entry === undefined) return;
      this.#eventsTaken += 1;
      if (event.counted) entry.sectors += event.sectorCount;
      if (!entry.disk.markDirty(event)) return;
      round.count += 1;
      if (!isHarmless(entry.disk, event)) round.harmless = false;
      if (round.events.length < EVENTS_NAMED) round.events.push({ disk: entry.disk, event });
    }, options);
    if (lost > 0)
      throw new TrackingLostError(
        `the kernel's trace buffer overran and dropped events (${lost} counted); the machine wrote faster than the agent got to run`,
      );
    const now = this.#clock.monotonic();
    for (const { disk, sectors } of byNumber.values()) disk.account.afterDrain(sectors, now);
    this.#watched.count += round.count;
    this.#watched.harmless &&= round.harmless;
    if (this.#watched.events.length < EVENTS_NAMED) this.#watched.events.push(...round.events);
    return round;
  }

  #loss(error: TrackingLostError): TrackingLostError {
    this.#lost ??= error;
    return this.#lost;
  }
}

/** A disk has another size than when it was opened: open it anew and resync (reason DiskResized). */
export class DiskResizedError extends TrackingLostError {
  readonly sizeBytes: number;

  constructor(disk: CapturedDisk, sizeBytes: number) {
    super(`${disk.device.path} was resized from ${disk.identity.sizeBytes} to ${sizeBytes} bytes`);
    this.sizeBytes = sizeBytes;
  }
}
