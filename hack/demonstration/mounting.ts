/** Filesystems of the machine's disks, mounted here. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs';

/** Mounts whichever of the devices holds the largest filesystem that this kernel can write to; undefined when none does. */
export function mountLargest(devices: readonly string[], mountPoint: string): string | undefined {
  mkdirSync(mountPoint, { recursive: true });
  return devices
    .map((device) => ({ device, size: sizeOf(device) }))
    .sort((a, b) => b.size - a.size)
    .find(({ device }) => mountForWriting(device, mountPoint))?.device;
}

/** Succeeds when nothing is mounted there. Ends whatever still uses it. */
export function unmount(mountPoint: string): void {
  if (!isMounted(mountPoint)) return;
  try {
    execFileSync('fsfreeze', ['-u', mountPoint], { stdio: 'pipe' });
  } catch {
    // It was not frozen.
  }
  endUsers(mountPoint);
  execFileSync('sh', ['-c', 'umount "$0" || { sleep 1; umount "$0"; }', mountPoint], {
    stdio: 'pipe',
  });
}

/** Kills whatever has a file open on the filesystem that is mounted there. */
export function endUsers(mountPoint: string): void {
  // Where nothing is mounted, -m would mean the filesystem of the folder.
  if (!isMounted(mountPoint)) return;
  execFileSync('sh', ['-c', 'fuser -k -9 -m "$0" >/dev/null 2>&1; true', mountPoint]);
}

function mountForWriting(device: string, mountPoint: string): boolean {
  // XFS refuses a second filesystem of the same id: another demonstration may have mounted another copy of the image.
  const options = typeOf(device) === 'xfs' ? ['-o', 'nouuid'] : [];
  try {
    execFileSync('mount', [...options, device, mountPoint], { stdio: 'pipe' });
  } catch {
    // No filesystem, or one this kernel has no driver for: the next one may do.
    return false;
  }
  try {
    accessSync(mountPoint, constants.W_OK);
    return true;
  } catch {
    execFileSync('umount', [mountPoint], { stdio: 'pipe' });
    return false;
  }
}

function typeOf(device: string): string {
  try {
    return execFileSync('blkid', ['-p', '-o', 'value', '-s', 'TYPE', device], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    }).trim();
  } catch {
    return '';
  }
}

function sizeOf(device: string): number {
  return Number(execFileSync('blockdev', ['--getsize64', device], { encoding: 'utf8' }));
}

function isMounted(mountPoint: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${mountPoint} `);
}
