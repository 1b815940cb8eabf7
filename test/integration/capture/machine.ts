/** A source machine for capture tests: loop devices, what is on them, and everything cleaned up again. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

export function sh(command: string): string {
  return execFileSync('bash', ['-c', command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

export function requireRoot(): void {
  if (process.getuid?.() !== 0)
    throw new Error('These tests need root: they make loop devices, mounts and tracing instances.');
}

export class LoopMachine {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'farshore-capture-'));
  readonly #undo: (() => void)[] = [];
  readonly #children: ChildProcess[] = [];

  /** A loop device over a new image. */
  disk(name: string, sizeBytes: number): { device: string; image: string } {
    const image = path.join(this.directory, `${name}.img`);
    sh(`truncate -s ${sizeBytes} ${image}`);
    const device = sh(`losetup --direct-io=on -f --show ${image}`);
    this.#undo.push(() => sh(`losetup -d ${device}`));
    return { device, image };
  }

  /** Makes a filesystem and mounts it. */
  mount(
    device: string,
    options: { filesystem?: string; name?: string; mountOptions?: string } = {},
  ): string {
    const {
      filesystem = 'ext4',
      name = path.basename(device),
      mountOptions = 'defaults',
    } = options;
    const quiet = filesystem === 'xfs' ? '-q -f' : filesystem === 'ext4' ? '-q -F' : '';
    sh(`mkfs.${filesystem} ${quiet} ${device} >/dev/null`);
    const mountPoint = path.join(this.directory, `mnt-${name}`);
    mkdirSync(mountPoint);
    sh(`mount -o ${mountOptions} ${device} ${mountPoint}`);
    this.#undo.push(() => {
      try {
        sh(`fsfreeze -u ${mountPoint} 2>/dev/null || true`);
      } finally {
        sh(
          `umount ${mountPoint} || { sleep 1; umount ${mountPoint}; } || { sleep 3; umount -l ${mountPoint}; }`,
        );
      }
    });
    return mountPoint;
  }

  /** A program in the background, in a process group of its own. */
  run(command: string): ChildProcess {
    const child = spawn('bash', ['-c', command], { detached: true, stdio: 'ignore' });
    this.#children.push(child);
    return child;
  }

  async stopWorkload(): Promise<void> {
    for (const child of this.#children.splice(0)) {
      const ended =
        child.exitCode !== null || child.signalCode !== null
          ? Promise.resolve()
          : new Promise<void>((resolve) => child.once('exit', () => resolve()));
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
      await ended;
    }
  }

  onCleanUp(undo: () => void): void {
    this.#undo.push(undo);
  }

  async cleanUp(): Promise<void> {
    const problems: unknown[] = [];
    for (const undo of [() => undefined, ...this.#undo].reverse())
      try {
        await this.stopWorkload();
        undo();
      } catch (error) {
        problems.push(error);
      }
    rmSync(this.directory, { recursive: true, force: true });
    if (problems.length > 0) throw new AggregateError(problems, 'not everything was cleaned up');
  }
}
