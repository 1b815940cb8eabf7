import { FarshoreError } from '../../platform/errors.ts';
import type { Disk, DiskFile } from '../../platform/ports.ts';
import { type Choices, Inode } from './inode.ts';
import type { SeededRandom } from './seededRandom.ts';

export type DiskOperation =
  | 'open'
  | 'read'
  | 'write'
  | 'sync'
  | 'truncate'
  | 'rename'
  | 'remove'
  | 'syncDirectory';

/** A change of a directory that its next sync makes durable. */
interface NameChange {
  directory: string;
  /** Path → what it names afterwards; undefined: nothing. */
  after: Map<string, Inode | undefined>;
}

/**
 * A disk that forgets, at `crash`, everything that was not synced: file contents without `sync`, names without
 * `syncDirectory` of their directory. Errors carry Node's codes (ENOENT, EEXIST, ENOSPC, EIO).
 *
 * A torn crash keeps some of it: of each directory's changes a first part, in order, as a journaling filesystem does; of each file's
 * writes any, whole, cut after a sector, or with some of their sectors missing. What was written before a sync that failed is not made
 * durable by a later one.
 */
export class MemoryDisk implements Disk {
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #directories = new Set<string>(['.']);
  #durableDirectories = new Set<string>(['.']);
  #generation = 0;
  #nameChanges: NameChange[] = [];
  /** Decide what the last crash left, file by file, as somebody looks. */
  #choices: Choices | undefined;
  capacityBytes: number;
  /** Returns an error to make an operation fail. */
  fault: ((operation: DiskOperation, path: string) => Error | undefined) | undefined;
  /** How many of each operation succeeded. */
  readonly counts: Record<DiskOperation, number> = {
    open: 0,
    read: 0,
    write: 0,
    sync: 0,
    truncate: 0,
    rename: 0,
    remove: 0,
    syncDirectory: 0,
  };

  constructor(options: { capacityBytes?: number } = {}) {
    this.capacityBytes = options.capacityBytes ?? 2 ** 34;
  }

  /**
   * Power fails: open files are dead, unsynced names and bytes are gone. With `torn`, some of them survive, as the seed decides; with
   * `choices` any of them may: names are decided at once, a file's bytes when it is looked at.
   */
  crash(options: { torn?: SeededRandom; choices?: Choices } = {}): void {
    const { torn, choices } = options;
    this.#generation += 1;
    if (torn !== undefined) this.#keepSomeNames((changes) => torn.below(changes + 1));
    if (choices !== undefined) this.#keepSomeNames((changes) => choices.choose(changes + 1));
    this.#choices = choices;
    this.#nameChanges = [];
    this.#directories = new Set(this.#durableDirectories);
    this.#names = new Map(
      [...this.#durableNames].filter(([path]) => this.#directories.has(directoryOf(path))),
    );
    this.#durableNames = new Map(this.#names);
    for (const inode of new Set(this.#names.values()))
      if (choices === undefined) inode.crash(torn);
      else inode.crashUndecided();
  }

  /** The same disk again, in the same state; files that are open here are not open there. */
  copy(): MemoryDisk {
    const copy = new MemoryDisk({ capacityBytes: this.capacityBytes });
    const copies = new Map<Inode, Inode>();
    const copyOf = <T extends Inode | undefined>(inode: T): T => {
      if (inode === undefined) return inode;
      const made = copies.get(inode) ?? inode.copy();
      copies.set(inode, made);
      return made as T;
    };
    const copyMap = <T extends Inode | undefined>(names: Map<string, T>) =>
      new Map([...names].map(([name, inode]) => [name, copyOf(inode)]));
    copy.#names = copyMap(this.#names);
    copy.#durableNames = copyMap(this.#durableNames);
    copy.#directories = new Set(this.#directories);
    copy.#durableDirectories = new Set(this.#durableDirectories);
    copy.#nameChanges = this.#nameChanges.map(({ directory, after }) => ({
      directory,
      after: copyMap(after),
    }));
    copy.#choices = this.#choices;
    return copy;
  }

  /** All that can make a difference later on, piece by piece: disks of the same essence behave alike. */
  *essence(): Generator<string | Uint8Array> {
    const numbers = new Map<Inode, number>();
    const found: Inode[] = [];
    const numberOf = (inode: Inode | undefined): string => {
      if (inode === undefined) return '-';
      if (!numbers.has(inode)) numbers.set(inode, found.push(inode));
      return String(numbers.get(inode));
    };
    const describe = (names: Map<string, Inode | undefined>) =>
      [...names].map(([name, inode]) => `${name}=${numberOf(inode)}`).join();
    yield `${describe(this.#names)};${describe(this.#durableNames)}`;
    yield `${[...this.#directories].join()};${[...this.#durableDirectories].join()}`;
    for (const { directory, after } of this.#nameChanges) yield `${directory}:${describe(after)}`;
    for (const inode of found) yield* inode.essence();
  }

  async open(path: string, mode: Parameters<Disk['open']>[1]): Promise<DiskFile> {
    this.#begin('open', path);
    checkPath(path);
    let inode = this.#names.get(path);
    if (inode === undefined) {
      if (mode === 'read' || mode === 'readWrite')
        throw new FarshoreError('ENOENT', `${path} does not exist`);
      if (!this.#directories.has(directoryOf(path)))
        throw new FarshoreError('ENOENT', `the directory of ${path} does not exist`);
      inode = new Inode();
      this.#rename(path, new Map([[path, inode]]));
    } else if (mode === 'createExclusive')
      throw new FarshoreError('EEXIST', `${path} exists already`);
    this.counts.open += 1;
    return this.#file(path, inode, mode !== 'read');
  }

  async list(directory: string): Promise<string[]> {
    const prefix = directory === '' || directory === '.' ? '' : `${directory}/`;
    const names = new Set<string>();
    for (const path of [...this.#names.keys(), ...this.#directories])
      if (path !== '.' && path.startsWith(prefix))
        names.add(path.slice(prefix.length).split('/')[0] ?? '');
    return [...names];
  }

  async makeDirectory(path: string): Promise<void> {
    checkPath(path);
    for (let made = path; made !== '.'; made = directoryOf(made)) this.#directories.add(made);
  }

  async rename(names: { from: string; to: string }): Promise<void> {
    this.#begin('rename', names.from);
    checkPath(names.from);
    checkPath(names.to);
    const inode = this.#names.get(names.from);
    if (inode === undefined || !this.#directories.has(directoryOf(names.to)))
      throw new FarshoreError(
        'ENOENT',
        `${names.from} or the directory of ${names.to} is not there`,
      );
    const after = new Map<string, Inode | undefined>([
      [names.from, undefined],
      [names.to, inode],
    ]);
    this.#rename(names.to, after);
    this.counts.rename += 1;
  }

  async remove(path: string): Promise<void> {
    this.#begin('remove', path);
    checkPath(path);
    if (this.#names.has(path)) this.#rename(path, new Map([[path, undefined]]));
    this.counts.remove += 1;
  }

  async syncDirectory(path: string): Promise<void> {
    this.#begin('syncDirectory', path);
    const directory = path === '' ? '.' : path;
    for (const name of this.#durableNames.keys())
      if (directoryOf(name) === directory && !this.#names.has(name))
        this.#durableNames.delete(name);
    for (const [name, inode] of this.#names)
      if (directoryOf(name) === directory) this.#durableNames.set(name, inode);
    for (const name of this.#directories)
      if (directoryOf(name) === directory) this.#durableDirectories.add(name);
    this.#nameChanges = this.#nameChanges.filter((change) => change.directory !== directory);
    this.counts.syncDirectory += 1;
  }

  /** Every file's path and size, in order. */
  files(): { path: string; size: number }[] {
    return [...this.#names]
      .map(([path, { size }]) => ({ path, size }))
      .sort((a, b) => (a.path < b.path ? -1 : 1));
  }

  /** A bit rots. */
  flipBit(path: string, at: { offset: number; bit: number }): void {
    const inode = this.#names.get(path);
    if (inode === undefined || at.offset >= inode.size) return;
    inode.bytes[at.offset] = (inode.bytes[at.offset] ?? 0) ^ (1 << at.bit);
  }

  #rename(path: string, after: NameChange['after']): void {
    for (const [name, inode] of after)
      if (inode === undefined) this.#names.delete(name);
      else this.#names.set(name, inode);
    this.#nameChanges.push({ directory: directoryOf(path), after });
  }

  /** Of each directory's changes a first part, as long as `howMany` says. */
  #keepSomeNames(howMany: (changes: number) => number): void {
    for (const directory of new Set(this.#nameChanges.map((change) => change.directory))) {
      const changes = this.#nameChanges.filter((change) => change.directory === directory);
      for (const { after } of changes.slice(0, howMany(changes.length)))
        for (const [name, inode] of after)
          if (inode === undefined) this.#durableNames.delete(name);
          else this.#durableNames.set(name, inode);
    }
  }

  async freeBytes(): Promise<number> {
    return Math.max(0, this.capacityBytes - this.#used());
  }

  async totalBytes(): Promise<number> {
    return this.capacityBytes;
  }

  #used(): number {
    let used = 0;
    for (const inode of this.#names.values()) used += inode.size;
    return used;
  }

  #begin(operation: DiskOperation, path: string): void {
    const error = this.fault?.(operation, path);
    if (error !== undefined) throw error;
  }

  #file(path: string, inode: Inode, writable: boolean): DiskFile {
    const generation = this.#generation;
    let open = true;
    const begin = (operation: DiskOperation) => {
      if (!open || generation !== this.#generation)
        throw new FarshoreError('EBADF', `${path} is not open`);
      this.#begin(operation, path);
    };
    const change = (offset: number, bytes: Uint8Array, size: number) => {
      if (!writable) throw new FarshoreError('EBADF', `${path} is open for reading`);
      if (this.#used() + size - inode.size > this.capacityBytes)
        throw new FarshoreError('ENOSPC', `no space left on device for ${path}`);
      inode.change(offset, bytes, size);
    };
    return {
      read: async (into, offset) => {
        begin('read');
        inode.decide(this.#choices);
        const source = inode.bytes.subarray(offset, Math.min(offset + into.length, inode.size));
        into.set(source);
        this.counts.read += 1;
        return source.length;
      },
      write: async (bytes, offset) => {
        begin('write');
        inode.decide(this.#choices);
        change(offset, bytes, Math.max(inode.size, offset + bytes.length));
        this.counts.write += 1;
      },
      sync: async () => {
        try {
          begin('sync');
        } catch (error) {
          inode.syncFailed();
          throw error;
        }
        inode.synced();
        this.counts.sync += 1;
      },
      truncate: async (size) => {
        begin('truncate');
        if (size === 0) inode.forgetUndecided();
        inode.decide(this.#choices);
        change(size, new Uint8Array(Math.max(0, inode.size - size)), Math.max(size, inode.size));
        change(0, new Uint8Array(0), size);
        this.counts.truncate += 1;
      },
      size: async () => {
        begin('read');
        inode.decide(this.#choices);
        return inode.size;
      },
      close: async () => {
        open = false;
      },
    };
  }
}

function directoryOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash === -1 ? '.' : path.slice(0, slash);
}

function checkPath(path: string): void {
  if (path === '' || path.startsWith('/') || path.split('/').includes('..'))
    throw new FarshoreError(
      'DiskPathOutside',
      `path ${JSON.stringify(path)} leaves the disk's root`,
    );
}
