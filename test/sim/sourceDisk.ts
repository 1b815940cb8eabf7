/**
 * A block device of a source machine, with what its kernel counts and traces.
 *
 * Fault model. A write takes time: its content may be seen by readers before it completes, never after; it completes, is traced, and is
 * counted a moment later, in that order. Reads take time and see each part as it is at some moment of it. The device may be exchanged behind its
 * name, and a read may fail with EIO. Writes past the filesystem (raw) may come while it is frozen. Passes test/conformance/blockDevice.ts.
 */
import { BlockDeviceError } from '../../platform/deviceErrors.ts';
import type {
  BlockDevice,
  BlockDeviceIdentity,
  BlockDevices,
  WriteEvent,
} from '../../platform/ports.ts';
import type { Chance } from './chance.ts';
import { forever, type Life } from './life.ts';
import { ReadBuffers } from './readBuffers.ts';

export const LEAF = 65536;
const SECTOR = 512;

/** A disk's content at one moment: a leaf that is undefined is zero. Never changed afterwards. */
export type Image = readonly (Uint8Array | undefined)[];

export class SourceDisk {
  readonly path: string;
  readonly index: number;
  readonly name: string;
  identity: BlockDeviceIdentity;
  /** Sectors that the kernel counts. */
  written = 0;
  discarded = 0;
  inFlight = 0;
  readErrorRate = 0;
  /** What a slow read takes on average. */
  readMs = 2;
  /** What a write takes on average. */
  writeMs = 1.5;
  readonly #chance: Chance;
  #leaves: (Uint8Array | undefined)[];
  /** Leaves that belong to this disk alone, not to an image too. */
  #own = new Set<number>();
  readonly #buffers = new ReadBuffers();

  constructor(options: {
    path: string;
    index: number;
    name: string;
    sizeBytes: number;
    devT: number;
    chance: Chance;
  }) {
    this.path = options.path;
    this.index = options.index;
    this.name = options.name;
    this.#chance = options.chance;
    this.identity = { devT: options.devT, diskSequence: 1n, sizeBytes: options.sizeBytes };
    this.#leaves = new Array(Math.ceil(options.sizeBytes / LEAF));
  }

  get sizeBytes(): number {
    return this.identity.sizeBytes;
  }

  /** The run is over. */
  end(): void {
    this.#buffers.release();
  }

  image(): Image {
    this.#own.clear();
    return [...this.#leaves];
  }

  /** Back to what it was. */
  restore(image: Image): void {
    this.#leaves = [...image];
    this.#own.clear();
  }

  put(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const leaf = Math.floor(at / LEAF);
      const within = at - leaf * LEAF;
      const length = Math.min(LEAF - within, bytes.length - done);
      this.#ownLeaf(leaf).set(bytes.subarray(done, done + length), within);
      done += length;
    }
  }

  get(into: Uint8Array, offset: number): number {
    const length = Math.max(0, Math.min(into.length, this.sizeBytes - offset));
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const leaf = Math.floor(at / LEAF);
      const within = at - leaf * LEAF;
      const part = Math.min(LEAF - within, length - done);
      const content = this.#leaves[leaf];
      if (content === undefined) into.fill(0, done, done + part);
      else into.set(content.subarray(within, within + part), done);
      done += part;
    }
    return length;
  }

  /** As an agent's process sees it. */
  openFor(life: Life): BlockDevice {
    const chance = this.#chance;
    return {
      path: this.path,
      multiRangeDiscards: false,
      identity: async () => (life.dead ? await forever() : this.identity),
      read: async (into, offset) => {
        if (life.dead) return await forever();
        if (offset % SECTOR !== 0 || into.length % SECTOR !== 0)
          throw new BlockDeviceError('DiskReadFailed', this.path, 'invalid argument');
        // A device takes its time, and hands over one part of it as it is now, the rest as it is then.
        this.#buffers.wrote(into);
        const slow = chance.chance(0.3);
        const now = slow ? SECTOR * chance.below(into.length / SECTOR + 1) : 0;
        this.get(into.subarray(0, now), offset);
        if (slow) await life.sleep(chance.about(this.readMs));
        if (this.readErrorRate > 0 && chance.chance(this.readErrorRate))
          throw new BlockDeviceError('DiskReadFailed', this.path, 'input/output error');
        const rest = this.get(into.subarray(now), offset + now);
        const left = Math.max(0, this.sizeBytes - offset);
        return Math.min(into.length, rest === 0 ? left : now + rest);
      },
      alignedBuffer: (size) => this.#buffers.take(size),
      writtenSectors: async () => {
        if (life.dead) return await forever();
        return { written: this.written, discarded: this.discarded };
      },
      writesInFlight: async () => (life.dead ? await forever() : this.inFlight),
      close: async () => undefined,
    };
  }

  /** A request completed a moment ago. */
  count(length: number, kind: WriteEvent['kind']): void {
    if (kind === 'discard') this.discarded += length / SECTOR;
    else this.written += length / SECTOR;
  }

  event(offset: number, length: number, kind: WriteEvent['kind']): WriteEvent {
    const { devT } = this.identity;
    return {
      devT,
      sector: offset / SECTOR,
      sectorCount: length / SECTOR,
      kind,
      counted: true,
    };
  }

  #ownLeaf(leaf: number): Uint8Array {
    const present = this.#leaves[leaf];
    if (present !== undefined && this.#own.has(leaf)) return present;
    const made = present === undefined ? new Uint8Array(LEAF) : present.slice();
    this.#leaves[leaf] = made;
    this.#own.add(leaf);
    return made;
  }
}

/** As an agent's process opens them, by their paths. */
export function blockDevicesFor(disks: readonly SourceDisk[], life: Life): BlockDevices {
  return {
    open: async (path) => {
      if (life.dead) return await forever();
      const disk = disks.find((one) => one.path === path);
      if (disk === undefined)
        throw new BlockDeviceError('DiskNotFound', path, `${path} can't be found`);
      return disk.openFor(life);
    },
  };
}
