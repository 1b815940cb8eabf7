import { mkdtempSync, rmSync } from 'node:fs';

/** A directory in memory, for what stands for another machine and must take nothing from this one's disks. */
export function memoryDirectory(): { directory: string; remove(): void } {
  const directory = mkdtempSync('/dev/shm/farshore-bench-');
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) };
}
