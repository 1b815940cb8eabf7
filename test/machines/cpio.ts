/**
 * An initramfs archive: cpio "newc" entries, gzip'd.
 *
 * Entry: "070701", 13 fields of 8 hex digits (inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and
 * minor, name length with its NUL, check), the name, then the content, each padded to 4 bytes; "TRAILER!!!" ends it.
 */
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

export type InitramfsEntry =
  | { path: string; file: string | Uint8Array; executable?: boolean }
  | { path: string; directory: true }
  | { path: string; link: string };

/** Entries in order; a directory comes before what it holds. `file` is a path to read, or the bytes. */
export function initramfs(entries: readonly InitramfsEntry[]): Buffer {
  const parts = entries.map((entry, index) => {
    if ('directory' in entry) return cpioEntry(index + 1, 0o040755, entry.path, Buffer.alloc(0));
    if ('link' in entry) return cpioEntry(index + 1, 0o120777, entry.path, Buffer.from(entry.link));
    const content = typeof entry.file === 'string' ? readFileSync(entry.file) : entry.file;
    return cpioEntry(
      index + 1,
      entry.executable === true ? 0o100755 : 0o100644,
      entry.path,
      content,
    );
  });
  return gzipSync(Buffer.concat([...parts, cpioEntry(0, 0, 'TRAILER!!!', Buffer.alloc(0))]), {
    level: 6,
  });
}

function cpioEntry(inode: number, mode: number, name: string, content: Uint8Array): Buffer {
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(Buffer.from(content))]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
