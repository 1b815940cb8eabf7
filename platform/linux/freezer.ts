import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { FreezeError } from '../deviceErrors.ts';
import { errorMessage } from '../errors.ts';
import type { Clock, FilesystemFreezer, FreezePlan } from '../ports.ts';
import { freezeOrder, isFreezable, mountedFilesystems } from './mounts.ts';
import { raidRecordsOn } from './raid.ts';
import { swapOn } from './swap.ts';
import { sysfs } from './sysfs.ts';
import { Watchdog } from './watchdog.ts';

const run = promisify(execFile);

/** Freezes with util-linux's fsfreeze, one watchdog process a filesystem (watchdog.ts). */
export class LinuxFreezer implements FilesystemFreezer {
  readonly #clock: Clock;
  /** In the order of freezing. */
  #watchdogs: Watchdog[] = [];
  #frozen: Watchdog[] = [];
  #held: string[] = [];
  #doubtful: string[] = [];
  #frozenAt = 0;

  constructor(options: { clock: Clock }) {
    this.#clock = options.clock;
  }

  async plan(devicePaths: readonly string[]): Promise<FreezePlan> {
    const paths = new Map(devicePaths.map((path) => [sysfs.kernelNameOf(path), path]));
    const mounts = freezeOrder(mountedFilesystems(), [...paths.keys()]);
    return {
      mounts: mounts.map(({ mountPoint, filesystem, source }) => ({
        mountPoint,
        filesystem,
        source,
        freezable: isFreezable(filesystem),
      })),
      swap: swapOn(paths),
      raidRecords: raidRecordsOn(sysfs, paths),
    };
  }

  async sync(plan: FreezePlan): Promise<void> {
    for (const mount of plan.mounts) {
      try {
        await run('sync', ['-f', mount.mountPoint]);
      } catch (cause) {
        throw new FreezeError(
          `The filesystem at ${mount.mountPoint} can't be synced: ${errorMessage(cause).trim()}. Look at the kernel log; a barrier is tried again later.`,
          { cause },
        );
      }
    }
  }

  async prepare(plan: FreezePlan): Promise<void> {
    this.#releaseAll();
    this.#watchdogs = plan.mounts
      .filter((mount) => mount.freezable)
      .map((mount) => new Watchdog(mount.mountPoint));
    const answers = await Promise.all(this.#watchdogs.map((watchdog) => watchdog.ready()));
    const failed = answers.find(({ word }) => word !== 'ready');
    if (failed === undefined) return;
    this.#releaseAll();
    throw new FreezeError(
      `A watchdog could not be started, and nothing is frozen without one: ${failed.detail}.`,
    );
  }

  async freeze(plan: FreezePlan, options: { deadlineMs: number }): Promise<void> {
    if (!this.#matches(plan)) await this.prepare(plan);
    this.#frozenAt = this.#clock.monotonic();
    for (const watchdog of this.#watchdogs) {
      const left = options.deadlineMs - (this.#clock.monotonic() - this.#frozenAt);
      const answer = await watchdog.freeze({ deadlineMs: left });
      if (answer.word === 'frozen') {
        this.#frozen.push(watchdog);
        continue;
      }
      await this.thaw(plan);
      throw new FreezeError(
        `The filesystem at ${watchdog.mountPoint} can't be frozen: ${answer.detail || answer.word}. Everything was thawed again; a barrier is tried again later.`,
      );
    }
  }

  async thaw(_plan: FreezePlan): Promise<{ frozenForMs: number; void: string[] }> {
    const undone: string[] = [];
    const wasFrozen = this.#frozen.length > 0 || this.#held.length > 0;
    // From the bottom up: thawing writes, and a filesystem that is still frozen below would keep that waiting.
    for (const watchdog of this.#frozen.reverse()) {
      const answer = await watchdog.thaw();
      if (answer.word !== 'thawed' || answer.detail !== 'thaw') undone.push(watchdog.mountPoint);
    }
    for (const mountPoint of this.#held.reverse()) {
      try {
        await run('fsfreeze', ['-u', mountPoint]);
      } catch {
        undone.push(mountPoint);
      }
    }
    for (const mountPoint of this.#doubtful.reverse())
      await run('fsfreeze', ['-u', mountPoint]).catch(() => undefined);
    this.#doubtful = [];
    this.#held = [];
    this.#frozen = [];
    this.#releaseAll();
    return {
      frozenForMs: wasFrozen ? this.#clock.monotonic() - this.#frozenAt : 0,
      void: undone,
    };
  }

  async check(_plan: FreezePlan): Promise<{ void: string[] }> {
    const undone: string[] = [];
    for (const watchdog of this.#frozen)
      if ((await watchdog.check()).word !== 'frozen') undone.push(watchdog.mountPoint);
    return { void: undone };
  }

  async hold(_plan: FreezePlan): Promise<{ void: string[] }> {
    const undone: string[] = [];
    for (const watchdog of this.#frozen) {
      const answer = await watchdog.hold();
      if (answer.word === 'held') this.#held.push(watchdog.mountPoint);
      else undone.push(watchdog.mountPoint);
    }
    // It may be that it could not be told: nobody watches over them any more, so the thaw that follows sees to them too.
    this.#doubtful = [...undone];
    this.#frozen = [];
    this.#watchdogs = [];
    return { void: undone };
  }

  held(): string[] {
    return [...this.#held];
  }

  adoptHeld(mountPoints: readonly string[]): void {
    this.#held = [...mountPoints];
  }

  #matches(plan: FreezePlan): boolean {
    const wanted = plan.mounts.filter((mount) => mount.freezable).map((mount) => mount.mountPoint);
    return (
      wanted.length === this.#watchdogs.length &&
      wanted.every((mountPoint, index) => this.#watchdogs[index]?.mountPoint === mountPoint)
    );
  }

  #releaseAll(): void {
    for (const watchdog of this.#watchdogs) watchdog.release();
    this.#watchdogs = [];
    this.#frozen = [];
  }
}
