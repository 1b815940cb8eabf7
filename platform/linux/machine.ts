import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { hostname, release, setPriority } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import type { SourceMachine } from '../ports.ts';
import { SECTOR_SIZE, sysfs } from './sysfs.ts';
import { whyUnprotectable } from './unprotectable.ts';

const BY_ID = '/dev/disk/by-id';
/** A tenth of what a program of the usual priority gets where both want all. */
const YIELDING = 10;

/** `powerOffCommand`: run by a shell instead of turning this machine off; for machines that are only a disk here. */
export function linuxMachine(options: { powerOffCommand?: string } = {}): SourceMachine {
  return {
    async facts() {
      return {
        hostname: hostname(),
        kernel: release(),
        bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      };
    },
    async disks() {
      return sysfs
        .wholeDisks()
        .filter((name) => whyUnprotectable(sysfs, { path: `/dev/${name}`, name }) === undefined)
        .map((name) => ({
          device: stableName(name) ?? `/dev/${name}`,
          sizeBytes: Number(sysfs.attribute(name, 'size') ?? 0) * SECTOR_SIZE,
          description: describe(name),
        }));
    },
    async powerOff() {
      if (options.powerOffCommand !== undefined) {
        await promisify(execFile)('sh', ['-c', options.powerOffCommand], { timeout: 60_000 });
        return;
      }
      // Not by the service manager: with its filesystems frozen it would wait for its own log.
      writeFileSync('/proc/sysrq-trigger', 'o');
    },
    // On Linux a priority is a thread's: the tracer's worker keeps its own. Where the scheduler groups by session (sched_autogroup_enabled),
    // it counts within the agent's session alone; lowering that would slow the tracer, whose events then get lost.
    giveWay: (on) => setPriority(0, on ? YIELDING : 0),
  };
}

/** A name that stays when disks are found in another order at the next boot. */
function stableName(name: string): string | undefined {
  let links: string[];
  try {
    links = readdirSync(BY_ID).sort();
  } catch {
    return undefined;
  }
  const link = links
    .filter((candidate) => !candidate.includes('-part'))
    .find((candidate) => {
      try {
        return path.basename(realpathSync(path.join(BY_ID, candidate))) === name;
      } catch {
        return false;
      }
    });
  return link === undefined ? undefined : path.join(BY_ID, link);
}

function describe(name: string): string {
  const words = [
    sysfs.attribute(name, 'device/vendor'),
    sysfs.attribute(name, 'device/model'),
    `(${name})`,
  ];
  const file = sysfs.attribute(name, 'loop/backing_file');
  if (file !== undefined) words.push(`backed by ${file}`);
  return words.filter((word) => word !== undefined && word !== '').join(' ');
}
