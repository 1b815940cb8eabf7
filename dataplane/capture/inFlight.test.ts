/** What an agent's saved state says of blocks that were on their way when it was saved: killed then, its successor must send them. */
import { expect, test } from 'vitest';
import { ManualClock } from '../../test/fakes/manualClock.ts';
import { silentLogger } from '../../test/fakes/silentLogger.ts';
import { FakeDisk, FakeFreezer, FakeTracer } from '../../test/fakes/sourceMachine.ts';
import { LEAF_SIZE } from '../journal/record.ts';
import { AnswerCode } from '../wire/messages.ts';
import { runBarrier } from './barrier.ts';
import { Dirt } from './dirt.ts';
import { CapturedDisk } from './disk.ts';
import { runPass } from './pass.ts';
import { ReadRate } from './readRate.ts';
import { Resync } from './resync.ts';
import type { RecordSink } from './sink.ts';
import { Tracking } from './tracking.ts';

const SIZE = 64 * LEAF_SIZE;

async function rig() {
  const clock = new ManualClock();
  const device = new FakeDisk({ sizeBytes: SIZE });
  const disk = new CapturedDisk({ index: 0, device, identity: await device.identity() });
  const tracking = new Tracking({ tracer: new FakeTracer([device]), clock, disks: [disk] });
  await tracking.absorb();
  return { clock, device, disk, tracking };
}

/** The leaves that an agent killed now would leave dirty, or sent in part of the journal. */
function rememberedBy(disk: CapturedDisk): number[] {
  const copy = new Dirt({ sizeBytes: SIZE });
  copy.restore(disk.dirt.serialise());
  copy.sendAgain();
  return [...copy.dirty.leaves()].map(([leaf]) => leaf);
}

function sinkThat(look: () => void): RecordSink {
  return {
    nextLsn: 1n,
    batchBytes: 256 << 10,
    send: async () => look(),
    ask: async ({ hashes }) => new Uint8Array(hashes.length / 32).fill(AnswerCode.Differs),
  };
}

test('a state saved during a pass remembers every block that is on its way', async () => {
  const { clock, device, disk, tracking } = await rig();
  device.write(0, SIZE, 7);
  await tracking.absorb();
  let looks = 0;
  const sink = sinkThat(() => {
    looks += 1;
    expect(rememberedBy(disk)).toHaveLength(64);
  });
  await runPass([disk], { sink, clock });
  expect(looks).toBeGreaterThan(3);
  expect(disk.dirt.sentBlocks).toBe(SIZE / 4096);
  expect(disk.dirt.dirty.size).toBe(0);
  expect(rememberedBy(disk)).toHaveLength(64);
});

test('a state saved while frozen, or while what was read then is sent, remembers it all', async () => {
  const { clock, device, disk, tracking } = await rig();
  device.write(0, 8 * LEAF_SIZE, 7);
  const freezer = new FakeFreezer(clock);
  const thaw = freezer.thaw.bind(freezer);
  let looks = 0;
  const look = () => {
    looks += 1;
    expect(rememberedBy(disk)).toHaveLength(8);
  };
  freezer.thaw = async () => {
    look();
    return await thaw();
  };
  let over = false;
  const made = runBarrier(
    { consistency: 'Crash', final: false },
    {
      tracking,
      sink: sinkThat(look),
      clock,
      freezer,
      hooks: { run: async () => ({ failures: [] }) },
      machine: { giveWay: () => undefined },
      readRate: new ReadRate(clock),
      limits: { deadlineMs: 2_000, finalDeadlineMs: 20_000 },
      log: silentLogger,
      ready: async () => undefined,
      deliver: async () => 100n,
      uploaded: async () => undefined,
      frozen: () => undefined,
    },
  ).finally(() => {
    over = true;
  });
  while (!over) await clock.advance(10);
  await made;
  expect(looks).toBeGreaterThan(1);
});

test('a state saved during a resync remembers what lies before the cursor and is not sent yet', async () => {
  const { clock, device, disk } = await rig();
  device.bytes.fill(7);
  const resync = new Resync({
    disks: [disk],
    progress: {
      reason: 'Initial',
      startedMs: 0,
      beginLsn: 0n,
      assumeZero: false,
      cursors: new Map(),
      bytesSent: 0,
    },
  });
  let looks = 0;
  const sink = sinkThat(() => {
    const cursor = resync.progress.cursors.get(0) ?? 0;
    if (cursor > 0) looks += 1;
    const remembered = new Set(rememberedBy(disk));
    for (let leaf = 0; leaf < cursor; leaf += 1) expect(remembered.has(leaf)).toBe(true);
  });
  await resync.run({ sink, clock, checkpoint: async () => undefined });
  expect(looks).toBeGreaterThan(0);
});
