import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { errorCode, FarshoreError } from '../errors.ts';
import type { Disk, DiskFile } from '../ports.ts';

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_DIRECTORY } = constants;
const MODES = {
  read: O_RDONLY,
  readWrite: O_RDWR,
  create: O_RDWR | O_CREAT,
  createExclusive: O_RDWR | O_CREAT | O_EXCL,
} as const;

/** The tree under `root`, which must exist. Paths that leave it, or that end in a symbolic link, are refused. */
export function openDisk(root: string): Disk {
  const absolute = path.resolve(root);
  const within = (relative: string): string => {
    const target = path.resolve(absolute, relative);
    const outside = target !== absolute && !target.startsWith(`${absolute}${path.sep}`);
    if (outside || path.isAbsolute(relative) || relative.includes('\0'))
      throw new FarshoreError(
        'DiskPathOutside',
        `Path ${JSON.stringify(relative)} leaves ${absolute}; nothing was touched.`,
      );
    return target;
  };
  return {
    open: async (file, mode) =>
      new NodeDiskFile(await open(within(file), MODES[mode] | O_NOFOLLOW, 0o600)),
    async list(directory) {
      try {
        return await readdir(within(directory));
      } catch (error) {
        if (errorCode(error) === 'ENOENT') return [];
        throw error;
      }
    },
    async makeDirectory(directory) {
      await mkdir(within(directory), { recursive: true, mode: 0o700 });
    },
    async rename(names) {
      await rename(within(names.from), within(names.to));
    },
    async remove(file) {
      await rm(within(file), { force: true });
    },
    async syncDirectory(directory) {
      const handle = await open(within(directory), O_RDONLY | O_DIRECTORY);
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
    async freeBytes() {
      const stats = await statfs(absolute);
      return stats.bavail * stats.bsize;
    },
    async totalBytes() {
      const stats = await statfs(absolute);
      return stats.blocks * stats.bsize;
    },
  };
}

class NodeDiskFile implements DiskFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await this.#handle.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    while (done < bytes.length) {
      const { bytesWritten } = await this.#handle.write(
        bytes,
        done,
        bytes.length - done,
        offset + done,
      );
      done += bytesWritten;
    }
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async truncate(size: number): Promise<void> {
    await this.#handle.truncate(size);
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
