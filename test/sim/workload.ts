/**
 * The programs of a source machine: they write, discard and write again, in bursts and now and then, over few blocks and many. Every
 * write that is not meant to repeat another is unlike any other.
 */
import type { Chance } from './chance.ts';
import type { Kernel } from './kernel.ts';
import type { SourceDisk } from './sourceDisk.ts';
import { LEAF } from './sourceDisk.ts';
import type { SimTime, Timer } from './time.ts';

const BLOCK = 4096;

export class Workload {
  readonly #time: SimTime;
  readonly #chance: Chance;
  readonly #kernel: Kernel;
  readonly #everyMs: number;
  #timer: Timer | undefined;
  #stamp = 0;
  #hot: number;

  constructor(options: { time: SimTime; chance: Chance; kernel: Kernel; everyMs: number }) {
    this.#time = options.time;
    this.#chance = options.chance;
    this.#kernel = options.kernel;
    this.#everyMs = options.everyMs;
    this.#hot = options.chance.word();
  }

  start(): void {
    this.#timer?.cancel();
    const next = () => {
      this.#timer = this.#time.after(this.#chance.about(this.#everyMs), 'workload', () => {
        this.#writeSome();
        next();
      });
    };
    next();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** The disks are not empty when protection begins. */
  fill(share: number): void {
    for (const disk of this.#kernel.disks)
      for (let offset = 0; offset < disk.sizeBytes; offset += LEAF)
        if (this.#chance.chance(share)) {
          const length = Math.min(LEAF, disk.sizeBytes - offset);
          disk.put(offset, this.#content(length));
        }
  }

  burst(writes: number): void {
    for (let count = 0; count < writes; count += 1) this.#writeSome();
  }

  /** Past the filesystem: also while it is frozen. */
  writeRaw(): void {
    const disk = this.#chance.pick(this.#kernel.disks);
    const offset = this.#place(disk, BLOCK);
    this.#kernel.write(disk, { offset, bytes: this.#content(BLOCK), kind: 'write', raw: true });
  }

  /** One block, so that thousands cost little. */
  writeSmall(): void {
    const disk = this.#chance.pick(this.#kernel.disks);
    const length = Math.min(BLOCK, disk.sizeBytes);
    const offset = this.#place(disk, length);
    this.#kernel.write(disk, { offset, bytes: this.#content(length), kind: 'write' });
  }

  #writeSome(): void {
    const chance = this.#chance;
    const disk = chance.pick(this.#kernel.disks);
    const kind = chance.below(20);
    if (kind === 0) this.#discard(disk);
    else if (kind === 1) this.#sequential(disk);
    else this.#writeOne(disk);
  }

  #writeOne(disk: SourceDisk): void {
    const chance = this.#chance;
    // Mostly blocks, sometimes sectors, which lie across blocks.
    const unit = chance.chance(0.15) ? 512 : BLOCK;
    const most = Math.max(1, Math.min(disk.sizeBytes / unit, chance.chance(0.8) ? 4 : 24));
    const length = unit * chance.whole(1, Math.floor(most));
    const offset = this.#place(disk, length, unit);
    const bytes = chance.chance(0.05) ? new Uint8Array(length) : this.#content(length);
    const sameAgain = chance.chance(0.03);
    if (sameAgain) disk.get(bytes, offset);
    this.#kernel.write(disk, { offset, bytes, kind: 'write' });
  }

  #sequential(disk: SourceDisk): void {
    const length = Math.min(disk.sizeBytes, LEAF * this.#chance.whole(1, 4));
    const offset = this.#place(disk, length);
    for (let done = 0; done < length; done += LEAF / 2) {
      const part = Math.min(LEAF / 2, length - done);
      this.#kernel.write(disk, {
        offset: offset + done,
        bytes: this.#content(part),
        kind: 'write',
      });
    }
  }

  #discard(disk: SourceDisk): void {
    const length = Math.min(
      Math.floor(disk.sizeBytes / BLOCK) * BLOCK,
      BLOCK * this.#chance.whole(1, 40),
    );
    const offset = this.#place(disk, length);
    this.#kernel.write(disk, {
      offset,
      bytes: new Uint8Array(length),
      kind: this.#chance.chance(0.5) ? 'discard' : 'other',
    });
  }

  /** Half of all writes go to the same few places; the first and the last block are favourites. */
  #place(disk: SourceDisk, length: number, unit = BLOCK): number {
    const chance = this.#chance;
    const places = Math.floor((disk.sizeBytes - length) / unit) + 1;
    const which = chance.below(10);
    if (which === 0) return 0;
    if (which === 1) return disk.sizeBytes - length - ((disk.sizeBytes - length) % 512);
    const place = which < 6 ? (this.#hot + chance.below(8)) % places : chance.below(places);
    return place * unit;
  }

  /** Sectors that occur nowhere else. */
  #content(length: number): Uint8Array {
    this.#stamp += 1;
    const bytes = new Uint8Array(length).fill(1 + (this.#stamp % 255));
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < length; at += 512) {
      view.setUint32(at, this.#stamp);
      view.setUint32(at + 4, this.#chance.word());
    }
    return bytes;
  }
}
