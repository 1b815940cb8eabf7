/**
 * The kernel of a source machine as the agent meets it: tracing of block writes, filesystems that freeze, watchdogs.
 *
 * Fault model. Trace buffers are per CPU and of fixed size: events past it are dropped and counted as lost. An event may be dropped
 * without being counted, tracing may be turned off behind the agent's back. Buffers are handed out CPU by CPU, not in order of time; they
 * outlive the agent, not a reboot. A freeze waits for writes under way and holds back new ones. The watchdog of a frozen filesystem is a
 * process of its own: it thaws at the deadline, or when the agent dies, whatever state the agent is in.
 */
import { FreezeError } from '../../platform/deviceErrors.ts';
import type { FilesystemFreezer, FreezePlan, Tracer, WriteEvent } from '../../platform/ports.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';
import type { Image, SourceDisk } from './sourceDisk.ts';
import type { SimTime, Timer } from './time.ts';

const CPUS = 2;

interface Instance {
  devices: string;
  buffers: WriteEvent[][];
  lost: number;
  on: boolean;
}

/** One freeze, and what the disks held while it lasted: more than one image when something wrote past it. */
export interface Frozen {
  id: number;
  startedMs: number;
  images: Image[][];
}

export class Kernel {
  readonly time: SimTime;
  readonly disks: readonly SourceDisk[];
  readonly #chance: Chance;
  bootId: string;
  bufferEvents: number;
  #instance: Instance | undefined;
  #freezes = 0;
  #state: 'thawed' | 'freezing' | 'frozen' = 'thawed';
  #watchdog: Timer | undefined;
  #watchdogThawed = false;
  #frozenAtMs = 0;
  #waiting: (() => void)[] = [];
  #drained: (() => void)[] = [];
  /** The newest freeze that came about. */
  frozen: Frozen | undefined;
  /** Longest that a write was held back, ms. */
  longestStallMs = 0;
  freezeFailRate = 0;
  /** Told how many events each drain handed out. */
  onDrain: ((events: number) => void) | undefined;
  /** Called once, as the next freeze comes about. */
  atNextFreeze: (() => void) | undefined;
  /** Writes came, or may have come, that no event tells of. */
  hidWrites = false;

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
    this.bufferEvents = options.bufferEvents;
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
    const sinceMs = this.time.nowMs;
    this.#waiting.push(() => {
      this.longestStallMs = Math.max(this.longestStallMs, this.time.nowMs - sinceMs);
      this.#submit(disk, write);
    });
  }

  /** How long the write that waits longest has waited. */
  get stallMs(): number {
    return this.#waiting.length === 0 ? 0 : this.time.nowMs - this.#frozenAtMs;
  }

  /** An event that the kernel forgets without a word. Returns whether there was one. */
  dropEvent(): boolean {
    const buffer = this.#instance?.buffers.find((events) => events.length > 0);
    const isHidden = buffer?.shift() !== undefined;
    this.hidWrites ||= isHidden;
    return isHidden;
  }

  turnTracingOff(): boolean {
    if (this.#instance === undefined) return false;
    this.#instance.on = false;
    this.hidWrites = true;
    return true;
  }

  get tracing(): boolean {
    return this.#instance?.on === true;
  }

  /** Power goes and comes: nothing in memory stays. */
  reboot(bootId: string): void {
    this.bootId = bootId;
    this.#instance = undefined;
    this.#watchdog?.cancel();
    this.#state = 'thawed';
    this.#waiting = [];
    this.#drained = [];
    for (const disk of this.disks) {
      disk.written = 0;
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
      this.#trace(disk, disk.event(offset, bytes.length, kind));
      const count = () => {
        if (boot !== this.bootId) return;
        disk.written += bytes.length / 512;
        disk.inFlight -= 1;
        this.#oneDone();
      };
      if (chance.chance(0.2)) this.time.after(chance.about(0.3), 'write counted', count);
      else count();
    });
  }

  #trace(disk: SourceDisk, event: WriteEvent): void {
    const instance = this.#instance;
    if (instance?.on !== true) return;
    if (!instance.devices.split(',').includes(String(disk.identity.devT))) return;
    const buffer = instance.buffers[this.#chance.below(CPUS)] as WriteEvent[];
    if (buffer.length >= this.bufferEvents) instance.lost += 1;
    else buffer.push(event);
  }

  #oneDone(): void {
    if (this.disks.some((disk) => disk.inFlight > 0)) return;
    for (const act of this.#drained.splice(0)) act();
  }

  #images(): Image[] {
    return this.disks.map((disk) => disk.image());
  }

  // ------------------------------------------------------------------------------------------------------ tracing

  tracerFor(life: Life): Tracer {
    return {
      start: async (devices) => {
        if (life.dead) return await forever();
        const wanted = devices.map((device) => `${device.devT}`).join(',');
        const present = this.#instance;
        if (present?.devices === wanted && present.on) return { adopted: true };
        this.#instance = {
          devices: wanted,
          buffers: Array.from({ length: CPUS }, () => []),
          lost: 0,
          on: true,
        };
        return { adopted: false };
      },
      drain: async (onEvent) => {
        if (life.dead) return await forever();
        const instance = this.#instance;
        if (instance === undefined) return { lost: 0 };
        let events = 0;
        for (const buffer of instance.buffers)
          for (const event of buffer.splice(0)) {
            events += 1;
            onEvent(event);
          }
        this.onDrain?.(events);
        return { lost: instance.lost };
      },
      intact: async () => {
        if (life.dead) return await forever();
        return this.#instance?.on === true
          ? { intact: true }
          : { intact: false, problem: 'tracing was turned off' };
      },
      stop: async (options) => {
        if (life.dead) return await forever();
        if (options?.keep !== true) this.#instance = undefined;
      },
    };
  }

  // ----------------------------------------------------------------------------------------------------- freezing

  freezerFor(life: Life): FilesystemFreezer {
    const pause = (meanMs: number) => life.sleep(this.#chance.about(meanMs));
    life.onDeath(() => {
      // Its end of the pipe closes.
      if (this.#state !== 'thawed')
        this.time.after(this.#chance.about(5), 'watchdog sees its agent die', () =>
          this.#thawByWatchdog(),
        );
    });
    return {
      plan: async () => (life.dead ? await forever() : this.#plan()),
      sync: () => pause(4),
      prepare: () => pause(1),
      freeze: async (_plan, { deadlineMs }) => {
        if (life.dead) return await forever();
        this.#watchdogThawed = false;
        this.#state = 'freezing';
        this.#frozenAtMs = this.time.nowMs;
        this.#watchdog?.cancel();
        this.#watchdog = this.time.after(deadlineMs, 'freeze deadline', () =>
          this.#thawByWatchdog(),
        );
        await life.hear(this.#quiet());
        await pause(3);
        if (this.#chance.chance(this.freezeFailRate)) {
          this.#thaw();
          throw new FreezeError('The filesystem is busy.');
        }
        if (this.#watchdogThawed) return;
        this.#freezes += 1;
        this.#state = 'frozen';
        this.frozen = {
          id: this.#freezes,
          startedMs: this.time.nowMs,
          images: [this.#images()],
        };
        const act = this.atNextFreeze;
        this.atNextFreeze = undefined;
        act?.();
      },
      thaw: async () => {
        if (life.dead) return await forever();
        const frozenForMs = this.#state === 'thawed' ? 0 : this.time.nowMs - this.#frozenAtMs;
        const undone = this.#watchdogThawed ? ['/data'] : [];
        this.#watchdogThawed = false;
        this.#thaw();
        return { frozenForMs, void: undone };
      },
      hold: async () => {
        this.#watchdog?.cancel();
        return { void: this.#watchdogThawed ? ['/data'] : [] };
      },
      held: () => (this.#state === 'frozen' ? ['/data'] : []),
      adoptHeld: () => undefined,
    };
  }

  #plan(): FreezePlan {
    const mounts = [
      { mountPoint: '/data', filesystem: 'ext4', source: '/dev/sda', freezable: true },
    ];
    return { mounts, swap: [] };
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
    if (this.#state === 'frozen') this.#thawByWatchdog();
  }

  #thawByWatchdog(): void {
    if (this.#state === 'thawed') return;
    this.#watchdogThawed = true;
    this.#thaw();
  }

  #thaw(): void {
    this.#watchdog?.cancel();
    if (this.#state === 'thawed') return;
    this.#state = 'thawed';
    for (const go of this.#waiting.splice(0)) go();
  }
}
