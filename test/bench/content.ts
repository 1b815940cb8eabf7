/** What benchmarks fill disks with. */
import { randomFillSync } from 'node:crypto';
import { closeSync, type Dirent, openSync, readdirSync, readSync, writeSync } from 'node:fs';
import path from 'node:path';

const MIB = 1 << 20;
/** A machine's text and binaries. */
const MACHINE_DIRECTORIES = ['/usr/bin', '/usr/lib', '/usr/share'];
/** Of one kind of data before the other follows. */
const RUN_BYTES = 16 * MIB;

/** Fills the first `bytes` of an image with incompressible data. */
export function fillWithNoise(image: string, bytes: number): void {
  fill(image, bytes, [randomFillSync]);
}

/** Fills the first `bytes` of an image: half text and binaries of this machine, half random, 16 MiB of each in turn. */
export function fillHalfAndHalf(image: string, bytes: number): void {
  const files = new MachineFiles();
  try {
    fill(image, bytes, [(buffer) => files.fill(buffer), randomFillSync]);
  } finally {
    files.close();
  }
}

function fill(image: string, bytes: number, kinds: readonly ((buffer: Buffer) => unknown)[]): void {
  const file = openSync(image, 'r+');
  const buffer = Buffer.allocUnsafeSlow(RUN_BYTES);
  try {
    for (let offset = 0, run = 0; offset < bytes; offset += buffer.length, run += 1) {
      kinds[run % kinds.length]?.(buffer);
      writeSync(file, buffer, 0, Math.min(buffer.length, bytes - offset), offset);
    }
  } finally {
    closeSync(file);
  }
}

/** The bytes of this machine's files one after the other, by name; from the beginning again when there are no more. */
class MachineFiles {
  #files = walk(MACHINE_DIRECTORIES);
  #open: number | undefined;

  fill(buffer: Buffer): void {
    for (let filled = 0; filled < buffer.length; ) {
      const file = this.#file();
      const count = readSync(file, buffer, filled, buffer.length - filled, null);
      filled += count;
      if (count === 0) this.close();
    }
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open);
    this.#open = undefined;
  }

  #file(): number {
    if (this.#open !== undefined) return this.#open;
    const next = this.#files.next();
    if (next.done === true) this.#files = walk(MACHINE_DIRECTORIES);
    this.#open = openSync(next.done === true ? process.execPath : next.value, 'r');
    return this.#open;
  }
}

function* walk(directories: readonly string[]): Generator<string> {
  for (const directory of directories) {
    const entries: Dirent[] = readdirSync(directory, { withFileTypes: true });
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const entry of entries) {
      const found = path.join(directory, entry.name);
      if (entry.isDirectory()) yield* walk([found]);
      else if (entry.isFile()) yield found;
    }
  }
}
