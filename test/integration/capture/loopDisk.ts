/** A loop device as conformance suites drive it: every write straight to the device, and one that can be kept in flight. */
import { execFileSync } from 'node:child_process';
import { constants, readFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { systemClock } from '../../../platform/node/clock.ts';
import { type ByteRange, type DrivenDisk, eventually } from '../../conformance/drivenDisk.ts';
import { sh } from './machine.ts';

/** Page-aligned. The type comes with the DOM's, which we don't have. */
declare const WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } };
const WASM_PAGE = 65536;

export class LoopDisk implements DrivenDisk {
  readonly path: string;
  readonly image: string;
  readonly #below: string;
  #isHeldUp = false;

  /** `below`: the mount point of the filesystem that its image is in, where nothing else may be written. */
  constructor(options: { device: string; image: string; below: string }) {
    this.path = options.device;
    this.image = options.image;
    this.#below = options.below;
  }

  async write({ offset, length }: ByteRange, value: number): Promise<void> {
    const bytes = aligned(length).fill(value);
    await this.#with(constants.O_WRONLY, (handle) => handle.write(bytes, 0, length, offset));
  }

  async read({ offset, length }: ByteRange): Promise<void> {
    const bytes = aligned(length);
    await this.#with(constants.O_RDONLY, (handle) => handle.read(bytes, 0, length, offset));
  }

  async discard(range: ByteRange): Promise<void> {
    this.#blkdiscard(range);
  }

  async writeZeroes(range: ByteRange): Promise<void> {
    this.#blkdiscard(range, '--zeroout');
  }

  /** The filesystem below is frozen: what the driver has taken stays with it. */
  async beginWrite(range: ByteRange, value: number): Promise<() => Promise<void>> {
    sh(`mountpoint -q ${this.#below} && fsfreeze -f ${this.#below}`);
    this.#isHeldUp = true;
    const written = this.write(range, value);
    try {
      await eventually(systemClock.sleep, () => this.#inFlight() > 0, 'the write is in flight');
    } catch (error) {
      this.letGo();
      await written;
      throw error;
    }
    return async () => {
      this.letGo();
      await written;
    };
  }

  /** Nothing of it is kept in flight any more. Safe to call again. */
  letGo(): void {
    if (!this.#isHeldUp) return;
    this.#isHeldUp = false;
    sh(`fsfreeze -u ${this.#below}`);
  }

  /** As the kernel's own statistics have it, reads included. */
  #inFlight(): number {
    const stat = readFileSync(`/sys/block/${path.basename(this.path)}/stat`, 'utf8');
    return Number(stat.trim().split(/\s+/)[8]);
  }

  #blkdiscard({ offset, length }: ByteRange, ...options: string[]): void {
    const range = ['--offset', String(offset), '--length', String(length)];
    execFileSync('blkdiscard', [...options, ...range, this.path], { stdio: 'pipe' });
  }

  async #with(mode: number, act: (handle: FileHandle) => Promise<unknown>): Promise<void> {
    const handle = await open(this.path, mode | constants.O_DIRECT);
    try {
      await act(handle);
    } finally {
      await handle.close();
    }
  }
}

function aligned(length: number): Uint8Array {
  const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(length / WASM_PAGE) });
  return new Uint8Array(buffer, 0, length);
}
