/**
 * Processes that stand for other machines, beside the one whose work is measured: they get the processors only when nobody here wants
 * them, and their files take nothing from its disks.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const MEMORY = '/dev/shm';
const LEAST = 19;

/** The processes must be leaders of sessions of their own: where the scheduler groups by session, whole groups share the processors first. */
export function stepAside(pids: readonly number[], aside: boolean): void {
  for (const pid of pids) {
    execFileSync('chrt', [aside ? '--idle' : '--other', '--all-tasks', '--pid', '0', `${pid}`], {
      stdio: 'ignore',
    });
    const autogroup = `/proc/${pid}/autogroup`;
    if (existsSync(autogroup)) writeFileSync(autogroup, `${aside ? LEAST : 0}`);
  }
}

/** A directory in memory. */
export function memoryDirectory(): { directory: string; remove(): void } {
  const directory = mkdtempSync(path.join(MEMORY, 'farshore-bench-'));
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) };
}
