/**
 * Capture on a loop device: one pass over scattered dirty blocks (read whole leaves past the page cache, hash, make records; nobody
 * takes them) against one process that reads the same leaves in the same order and does nothing else. And what following writes costs:
 * CPU time of the whole process, the tracer's thread included, for each 100,000 events that were traced while fio wrote.
 */
import { execFileSync } from 'node:child_process';
import type { CapturedDisk } from '../../dataplane/capture/disk.ts';
import { dirtyRuns, runPass } from '../../dataplane/capture/pass.ts';
import type { RecordSink } from '../../dataplane/capture/sink.ts';
import { BLOCK_SIZE, LEAF_SIZE } from '../../dataplane/journal/record.ts';
import { systemClock } from '../../platform/node/clock.ts';
import { LoopMachine, requireRoot } from '../integration/capture/machine.ts';
import { Rig } from '../integration/capture/rig.ts';
import { type Benchmark, median, timed } from './benchmark.ts';

const MIB = 1 << 20;
const EVENTS = 100_000;

/** Takes records and forgets them. */
const nobody: RecordSink = {
  nextLsn: 1n,
  batchBytes: MIB,
  send: async () => undefined,
  ask: async () => {
    throw new Error('a pass asks for nothing');
  },
};

interface CaptureRound {
  dirtyBlocks: number;
  leaves: number;
  passSeconds: number;
  readSeconds: number;
  cpuSecondsPerEvents: number;
}

export const capture: Benchmark = async ({ rounds, tell, cleanup, mib = 1024 }) => {
  requireRoot();
  const machine = new LoopMachine();
  const rig = new Rig(machine);
  const end = cleanup.add(async () => {
    await rig.close();
    await machine.cleanUp();
  });
  try {
    const { device } = machine.disk('source', mib * MIB);
    await rig.open([device]);
    const done: CaptureRound[] = [];
    for (let index = 0; index < rounds; index += 1) {
      const round = await runRound(rig, { device, mib, passFirst: index % 2 === 0 });
      tell(
        `round ${index + 1}: ${round.dirtyBlocks} blocks in ${round.leaves} leaves: pass ${round.passSeconds.toFixed(2)} s, reading alone ${round.readSeconds.toFixed(2)} s; ${round.cpuSecondsPerEvents.toFixed(2)} CPU s per 100,000 events`,
      );
      done.push(round);
    }
    const pass = median(done.map((round) => round.passSeconds));
    const read = median(done.map((round) => round.readSeconds));
    const leaves = median(done.map((round) => round.leaves));
    return {
      rounds: done,
      figures: [
        { label: 'reading the leaves alone', value: leaves / 16 / read, unit: 'MiB/s' },
        { label: 'a pass over them', value: leaves / 16 / pass, unit: 'MiB/s' },
        { label: 'ratio', value: read / pass, unit: '', goal: { least: 0.8 } },
        {
          label: 'CPU per 100,000 traced events',
          value: median(done.map((round) => round.cpuSecondsPerEvents)),
          unit: 's',
        },
      ],
    };
  } finally {
    await end();
  }
};

async function runRound(
  rig: Rig,
  options: { device: string; mib: number; passFirst: boolean },
): Promise<CaptureRound> {
  const { device, mib, passFirst } = options;
  const disk = rig.tracking.disks[0] as CapturedDisk;
  const events = Math.min(EVENTS, (mib * MIB) / BLOCK_SIZE);
  const before = { events: rig.tracking.eventsTaken, cpu: process.cpuUsage() };
  writeScattered(device, events);
  await rig.tracking.absorb();
  const { user, system } = process.cpuUsage(before.cpu);
  const traced = rig.tracking.eventsTaken - before.events;
  const dirtyBlocks = disk.dirt.dirty.size;
  const runs = [...dirtyRuns(disk)].map(({ firstLeaf, masks }) => ({
    firstLeaf,
    leaves: masks.length,
  }));
  const read = async () => (await timed(() => readLeaves(disk, runs))).seconds;
  const pass = async () =>
    (await timed(() => runPass([disk], { sink: nobody, clock: systemClock }))).seconds;
  const [first, second] = passFirst ? [await pass(), await read()] : [await read(), await pass()];
  disk.dirt.forget();
  return {
    dirtyBlocks,
    leaves: runs.reduce((sum, run) => sum + run.leaves, 0),
    passSeconds: passFirst ? first : second,
    readSeconds: passFirst ? second : first,
    cpuSecondsPerEvents: ((user + system) / 1e6 / traced) * 100_000,
  };
}

/** Single blocks at random places, past the page cache: each is one event at least. */
function writeScattered(device: string, blocks: number): void {
  execFileSync('fio', [
    '--name=scattered',
    `--filename=${device}`,
    '--rw=randwrite',
    '--direct=1',
    '--bs=4k',
    '--ioengine=libaio',
    '--iodepth=16',
    `--io_size=${blocks * BLOCK_SIZE}`,
    '--output=/dev/null',
  ]);
}

async function readLeaves(
  disk: CapturedDisk,
  runs: readonly { firstLeaf: number; leaves: number }[],
): Promise<void> {
  const buffer = disk.device.alignedBuffer(MIB);
  for (const { firstLeaf, leaves } of runs)
    await disk.device.read(buffer.subarray(0, leaves * LEAF_SIZE), firstLeaf * LEAF_SIZE);
}
