/** The volume of a process server's cache: a small filesystem of its own, which can be filled and wiped. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Undo } from '../../hack/demonstration/undo.ts';

/** In the volume, beside the cache. */
const BALLAST = 'ballast';
const FILL_TRIES = 10;
const LEFT_FREE_BYTES = 256 << 10;

export class CacheVolume {
  readonly #mountPoint: string;

  constructor(options: { folder: string; name: string; mib: number; undo: Undo }) {
    const { folder, name, mib, undo } = options;
    const image = path.join(folder, `${name}-cache.img`);
    this.#mountPoint = path.join(folder, `${name}-volume`);
    writeFileSync(image, '');
    truncateSync(image, mib << 20);
    execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', image], { stdio: 'pipe' });
    mkdirSync(this.#mountPoint);
    execFileSync('mount', ['-o', 'loop', image, this.#mountPoint], { stdio: 'pipe' });
    undo.add(`unmount ${this.#mountPoint}`, () => {
      execFileSync('umount', [this.#mountPoint], { stdio: 'pipe' });
    });
  }

  /** Where the process server keeps its cache. */
  get directory(): string {
    return path.join(this.#mountPoint, 'cache');
  }

  /** As if the claim was deleted, and a new volume made. Nobody may use it. */
  wipe(): void {
    for (const entry of readdirSync(this.#mountPoint))
      if (entry !== 'lost+found')
        rmSync(path.join(this.#mountPoint, entry), { recursive: true, force: true });
  }

  /** Leaves next to nothing free. The process server writes on meanwhile, so what was free may not be any more. */
  fill(): void {
    const ballast = path.join(this.#mountPoint, BALLAST);
    for (let tries = 1; ; tries += 1) {
      const { bavail, bsize } = statfsSync(this.#mountPoint);
      const bytes = bavail * bsize - LEFT_FREE_BYTES;
      if (bytes <= 0) return;
      try {
        execFileSync('fallocate', ['-l', String(bytes), ballast], { stdio: 'pipe' });
        return;
      } catch (error) {
        this.relieve();
        if (tries === FILL_TRIES) throw error;
      }
    }
  }

  relieve(): void {
    rmSync(path.join(this.#mountPoint, BALLAST), { force: true });
  }
}
