/** Small files in a process's own directory that must be whole or not there: replaced by temp, fsync, rename, fsync of the directory. */
import { errorCode } from './errors.ts';
import type { Disk } from './ports.ts';

/** Durable when it resolves; a crash leaves the old one or the new one. Its directory must be there. Calls for one path must not overlap. */
export async function replaceFile(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  await disk.remove(temporary);
  const file = await disk.open(temporary, 'createExclusive');
  try {
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename({ from: temporary, to: path });
  await disk.syncDirectory(directoryOf(path));
}

/** Makes a directory that is missing, durably. */
export async function ensureDirectory(disk: Disk, path: string): Promise<void> {
  await disk.makeDirectory(path);
  await disk.syncDirectory(directoryOf(path));
}

/** The file's bytes; undefined when it does not exist. Throws RangeError when it is longer than `maximum`. */
export async function readFile(
  disk: Disk,
  path: string,
  maximum: number,
): Promise<Uint8Array | undefined> {
  let file: Awaited<ReturnType<Disk['open']>>;
  try {
    file = await disk.open(path, 'read');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const size = await file.size();
    if (size > maximum) throw new RangeError(`${path} has ${size} bytes; ${maximum} is the most`);
    const bytes = new Uint8Array(size);
    const read = await file.read(bytes, 0);
    return bytes.subarray(0, read);
  } finally {
    await file.close();
  }
}

/** Removes a file durably; succeeds when it does not exist. */
export async function removeFile(disk: Disk, path: string): Promise<void> {
  await disk.remove(path);
  await disk.syncDirectory(directoryOf(path));
}

function directoryOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash === -1 ? '.' : path.slice(0, slash);
}
