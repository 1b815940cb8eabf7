/**
 * A host's disk: the cache volume of a process server, or an agent's state directory.
 *
 * Fault model. Calls take time, and a process may die before or after one took effect. Power loss keeps any of what was not synced, torn
 * at sectors and in any order (test/fakes/memoryDisk.ts). EIO on any call, and after a failed sync what was written before it may never
 * become durable. ENOSPC when it is full, and for a while when somebody else fills it. Bits rot in files at rest. A sync that succeeds
 * is believed: disks that lie about syncs are not simulated.
 */
import { FarshoreError } from '../../platform/errors.ts';
import type { Disk, DiskFile } from '../../platform/ports.ts';
import { type DiskOperation, MemoryDisk } from '../fakes/memoryDisk.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';
import type { SimTime } from './time.ts';

/** Chance that a call that is no sync takes time. */
const SLOW = 0.08;

export class SimDisk {
  readonly name: string;
  readonly #time: SimTime;
  readonly #chance: Chance;
  #media: MemoryDisk;
  /** Chance of EIO for each call. */
  errorRate = 0;
  /** Milliseconds that a sync takes, on average. */
  syncMs = 3;
  /** Told of every call that changes something. */
  onChange: ((operation: DiskOperation, path: string) => void) | undefined;
  /** Kills the process that makes the nth call from now that changes something. */
  #trap: { calls: number; only: string; after: boolean; sprung: () => void } | undefined;

  constructor(options: { time: SimTime; chance: Chance; name: string; capacityBytes?: number }) {
    this.name = options.name;
    this.#time = options.time;
    this.#chance = options.chance;
    this.#media = new MemoryDisk(options);
  }

  get capacityBytes(): number {
    return this.#media.capacityBytes;
  }

  set capacityBytes(bytes: number) {
    this.#media.capacityBytes = bytes;
  }

  get usedBytes(): number {
    return this.#media.files().reduce((sum, { size }) => sum + size, 0);
  }

  /** As one process sees it. */
  for(life: Life): Disk {
    const media = this.#media;
    const call = <T>(operation: DiskOperation, path: string, act: () => Promise<T>) =>
      this.#call(life, operation, path, act);
    return {
      open: async (path, mode) =>
        this.#file(life, path, await call('open', path, () => media.open(path, mode))),
      list: (directory) => call('read', directory, () => media.list(directory)),
      makeDirectory: (path) => call('open', path, () => media.makeDirectory(path)),
      rename: (names) => call('rename', names.to, () => media.rename(names)),
      remove: (path) => call('remove', path, () => media.remove(path)),
      syncDirectory: (path) => call('syncDirectory', path, () => media.syncDirectory(path)),
      freeBytes: () => call('read', '.', () => media.freeBytes()),
      totalBytes: () => call('read', '.', () => media.totalBytes()),
    };
  }

  /** Power fails. */
  crash(): void {
    this.#media.crash({ torn: this.#chance });
  }

  /** The volume is gone; an empty one takes its place. */
  replace(): void {
    this.#media = new MemoryDisk({ capacityBytes: this.#media.capacityBytes });
  }

  /**
   * `sprung` is called in the middle of the nth call that changes something under a path that begins with `only`: before or after its
   * effect.
   */
  setTrap(trap: { calls: number; only?: string; sprung: () => void }): void {
    this.#trap = { only: '', ...trap, after: this.#chance.chance(0.5) };
  }

  clearTrap(): void {
    this.#trap = undefined;
  }

  /** One bit of a file, of any kind that there is. Returns the file; undefined when there is none. */
  rot(kinds: readonly RegExp[]): string | undefined {
    const files = this.#media.files().filter(({ size }) => size > 0);
    const byKind = kinds
      .map((kind) => files.filter(({ path }) => kind.test(path)))
      .filter((some) => some.length > 0);
    if (byKind.length === 0) return undefined;
    const { path, size } = this.#chance.pick(this.#chance.pick(byKind));
    this.#media.flipBit(path, { offset: this.#chance.below(size), bit: this.#chance.below(8) });
    return path;
  }

  #file(life: Life, path: string, file: DiskFile): DiskFile {
    const call = <T>(operation: DiskOperation, act: () => Promise<T>) =>
      this.#call(life, operation, path, act);
    return {
      read: (into, offset) => call('read', () => file.read(into, offset)),
      write: (bytes, offset) => call('write', () => file.write(bytes, offset)),
      sync: () => call('sync', () => file.sync()),
      truncate: (size) => call('truncate', () => file.truncate(size)),
      size: () => call('read', () => file.size()),
      close: () => (life.dead ? forever() : file.close()),
    };
  }

  async #call<T>(
    life: Life,
    operation: DiskOperation,
    path: string,
    act: () => Promise<T>,
  ): Promise<T> {
    if (life.dead) return await forever();
    const changes = operation !== 'read';
    if (changes) {
      this.#time.note(`${this.name} ${operation} ${path}`);
      this.onChange?.(operation, path);
    }
    const fails = this.errorRate > 0 && this.#chance.chance(this.errorRate);
    const trap = changes ? this.#countToTrap(path) : undefined;
    if (trap !== undefined && !trap.after) {
      trap.sprung();
      return await forever();
    }
    const isSync = operation === 'sync' || operation === 'syncDirectory';
    const slow = isSync || this.#chance.chance(SLOW);
    const effectFirst = slow && this.#chance.chance(0.5);
    const wait = () => life.sleep(this.#chance.about(isSync ? this.syncMs : 1));
    if (slow && !effectFirst) await wait();
    const run = () => (fails ? this.#fail(operation, path, act) : act());
    if (trap === undefined && !effectFirst) return await run();
    const result = await settle(run());
    if (trap !== undefined) {
      trap.sprung();
      return await forever();
    }
    await wait();
    return result();
  }

  /** Some of the work may have been done. */
  async #fail<T>(operation: DiskOperation, path: string, act: () => Promise<T>): Promise<T> {
    if (operation === 'sync') {
      this.#media.fault = () => eio(path);
      try {
        return await act();
      } finally {
        this.#media.fault = undefined;
      }
    }
    if (this.#chance.chance(0.5)) await act();
    throw eio(path);
  }

  #countToTrap(path: string): { after: boolean; sprung: () => void } | undefined {
    const trap = this.#trap;
    if (trap === undefined || !path.startsWith(trap.only)) return undefined;
    trap.calls -= 1;
    if (trap.calls > 0) return undefined;
    this.#trap = undefined;
    return trap;
  }
}

function eio(path: string): FarshoreError {
  return new FarshoreError('EIO', `input/output error on ${path}`);
}

async function settle<T>(work: Promise<T>): Promise<() => T> {
  try {
    const value = await work;
    return () => value;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}
