/** A source machine: loop devices with filesystems under fio, and a program that tells how long its writes were held up. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { unmount } from '../../hack/demonstration/mounting.ts';
import { type Running, start } from '../../hack/demonstration/process.ts';
import type { Undo } from '../../hack/demonstration/undo.ts';
import { startCounter } from '../fixtures/writeCounter.ts';
import { attach, detach } from '../machines/loopDevice.ts';

const SECTOR_BYTES = 512;
const PROBE_EVERY_MS = 50;

export interface Disk {
  name: string;
  device: string;
  image: string;
  sizeBytes: number;
}

export class SourceMachine {
  readonly name: string;
  readonly disks: readonly Disk[];
  readonly #mounts: readonly string[];
  readonly #loads: Running[] = [];
  #probe: ReturnType<typeof startCounter> | undefined;

  private constructor(name: string, disks: readonly Disk[], mounts: readonly string[]) {
    this.name = name;
    this.disks = disks;
    this.#mounts = mounts;
  }

  static async make(options: {
    name: string;
    disksMiB: readonly number[];
    folder: string;
    undo: Undo;
  }): Promise<SourceMachine> {
    const { name, disksMiB, folder, undo } = options;
    mkdirSync(folder, { recursive: true });
    const disks: Disk[] = [];
    const mounts: string[] = [];
    for (const [index, mib] of disksMiB.entries()) {
      const disk = index === 0 ? 'system' : `data${index}`;
      const image = path.join(folder, `${disk}.raw`);
      execFileSync('truncate', ['-s', `${mib}M`, image]);
      const loop = await attach(image);
      const { device } = loop;
      undo.add(`detach ${device}`, () => detach(loop));
      // In the units that are traced and sent: a smaller block would have a write touch more than it wrote.
      execFileSync('mkfs.ext4', ['-q', '-F', '-b', '4096', device], { stdio: 'pipe' });
      const mount = path.join(folder, `${disk}-mnt`);
      mkdirSync(mount);
      undo.add(`unmount ${mount}`, () => unmount(mount));
      execFileSync('mount', [device, mount], { stdio: 'pipe' });
      disks.push({ name: disk, device, image, sizeBytes: mib << 20 });
      mounts.push(mount);
    }
    return new SourceMachine(name, disks, mounts);
  }

  /** Writes without end to every disk: directly and through the page cache, in small pieces and larger ones. */
  load(options: { logs: string; undo: Undo; seed: number }): void {
    const { logs, undo, seed } = options;
    for (const [index, mount] of this.#mounts.entries()) {
      const fileMiB = Math.floor((this.disks[index]?.sizeBytes ?? 0) / (1 << 20) / 4);
      const common = [
        ...['--thread', '--time_based', '--runtime=10d', '--ioengine=psync', '--output=/dev/null'],
        ...[`--directory=${mount}`, `--size=${fileMiB}m`, `--randseed=${seed + index}`],
      ];
      const direct = ['--name=direct', '--rw=randwrite', '--direct=1', '--rate_iops=40'];
      const cached = ['--name=cached', '--rw=randwrite', '--fsync=32', '--rate_iops=30'];
      const sizes = ['--bssplit=4k/70:16k/20:64k/10'];
      const running = start({
        name: `fio-${this.name}-${index}`,
        command: [
          ...['setpriv', '--pdeathsig', 'KILL', 'fio', ...common],
          ...[...direct, ...sizes, ...cached, ...sizes],
        ],
        logs,
      });
      undo.add(`stop ${running.name}`, () => running.kill());
      this.#loads.push(running);
    }
    this.#probe = startCounter(
      this.#mounts.map((mount) => path.join(mount, 'probe')),
      { everyMs: PROBE_EVERY_MS },
    );
    undo.add(`stop the probe of ${this.name}`, () => this.#probe?.end());
  }

  get loadIsRunning(): boolean {
    return this.#loads.every((one) => one.alive());
  }

  /** Bytes written to all disks since they were attached. */
  writtenBytes(): number {
    return this.disks.reduce((sum, { device }) => {
      const stat = readFileSync(`/sys/block/${path.basename(device)}/stat`, 'utf8').trim();
      return sum + Number(stat.split(/\s+/)[6]) * SECTOR_BYTES;
    }, 0);
  }

  /** Ends all writing for good; resolves with the longest that a write was held up, ms. */
  async rest(): Promise<number> {
    const seen = await this.#probe?.stop();
    this.#probe = undefined;
    for (const one of this.#loads) await one.kill();
    for (const mount of this.#mounts) unmount(mount);
    for (const { device } of this.disks)
      execFileSync('blockdev', ['--flushbufs', device], { stdio: 'pipe' });
    return seen?.slowest ?? 0;
  }
}
