/**
 * The kernel of a source machine as the agent meets it: block writes, filesystems that freeze, watchdogs; what it traces is in trace.ts.
 *
 * Fault model. A freeze waits for writes under way and holds back new ones. The watchdog of a frozen filesystem is a process of its own: it
 * thaws at the deadline, or when the agent dies, whatever state the agent is in. Once it is called off (held), only a process that knows of
 * it thaws it, somebody else, or a reboot. Passes test/conformance/filesystemFreezer.ts.
 */
import { FreezeError } from '../../platform/deviceErrors.ts';
import type { FilesystemFreezer, FreezePlan, WriteEvent } from '../../platform/ports.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';
import type { Image, SourceDisk } from './sourceDisk.ts';
import type { SimTime, Timer } from './time.ts';
import { Trace } from './trace.ts';

/** Of the only filesystem, on the first disk. */
const MOUNT_POINT = '/data';

/** One freeze, and what the disks held while it lasted: more than one image when something wrote past it. */
export interface Frozen {
  id: number;
  startedMs: number;
  images: Image[][];
}

/** A freeze whose watchdog was called off, and what became of it. */
export interface Held {
  frozen: Frozen;
  sinceMs: number;
  /** What the disks held then. */
  images: readonly Image[];
  /** When anything was written to them since, for the first time. */
  writtenMs?: number;
  ended?: { atMs: number; by: 'agent' | 'others' | 'power' };
}

export class Kernel {
  readonly time: SimTime;
  readonly disks: readonly SourceDisk[];
  readonly #chance: Chance;
  bootId: string;
  readonly trace: Trace;
  #freezes = 0;
  #state: 'thawed' | 'freezing' | 'frozen' = 'thawed';
  #watchdog: Timer | undefined;
  #watchdogThawed = false;
  #frozenAtMs = 0;
  #waiting: (() => void)[] = [];
  #drained: (() => void)[] = [];
  /** The newest freeze that came about. */
  frozen: Frozen | undefined;
  readonly holds: Held[] = [];
  /** The next freeze may take as long as a last barrier: somebody asked for one. */
  finalIsAsked = false;
  #isFinal = false;
  /** Longest that a write was held back by barriers, ms; not counted while the machine is held. */
  readonly longestStallMs = { ordinary: 0, final: 0 };
  freezeFailRate = 0;
  /** Called once, as the next freeze comes about, the next one for a last barrier, and as the machine is held. */
  atNextFreeze: (() => void) | undefined;
  atFinalFreeze: (() => void) | undefined;
  atHold: (() => void) | undefined;
  /** Told of each hold as it begins, and as it ends. */
  onHeld: ((held: Held) => void) | undefined;

  constructor(options: {
    time: SimTime;
    chance: Chance;
    disks: readonly SourceDisk[];
    bootId: string;
    bufferEvents: number;
  }) {
    this.time = options.time;
    this.#chance = options.chance;
    this.disks = options.disks;
    this.bootId = options.bootId;
    const { chance, bufferEvents } = options;
    this.trace = new Trace({ chance, bufferEvents });
  }

  // ------------------------------------------------------------------------------------------------------- writes

  /** A write of the machine's programs, through its filesystem unless `raw`. */
  write(
    disk: SourceDisk,
    write: { offset: number; bytes: Uint8Array; kind: WriteEvent['kind']; raw?: boolean },
  ): void {
    if (this.#state === 'thawed' || write.raw === true) {
      this.#submit(disk, write);
      return;
    }
    this.#waiting.push(() => this.#submit(disk, write));
  }

  get isFrozen(): boolean {
    return this.#state === 'frozen';
  }

  /** Held now; undefined when it is not. */
  get held(): Held | undefined {
    const held = this.holds.at(-1);
    return held?.ended === undefined ? held : undefined;
  }

  /** Writes that wait now count as waiting since the freeze. */
  noteStalls(): void {
    if (this.held !== undefined || this.#waiting.length === 0) return;
    const kind = this.#isFinal ? 'final' : 'ordinary';
    const longest = this.longestStallMs;
    longest[kind] = Math.max(longest[kind], this.time.nowMs - this.#frozenAtMs);
  }

  /** Power goes and comes: nothing in memory stays. */
  reboot(bootId: string): void {
    this.bootId = bootId;
    this.trace.end();
    this.#watchdog?.cancel();
    this.#endHold('power');
    this.#state = 'thawed';
    this.#waiting = [];
    this.#drained = [];
    for (const disk of this.disks) {
      disk.written = 0;
      disk.discarded = 0;
      disk.inFlight = 0;
      disk.identity = { ...disk.identity, diskSequence: disk.identity.diskSequence + 1n };
    }
  }

  #submit(
    disk: SourceDisk,
    write: { offset: number; bytes: Uint8Array; kind: WriteEvent['kind'] },
  ): void {
    const { offset, bytes, kind } = write;
    const chance = this.#chance;
    const boot = this.bootId;
    const tookMs = chance.about(disk.writeMs);
    disk.inFlight += 1;
    const apply = () => {
      disk.put(offset, bytes);
      const held = this.holds.at(-1);
      if (held !== undefined) held.writtenMs ??= this.time.nowMs;
      // Something wrote past the frozen filesystem.
      if (this.#state === 'frozen') this.frozen?.images.push(this.#images());
    };
    const early = chance.chance(0.5);
    if (early)
      this.time.after(tookMs * chance.pick([0.02, chance.between(0, 1)]), 'write lands', () => {
        if (boot === this.bootId) apply();
      });
    this.time.after(tookMs, 'write completes', () => {
      if (boot !== this.bootId) return;
      if (!early) apply();
      this.trace.note(disk.event(offset, bytes.length, kind));
      const count = () => {
        if (boot !== this.bootId) return;
        disk.count(bytes.length, kind);
        disk.inFlight -= 1;
        this.#oneDone();
      };
      if (chance.chance(0.2)) this.time.after(chance.about(0.3), 'write counted', count);
      else count();
    });
  }

  #oneDone(): void {
    if (this.disks.some((disk) => disk.inFlight > 0)) return;
    for (const act of this.#drained.splice(0)) act();
  }

  #images(): Image[] {
    return this.disks.map((disk) => disk.image());
  }

  // ----------------------------------------------------------------------------------------------------- freezing

  freezerFor(life: Life): FilesystemFreezer {
    const pause = (meanMs: number) => life.sleep(this.#chance.about(meanMs));
    /** It holds the machine itself, or knows of a former one that does. */
    let holds = false;
    life.onDeath(() => {
      // Its end of the pipe closes.
      if (this.#state !== 'thawed')
        this.time.after(this.#chance.about(5), 'watchdog sees its agent die', () =>
          this.#thawByWatchdog(),
        );
    });
    return {
      plan: async (paths) => (life.dead ? await forever() : this.#plan(paths)),
      sync: () => pause(4),
      prepare: () => pause(1),
      freeze: async (_plan, { deadlineMs }) => {
        if (life.dead) return await forever();
        if (this.held !== undefined)
          throw new FreezeError(`The filesystem at ${MOUNT_POINT} is frozen already.`);
        this.#watchdogThawed = false;
        this.#state = 'freezing';
        this.#frozenAtMs = this.time.nowMs;
        this.#isFinal = this.finalIsAsked;
        this.finalIsAsked = false;
        this.#watchdog?.cancel();
        this.#watchdog = this.time.after(deadlineMs, 'freeze deadline', () =>
          this.#thawByWatchdog(),
        );
        await life.hear(this.#quiet());
        await pause(3);
        if (this.#chance.chance(this.freezeFailRate)) {
          this.noteStalls();
          this.#thaw();
          throw new FreezeError(`The filesystem at ${MOUNT_POINT} is busy.`);
        }
        if (this.#watchdogThawed) return;
        this.#freezes += 1;
        this.#state = 'frozen';
        this.frozen = {
          id: this.#freezes,
          startedMs: this.time.nowMs,
          images: [this.#images()],
        };
        this.#strike('atNextFreeze');
        if (this.#isFinal) this.#strike('atFinalFreeze');
      },
      thaw: async () => {
        if (life.dead) return await forever();
        if (holds) return await this.#thawHeld(pause, () => (holds = false));
        // Of a former agent that nobody told us of.
        if (this.held !== undefined) return { frozenForMs: 0, void: [] };
        const frozenForMs = this.#state === 'thawed' ? 0 : this.time.nowMs - this.#frozenAtMs;
        const undone = this.#watchdogThawed ? [MOUNT_POINT] : [];
        this.#watchdogThawed = false;
        this.noteStalls();
        this.#thaw();
        return { frozenForMs, void: undone };
      },
      check: async () => {
        await pause(1);
        return { void: this.#state === 'frozen' && !this.#watchdogThawed ? [] : [MOUNT_POINT] };
      },
      hold: async () => {
        await pause(1);
        if (this.#state !== 'frozen') return { void: [MOUNT_POINT] };
        this.#hold();
        holds = true;
        await pause(1);
        return { void: [] };
      },
      held: () => (holds ? [MOUNT_POINT] : []),
      adoptHeld: (mountPoints) => {
        holds = mountPoints.length > 0;
      },
    };
  }

  #hold(): void {
    const { frozen } = this;
    if (frozen === undefined) return;
    this.noteStalls();
    this.#watchdog?.cancel();
    const held = { frozen, sinceMs: this.time.nowMs, images: this.#images() };
    this.holds.push(held);
    this.time.note(`${this.bootId} is held`);
    this.onHeld?.(held);
    this.#strike('atHold');
  }

  #strike(moment: 'atNextFreeze' | 'atFinalFreeze' | 'atHold'): void {
    const act = this[moment];
    this[moment] = undefined;
    act?.();
  }

  /** A program has to be started for it, which fails when somebody else was first. */
  async #thawHeld(
    pause: (meanMs: number) => Promise<void>,
    done: () => void,
  ): Promise<{ frozenForMs: number; void: string[] }> {
    await pause(3);
    const { held } = this;
    const frozenForMs = this.time.nowMs - this.#frozenAtMs;
    this.#endHold('agent');
    await pause(1);
    done();
    return { frozenForMs, void: held === undefined ? [MOUNT_POINT] : [] };
  }

  #endHold(by: 'agent' | 'others' | 'power'): void {
    const { held } = this;
    if (held === undefined) return;
    held.ended = { atMs: this.time.nowMs, by };
    this.time.note(`${this.bootId} is let go by ${by}`);
    this.onHeld?.(held);
    if (by !== 'power') this.#thaw();
  }

  #plan(devicePaths: readonly string[]): FreezePlan {
    const source = this.disks[0]?.path ?? '';
    const data = { mountPoint: MOUNT_POINT, filesystem: 'ext4', source, freezable: true };
    return { mounts: devicePaths.includes(source) ? [data] : [], swap: [] };
  }

  /** No write is under way. */
  #quiet(): Promise<void> {
    return new Promise((resolve) => {
      if (this.disks.every((disk) => disk.inFlight === 0)) resolve();
      else this.#drained.push(resolve);
    });
  }

  /** Somebody who is not the agent: its own thaw will fail. */
  thawByOther(): void {
    if (this.held !== undefined) this.#endHold('others');
    else if (this.#state === 'frozen') this.#thawByWatchdog();
  }

  #thawByWatchdog(): void {
    if (this.#state === 'thawed' || this.held !== undefined) return;
    this.#watchdogThawed = true;
    this.noteStalls();
    this.#thaw();
  }

  #thaw(): void {
    this.#watchdog?.cancel();
    if (this.#state === 'thawed') return;
    this.#state = 'thawed';
    for (const go of this.#waiting.splice(0)) go();
  }
}
